//! What the last complete run of a workspace has left, so that the next one has to look only at what has changed since.
//!
//! `settled/WORKSPACE` says what such a run saw: the package, the last operation and the change counter when everything up to it had been
//! taken in, and the stamp of the objects. While all of that is the same a new run has nothing to find out, however many tasks
//! there are. If not, see `standing.rs`. A run that does not stand on it forgets it when it starts.
//!
//! What this does not see is an object that somebody has changed in place, past the file system's own rules; who reads it, or
//! verifies the repository, does.

use e3_types::{DatasetPath, Event, EventKind, Hash, ObjectRef, RunState, RunSummary, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{
    options::{DataflowOptions, Force, RunReport},
    standing,
};
use crate::{
    Looks, ObjectStamp, RefChange, RefError, RefName, RunRecord, StorageBackend, StorageError, runs,
    views::{self, followed},
};

/// What a run saw that left a workspace complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settled {
    pub(super) package: Hash,
    pub(super) counter: u64,
    pub(super) operation: u64,
    pub(super) objects: ObjectStamp,
    /// How many tasks and inputs the graph has.
    pub(super) tasks: usize,
    pub(super) roots: usize,
    /// How many results there are: of its tasks, and of the entries of those that run once per entry.
    pub(super) total: u64,
    /// How long the executions took that need not be done again, in milliseconds, as far as the run knew.
    pub(super) saved_ms: u64,
}

impl Settled {
    /// Whether nothing has happened since, in a workspace with this change counter and package.
    pub(super) async fn is_of_now(
        &self,
        storage: &dyn StorageBackend,
        counter: u64,
        package: Hash,
    ) -> Result<bool, StorageError> {
        Ok(self.package == package
            && self.counter == counter
            && self.objects == storage.object_stamp().await?)
    }
}

fn name(workspace: &WorkspaceName) -> RefName {
    RefName::new(&[&"settled", workspace])
}

/// Whether a run with these options, if it completes, leaves nothing to do.
pub(super) fn covers_everything(options: &DataflowOptions) -> bool {
    options.targets.is_empty() && matches!(options.force, Force::Nothing)
}

/// The change that remembers it.
pub(super) fn remember(workspace: &WorkspaceName, settled: &Settled) -> RefChange {
    RefChange::set(name(workspace), views::encode(settled))
}

/// The changes that forget it, with all that stands on it.
pub(crate) async fn forget(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<Vec<RefChange>, RefError> {
    let Some(settled) = find(storage, workspace).await? else { return Ok(Vec::new()) };
    let mut changes = standing::forget(workspace, settled.tasks, settled.roots);
    changes.push(RefChange::remove(name(workspace)));
    Ok(changes)
}

/// What is remembered.
pub(super) async fn find(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<Option<Settled>, RefError> {
    views::read(storage.refs(), &name(workspace)).await
}

/// Whether neither a deployment of this package, with files that look so, nor a run of all of it would find anything to do; then
/// the inputs that keep what a person has set.
pub async fn kept_if_settled(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    package: ObjectRef,
    looks: &Looks,
) -> Result<Option<Vec<DatasetPath>>, StorageError> {
    let counter = storage.refs().change_counter(workspace).await?;
    let settled = find(storage, workspace).await?;
    match settled {
        Some(settled) if settled.is_of_now(storage, counter, package.hash).await? => {}
        _ => return Ok(None),
    }
    Ok(followed::kept_if_deployed(storage, workspace, package.hash, looks).await?)
}

/// A run that finds nothing to do, from start to end.
pub(super) async fn run(
    storage: &dyn StorageBackend,
    options: &DataflowOptions,
    mut record: RunRecord,
    settled: &Settled,
) -> Result<RunReport, RefError> {
    let now = options.clock.now();
    let summary = RunSummary {
        total: settled.total,
        cached: settled.total,
        saved_ms: settled.saved_ms,
        wall_ms: now.unix_ms().saturating_sub(record.started.unix_ms()),
        ..RunSummary::default()
    };
    let (run, workspace) = (record.run, record.workspace.clone());
    let (package, total) = (settled.package, settled.total);
    let started =
        EventKind::RunStarted { run, workspace: workspace.clone(), package, total, standing: total };
    let ended = EventKind::RunEnded { state: RunState::Completed, summary };
    let events =
        [Event { seq: 0, at: record.started, kind: started }, Event { seq: 1, at: now, kind: ended }];
    (record.state, record.ended, record.summary) = (RunState::Completed, Some(now), Some(summary));
    let changes = runs::end(&record).into_iter().chain(runs::record_events(run, &events)).collect();
    storage.refs().write(changes).await?;
    for event in &events {
        options.events.emit(event);
    }
    Ok(RunReport {
        run,
        workspace,
        state: RunState::Completed,
        summary,
        failures: Vec::new(),
        unassigned: std::collections::BTreeSet::new(),
        operation: record.operation,
        lost: None,
    })
}
