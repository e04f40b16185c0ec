//! The shortest answer: nothing has been done to a workspace since a run left it complete.
//!
//! `settled/WORKSPACE` says what such a run saw: the package, the change counter when everything up to it had been taken in, and
//! the stamp of the objects. While all three are the same a new run has nothing to find out, however many tasks there are. Every
//! other run forgets it when it starts.
//!
//! What this does not see is an object that somebody has changed in place, past the file system's own rules; who reads it, or
//! verifies the repository, does.

use e3_types::{DatasetPath, Event, EventKind, Hash, ObjectRef, RunState, RunSummary, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::options::{DataflowOptions, Force, RunReport};
use crate::{
    RefChange, RefError, RefName, RunRecord, StorageBackend, StorageError, runs,
    views::{self, followed},
};

/// What a run saw that left a workspace complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settled {
    pub(super) package: Hash,
    pub(super) counter: u64,
    pub(super) objects: String,
    /// How many results there are: of its tasks, and of the entries of those that run once per entry.
    pub(super) total: u64,
    /// How long the executions took that need not be done again, in milliseconds, as far as the run knew.
    pub(super) saved_ms: u64,
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

/// The change that forgets it.
pub(crate) fn forget(workspace: &WorkspaceName) -> RefChange {
    RefChange::remove(name(workspace))
}

/// What is remembered, if it is about this package and nothing has happened since.
pub(super) async fn find(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    counter: u64,
    package: Hash,
) -> Result<Option<Settled>, StorageError> {
    let found: Option<Settled> = views::read(storage.refs(), &name(workspace)).await?;
    let is_of_now = |settled: &Settled| settled.package == package && settled.counter == counter;
    let Some(settled) = found.filter(is_of_now) else { return Ok(None) };
    let is_same = settled.objects == storage.object_stamp().await?;
    Ok(is_same.then_some(settled))
}

/// Whether neither a deployment of this package, with files that look so, nor a run of all of it would find anything to do; then
/// the inputs that keep what a person has set.
pub async fn kept_if_settled(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    package: ObjectRef,
    looks: Hash,
) -> Result<Option<Vec<DatasetPath>>, StorageError> {
    let counter = storage.refs().change_counter(workspace).await?;
    if find(storage, workspace, counter, package.hash).await?.is_none() {
        return Ok(None);
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
    let started = EventKind::RunStarted { run, workspace: workspace.clone(), package, total };
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
