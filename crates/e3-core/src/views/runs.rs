//! Runs: `runs/WORKSPACE/ID` is the record of a run, `events/ID/SEQ` its events from number SEQ on, as many as were written
//! together, as JSON lines; `current/WORKSPACE` is the run that is under way there, or was when its process died.

use e3_types::{Event, ObjectRef, RunId, RunState, RunSummary, Timestamp, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{decode, encode, read, workspaces};
use crate::{
    Clock, Holder, Precondition, RefChange, RefError, RefName, Scan, StorageBackend, StorageError,
    WorkspaceLease, dataflow::settled,
};

/// What is recorded of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run.
    pub run: RunId,
    /// Where it ran.
    pub workspace: WorkspaceName,
    /// The package that was deployed.
    pub package: ObjectRef,
    /// The last operation of the workspace when it started.
    pub operation: u64,
    /// How it was asked to run.
    pub options: RunOptions,
    /// How it stands.
    pub state: RunState,
    /// When it started.
    pub started: Timestamp,
    /// When it ended; for a lost one, when that was noticed.
    pub ended: Option<Timestamp>,
    /// The totals, once it has ended in order.
    pub summary: Option<RunSummary>,
    /// On whose behalf.
    pub owner: Holder,
}

/// How a run was asked to run, for those who read about it later.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunOptions {
    /// The targets; all tasks if there is none.
    pub targets: Vec<String>,
    /// The tasks that were forced: patterns.
    pub force: Vec<String>,
    /// How many cores the tasks could use together.
    pub slots: usize,
}

fn run_name(workspace: &WorkspaceName, run: RunId) -> RefName {
    RefName::new(&[&"runs", workspace, &run])
}

fn current_name(workspace: &WorkspaceName) -> RefName {
    RefName::new(&[&"current", workspace])
}

/// Records that a run has started.
///
/// What the last complete run has left is forgotten, unless this one stands on it.
pub(crate) async fn record_start(
    storage: &dyn StorageBackend,
    record: &RunRecord,
    stands: bool,
) -> Result<(), RefError> {
    let mut changes = vec![
        RefChange::set(run_name(&record.workspace, record.run), encode(record)),
        RefChange::set(current_name(&record.workspace), encode(&record.run)),
    ];
    if !stands {
        changes.extend(settled::forget(storage, &record.workspace).await?);
    }
    storage.refs().write(changes).await
}

/// The changes that record the end of a run.
pub(crate) fn end(record: &RunRecord) -> [RefChange; 2] {
    [
        RefChange::set(run_name(&record.workspace, record.run), encode(record)),
        RefChange::remove(current_name(&record.workspace)),
    ]
}

fn events_name(run: RunId, first: u64) -> RefName {
    RefName::new(&[&"events", &run, &format!("{first:010}")])
}

/// The change that records events, which follow each other without a gap.
pub(crate) fn record_events(run: RunId, events: &[Event]) -> Option<RefChange> {
    let first = events.first()?.seq;
    let mut lines = Vec::with_capacity(events.len() * 192);
    for event in events {
        serde_json::to_writer(&mut lines, event).expect("events are plain data with text keys");
        lines.push(b'\n');
    }
    Some(RefChange::set(events_name(run, first), lines.into_boxed_slice()))
}

/// Up to where the events of a run have been read.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventCursor(Option<u64>);

/// How many groups of events are read at once.
const GROUPS: usize = 256;

/// The next events of a run, in order; none if there are no more yet.
pub async fn next_events(
    storage: &dyn StorageBackend,
    run: RunId,
    cursor: &mut EventCursor,
) -> Result<Vec<Event>, RefError> {
    let mut scan = Scan::under(&[&"events", &run]);
    scan.after = cursor.0.map(|first| events_name(run, first));
    scan.limit = GROUPS;
    let mut events: Vec<Event> = Vec::new();
    for (name, value) in storage.refs().scan(scan).await? {
        let corrupt = |message: String| RefError::Corrupt { name: name.clone(), message };
        let first = events.len();
        for line in value.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            events.push(serde_json::from_slice(line).map_err(|error| corrupt(error.to_string()))?);
        }
        let first = events.get(first).ok_or_else(|| corrupt("there is no event in it".to_owned()))?;
        cursor.0 = Some(first.seq);
    }
    Ok(events)
}

/// The events of a run in order.
pub async fn events(storage: &dyn StorageBackend, run: RunId) -> Result<Vec<Event>, RefError> {
    let mut cursor = EventCursor::default();
    let mut all = Vec::new();
    loop {
        let next = next_events(storage, run, &mut cursor).await?;
        if next.is_empty() {
            return Ok(all);
        }
        all.extend(next);
    }
}

/// The record of a run.
pub async fn find(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    run: RunId,
) -> Result<Option<RunRecord>, RefError> {
    read(storage.refs(), &run_name(workspace, run)).await
}

/// The newest runs of a workspace, newest first; only those before `before`, if given.
pub async fn list(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    before: Option<RunId>,
    limit: usize,
) -> Result<Vec<RunRecord>, RefError> {
    let mut scan = Scan::under(&[&"runs", workspace]).last_first(limit);
    scan.after = before.map(|run| run_name(workspace, run));
    let found = storage.refs().scan(scan).await?;
    found.into_iter().map(|(name, value)| decode(&name, &value)).collect()
}

/// Records the run whose process died as lost, if there is one; returns its id.
///
/// Whoever holds the workspace's lease knows that a run which is recorded as under way is not. `lease` is `None` for
/// those who only look: then nothing happens while somebody else holds it.
pub async fn settle_lost(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    workspace: &WorkspaceName,
    lease: Option<&WorkspaceLease>,
) -> Result<Option<RunId>, StorageError> {
    // The name first, the lease second: a run that starts in between is not the one that was read.
    let current = current_name(workspace);
    let Some(run) = read::<RunId>(storage.refs(), &current).await? else { return Ok(None) };
    if lease.is_none() && !storage.leases().inspect(&workspaces::resource(workspace)).await?.is_empty() {
        return Ok(None);
    }
    let name = run_name(workspace, run);
    let Some(value) = storage.refs().read(std::slice::from_ref(&name)).await?.pop().flatten() else {
        return Ok(None);
    };
    let mut record: RunRecord = decode(&name, &value)?;
    if record.state != RunState::Running {
        return Ok(None);
    }
    record.state = RunState::Lost;
    record.ended = Some(clock.now());
    let changes = vec![
        RefChange::set(name, encode(&record)).when(Precondition::Value(value)),
        RefChange::remove(current).when(Precondition::Value(encode(&run))),
    ];
    match storage.refs().write(changes).await {
        Ok(()) => Ok(Some(run)),
        Err(RefError::Conflict(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
