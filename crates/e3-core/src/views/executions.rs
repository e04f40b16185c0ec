//! Executions: `executions/ID` is the history of one, `results/TASK/INPUTS` the newest finished one of a key,
//! `latest/TASK/INPUTS` the id of the newest one of a key that was seen running, or was cancelled.

use e3_types::{ExecutionId, ExecutionState, Failure, Hash, ObjectRef, Sandbox, TaskLimits, Timestamp};
use serde::{Deserialize, Serialize};

use super::{decode, encode, read};
use crate::{ExecutionKey, Holder, RefChange, RefError, RefName, StorageBackend, StorageError, Usage};

/// What is recorded of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionRecord {
    /// The execution.
    pub execution: ExecutionId,
    /// What it was called where it ran: `WORKSPACE/TASK`, with `[ENTRY]` for one of many. No part of its identity.
    pub label: String,
    /// The task object.
    pub task: Hash,
    /// The input objects in the task's order.
    pub inputs: Vec<Hash>,
    /// How it stands.
    pub state: ExecutionState,
    /// Which attempt of its run, from 1.
    pub attempt: u32,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The output, or why there is none.
    pub outcome: Option<Result<ObjectRef, Failure>>,
    /// What it cost.
    pub usage: Usage,
    /// What its user should know beside that: see `TaskResult`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it could use at most.
    #[serde(default, skip_serializing_if = "TaskLimits::is_none")]
    pub limits: TaskLimits,
    /// What it could see.
    #[serde(default, skip_serializing_if = "Sandbox::is_off")]
    pub sandbox: Sandbox,
    /// How long it might take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Which runner executed it.
    pub runner: String,
    /// On whose behalf.
    pub owner: Holder,
}

/// The newest finished execution of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// The execution.
    pub execution: ExecutionId,
    /// The output, or why there is none.
    pub outcome: Result<ObjectRef, Failure>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

fn execution_name(execution: ExecutionId) -> RefName {
    RefName::new(&[&"executions", &execution])
}

fn result_name(key: &ExecutionKey) -> RefName {
    RefName::new(&[&"results", &key.task, &key.inputs])
}

fn latest_name(key: &ExecutionKey) -> RefName {
    RefName::new(&[&"latest", &key.task, &key.inputs])
}

/// The newest finished execution of each key, in the order of the keys.
pub async fn results(
    storage: &dyn StorageBackend,
    keys: &[ExecutionKey],
) -> Result<Vec<Option<ResultRecord>>, RefError> {
    let names: Vec<_> = keys.iter().map(result_name).collect();
    let values = storage.refs().read(&names).await?;
    names
        .iter()
        .zip(values)
        .map(|(name, value)| value.map(|value| decode(name, &value)).transpose())
        .collect()
}

/// All results, a page after the other, with the name of the last; none if that was the last page.
pub(crate) async fn all_results(
    storage: &dyn StorageBackend,
    after: Option<RefName>,
    limit: usize,
) -> Result<(Vec<ResultRecord>, Option<RefName>), RefError> {
    let mut scan = crate::Scan::under(&[&"results"]);
    (scan.after, scan.limit) = (after, limit);
    let found = storage.refs().scan(scan).await?;
    let last = found.last().filter(|_| found.len() == limit).map(|(name, _)| name.clone());
    let results = found.into_iter().map(|(name, value)| decode(&name, &value)).collect::<Result<_, _>>()?;
    Ok((results, last))
}

/// Forgets the results of these keys, so that they are not taken for known any more. What was executed stays in the history.
pub async fn forget(storage: &dyn StorageBackend, keys: &[ExecutionKey]) -> Result<(), RefError> {
    storage.refs().write(keys.iter().map(|key| RefChange::remove(result_name(key))).collect()).await
}

/// The newest execution of a key, finished or not.
pub async fn latest(
    storage: &dyn StorageBackend,
    key: &ExecutionKey,
) -> Result<Option<ExecutionId>, RefError> {
    let names = [latest_name(key), result_name(key)];
    let values = storage.refs().read(&names).await?;
    let seen = values[0].as_deref().map(|value| decode::<ExecutionId>(&names[0], value)).transpose()?;
    let ended = values[1].as_deref().map(|value| decode::<ResultRecord>(&names[1], value)).transpose()?;
    // Ids sort by time.
    Ok(seen.max(ended.map(|result| result.execution)))
}

/// The record of an execution.
pub async fn find(
    storage: &dyn StorageBackend,
    execution: ExecutionId,
) -> Result<Option<ExecutionRecord>, RefError> {
    read(storage.refs(), &execution_name(execution)).await
}

/// The newest executions of the repository, newest first; only those before `before`, if given.
pub async fn list(
    storage: &dyn StorageBackend,
    before: Option<ExecutionId>,
    limit: usize,
) -> Result<Vec<ExecutionRecord>, RefError> {
    let mut scan = crate::Scan::under(&[&"executions"]).last_first(limit);
    scan.after = before.map(execution_name);
    let found = storage.refs().scan(scan).await?;
    found.into_iter().map(|(name, value)| decode(&name, &value)).collect()
}

/// Whether an execution is under way. One that is recorded as running but whose key its owner does not hold any more has
/// died with it.
pub async fn is_running(
    storage: &dyn StorageBackend,
    record: &ExecutionRecord,
) -> Result<bool, StorageError> {
    let key = ExecutionKey::new(record.task, &record.inputs);
    if record.state != ExecutionState::Running {
        return Ok(false);
    }
    let holders = storage.leases().inspect(&key.lease()).await?;
    Ok(holders.iter().any(|holder| holder.owner == record.owner.owner))
}

/// Records that an execution has started.
pub(crate) async fn record_start(
    storage: &dyn StorageBackend,
    record: &ExecutionRecord,
) -> Result<(), StorageError> {
    let key = ExecutionKey::new(record.task, &record.inputs);
    let changes = vec![
        RefChange::set(execution_name(record.execution), encode(record)),
        RefChange::set(latest_name(&key), encode(&record.execution)),
    ];
    Ok(storage.refs().write(changes).await?)
}

/// The changes that record how an execution ended. One that was cancelled has no verdict and leaves the result of its key
/// alone.
pub(crate) fn record_end(record: &ExecutionRecord, key: ExecutionKey, took_ms: u64) -> Vec<RefChange> {
    let own = RefChange::set(execution_name(record.execution), encode(record));
    let of_key = match &record.outcome {
        Some(outcome) if *outcome != Err(Failure::Cancelled) => {
            let result = ResultRecord { execution: record.execution, outcome: outcome.clone(), took_ms };
            RefChange::set(result_name(&key), encode(&result))
        }
        _ => RefChange::set(latest_name(&key), encode(&record.execution)),
    };
    vec![own, of_key]
}
