//! What every runner shares: the identity of an execution, the look into the cache, and the record of what happened.
//!
//! Written once, so that a result found by one runner is a result for all of them.

use std::{future::Future, sync::Arc, time::Duration};

use e3_types::{ExecutionId, ExecutionState, Failure, Hash, Hasher, ObjectRef, RunReason};

use crate::{
    Clock, ExecutionRecord, Holder, Lease, ResultRecord, StorageBackend, StorageError, TaskExecuteOptions,
    TaskResult, Uncommitted, executions,
};

/// What an execution is an execution of. Two executions with one key are expected to make the same output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExecutionKey {
    /// The task object.
    pub task: Hash,
    /// The hash of the inputs' hashes.
    pub inputs: Hash,
}

impl ExecutionKey {
    /// The key of `task` on `inputs`: the inputs hash is the SHA-256 of the hashes as hexadecimal text, in the task's
    /// order, joined by one NUL byte.
    pub fn new(task: Hash, inputs: &[Hash]) -> Self {
        let mut hasher = Hasher::new();
        for (position, input) in inputs.iter().enumerate() {
            if position > 0 {
                hasher.update(b"\0");
            }
            hasher.update(&input.hex());
        }
        Self { task, inputs: hasher.finish() }
    }

    pub(crate) fn lease(&self) -> String {
        format!("execution/{}/{}", self.task, self.inputs)
    }
}

/// What the cache says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The result is known and its object is there.
    Hit(TaskResult),
    /// It has to be executed.
    Miss(RunReason),
}

/// Looks up several keys at once; the answers are in the order of the keys.
///
/// The cached result of a key is its newest finished execution, if that was a success whose output is in the store
/// with the recorded size.
pub async fn lookup_many(
    storage: &dyn StorageBackend,
    keys: &[ExecutionKey],
) -> Result<Vec<Lookup>, StorageError> {
    let results = executions::results(storage, keys).await?;
    let outputs: Vec<Hash> =
        results.iter().flatten().filter_map(|result| Some(result.outcome.as_ref().ok()?.hash)).collect();
    let mut sizes = storage.objects().stat_many(&outputs).await?.into_iter();
    Ok(results
        .into_iter()
        .map(|result| match result {
            None => Lookup::Miss(RunReason::NoResult),
            Some(ResultRecord { outcome: Err(_), .. }) => Lookup::Miss(RunReason::LastFailed),
            Some(ResultRecord { outcome: Ok(output), execution, took_ms }) => {
                if sizes.next().flatten() == Some(output.size) {
                    Lookup::Hit(TaskResult {
                        outcome: Ok(output),
                        cached: true,
                        execution: Some(execution),
                        took_ms,
                        notes: Vec::new(),
                        uncommitted: Uncommitted::default(),
                    })
                } else {
                    Lookup::Miss(RunReason::OutputMissing)
                }
            }
        })
        .collect())
}

/// What a runner brings along for all of its executions.
pub struct ExecutionContext<'a> {
    /// The repository.
    pub storage: &'a dyn StorageBackend,
    /// Time and ids.
    pub clock: &'a dyn Clock,
    /// On whose behalf.
    pub holder: &'a Holder,
    /// The runner's name, for the record.
    pub runner: &'a str,
}

/// What one execution came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The output, which is in the store, or why there is none.
    pub verdict: Result<ObjectRef, Failure>,
    /// What it cost.
    pub usage: Usage,
    /// What its user should know beside that: see `TaskResult`.
    pub notes: Vec<String>,
}

/// The resources that an execution used, where the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// CPU time in user mode, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_ms: Option<u64>,
    /// CPU time in the kernel, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_ms: Option<u64>,
    /// The largest resident set, in bytes. Of a process that had less than e3 itself Linux does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// Executes once, when it is time to: waits for another execution of the same key if there is one, answers from the cache if
