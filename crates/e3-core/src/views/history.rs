//! The history of tasks by name: `history/WORKSPACE/TASK/RUN/SEQ` is what became of a task in a run, wherever that was not
//! what the workspace knew already. `durations/WORKSPACE` is how long each task took the last time,
//! `recent-durations/WORKSPACE` the same of a few tasks, newer.
//!
//! This is the index behind "what was this task executed on before": names sort by time, so the newest is one step away.

use std::{collections::BTreeMap, sync::Arc};

use e3_types::{ExecutionId, Name, ObjectRef, RunId, RunReason, Timestamp, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{decode, encode, read};
use crate::{RefChange, RefError, RefName, Scan, StorageBackend};

/// What became of a task, or of one of its entries, in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// When it was known.
    pub at: Timestamp,
    /// The entry, for a task that runs once per entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Arc<str>>,
    /// The execution that made the output, now or earlier, or that failed.
    pub execution: Option<ExecutionId>,
    /// The output, if there is one.
    pub output: Option<ObjectRef>,
    /// Whether an earlier execution answered.
    pub cached: bool,
    /// Whether the output became what the task's dataset holds.
    pub published: bool,
    /// Why the cache could not answer, where it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<RunReason>,
}

/// A record of the history with its place: runs sort by time, events within a run by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The run.
    pub run: RunId,
    /// The number of the event.
    pub seq: u64,
    /// What became of the task.
    pub record: HistoryRecord,
}

/// The change that adds a record.
pub(crate) fn add(
    workspace: &WorkspaceName,
    task: &Name,
    run: RunId,
    seq: u64,
    record: &HistoryRecord,
) -> RefChange {
    RefChange::set(name(workspace, task, run, seq), encode(record))
}

fn name(workspace: &WorkspaceName, task: &Name, run: RunId, seq: u64) -> RefName {
    RefName::new(&[&"history", workspace, task, &run, &format!("{seq:010}")])
}

/// The newest entries of a task, newest first; only those before `before`, if given.
pub async fn list(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    task: &Name,
    before: Option<(RunId, u64)>,
    limit: usize,
) -> Result<Vec<HistoryEntry>, RefError> {
    let mut scan = Scan::under(&[&"history", workspace, task]).last_first(limit);
    scan.after = before.map(|(run, seq)| name(workspace, task, run, seq));
    let found = storage.refs().scan(scan).await?;
    let entry = |(name, value): (RefName, bytes::Bytes)| {
        let mut segments = name.as_str().rsplit('/');
        let seq = segments.next().and_then(|text| text.parse().ok());
        let run = segments.next().and_then(|text| text.parse().ok());
        let (run, seq) = run.zip(seq).ok_or_else(|| RefError::Corrupt {
            name: name.clone(),
            message: "expected history/WORKSPACE/TASK/RUN/SEQ".to_owned(),
        })?;
        Ok(HistoryEntry { run, seq, record: decode(&name, &value)? })
    };
    found.into_iter().map(entry).collect()
}

/// How many durations are few.
const FEW: usize = 1000;

/// Of all tasks, and of a few.
pub(super) fn durations_names(workspace: &WorkspaceName) -> [RefName; 2] {
    [RefName::new(&[&"durations", workspace]), RefName::new(&[&"recent-durations", workspace])]
}

/// How long each task of a workspace took the last time, in milliseconds; for one that runs once per entry, how long the
/// last entry took.
pub async fn durations(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<BTreeMap<Name, u64>, RefError> {
    let mut durations = BTreeMap::new();
    for name in durations_names(workspace) {
        durations.extend(read::<BTreeMap<_, _>>(storage.refs(), &name).await?.unwrap_or_default());
    }
    Ok(durations)
}

/// The changes that record how long some tasks took: where there are few of them, without touching what is known of all others.
pub(crate) async fn record_durations(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    took: BTreeMap<Name, u64>,
) -> Result<Vec<RefChange>, RefError> {
    let [all, few] = durations_names(workspace);
    let mut recent: BTreeMap<Name, u64> = read(storage.refs(), &few).await?.unwrap_or_default();
    recent.extend(took);
    if recent.len() <= FEW {
        return Ok(vec![RefChange::set(few, encode(&recent))]);
    }
    let mut durations: BTreeMap<Name, u64> = read(storage.refs(), &all).await?.unwrap_or_default();
    durations.extend(recent);
    Ok(vec![RefChange::set(all, encode(&durations)), RefChange::remove(few)])
}