/// it can, and otherwise calls `body` and records what came of it.
///
/// Everything that is not the work itself is here: identity, lookup, the lease on the key, the record.
pub async fn perform<Body, Work>(
    context: ExecutionContext<'_>,
    task: Hash,
    inputs: &[Hash],
    options: &TaskExecuteOptions,
    body: Body,
) -> TaskResult
where
    Body: FnOnce(ExecutionId) -> Work + Send,
    Work: Future<Output = Outcome> + Send,
{
    if !options.time_comes().await {
        return TaskResult::without_execution(Failure::Cancelled);
    }
    let attempt = async {
        let key = ExecutionKey::new(task, inputs);
        let resource = key.lease();
        let leases = context.storage.leases();
        let lease = tokio::select! {
            lease = leases.acquire_when_free(&resource, context.holder) => lease?,
            () = options.cancellation.requested() => return Ok(TaskResult::without_execution(Failure::Cancelled)),
        };
        // Looked up once, and here: whoever had the lease until now may have made the result, and a dataflow asks only for
        // what it has looked up before.
        if !options.force
            && let Some(hit) = hit(context.storage, key).await?
        {
            return Ok(hit);
        }
        execute_and_record(&context, key, inputs, options, lease, body).await
    };
    attempt.await.unwrap_or_else(|error: StorageError| {
        TaskResult::without_execution(Failure::Error { class: error.class(), message: error.to_string() })
    })
}

/// An execution that is over sooner was never seen running.
const NO_TIME: Duration = Duration::from_millis(20);

async fn execute_and_record<Body, Work>(
    context: &ExecutionContext<'_>,
    key: ExecutionKey,
    inputs: &[Hash],
    options: &TaskExecuteOptions,
    lease: Lease,
    body: Body,
) -> Result<TaskResult, StorageError>
where
    Body: FnOnce(ExecutionId) -> Work + Send,
    Work: Future<Output = Outcome> + Send,
{
    let execution = context.clock.new_execution();
    let mut record = ExecutionRecord {
        execution,
        label: options.label.clone(),
        task: key.task,
        inputs: inputs.to_vec(),
        state: ExecutionState::Running,
        attempt: options.attempt.max(1),
        started: context.clock.now(),
        ended: None,
        outcome: None,
        usage: Usage::default(),
        notes: Vec::new(),
        limits: options.limits,
        sandbox: options.sandbox,
        timeout_ms: options.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        runner: context.runner.to_owned(),
        owner: context.holder.clone(),
    };
    // What takes no time is only recorded when it is over; and nothing waits for a commit but what is reported.
    let begin = tokio::time::Instant::now();
    let outcome = {
        let mut work = std::pin::pin!(body(execution));
        tokio::select! {
            biased;
            outcome = &mut work => outcome,
            started = async {
                tokio::time::sleep(NO_TIME).await;
                executions::record_start(context.storage, &record).await
            } => {
                // The record of its end says everything that this one would.
                if let Err(error) = started {
                    tracing::warn!(%error, %execution, "an execution is not recorded as running");
                }
                work.await
            }
        }
    };
    let took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    record.ended = Some(context.clock.now());
    record.state = outcome.verdict.as_ref().map_or_else(Failure::state, |_| ExecutionState::Success);
    record.outcome = Some(outcome.verdict.clone());
    record.usage = outcome.usage;
    record.notes.clone_from(&outcome.notes);
    let changes = executions::record_end(&record, key, took_ms);
    let mut uncommitted = Uncommitted { changes, lease: Some(Arc::new(lease)) };
    if !options.defer_records {
        std::mem::take(&mut uncommitted).write(context.storage).await?;
    }
    let notes = outcome.notes;
    let outcome = outcome.verdict;
    Ok(TaskResult { outcome, cached: false, execution: Some(execution), took_ms, notes, uncommitted })
}

async fn hit(storage: &dyn StorageBackend, key: ExecutionKey) -> Result<Option<TaskResult>, StorageError> {
    Ok(match lookup_many(storage, &[key]).await?.pop() {
        Some(Lookup::Hit(result)) => Some(result),
        Some(Lookup::Miss(_)) | None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_hash_is_that_of_the_joined_texts() {
        let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
        let key = ExecutionKey::new(Hash::of(b"task"), &[a, b]);
        assert_eq!(key.inputs, Hash::of(format!("{a}\0{b}").as_bytes()));
        assert_ne!(key.inputs, ExecutionKey::new(key.task, &[b, a]).inputs, "order matters");
        assert_eq!(ExecutionKey::new(key.task, &[]).inputs, Hash::of(b""));
    }
}
