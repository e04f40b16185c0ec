//! What differs between two runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use e3_types::{EventKind, ExecutionId, Name, ObjectRef, RunId, WorkspaceName};
use serde::Serialize;

use super::{
    difference::{Difference, differences},
    key::KeyDocument,
};
use crate::{HistoryRecord, PackageError, StorageBackend, StorageError, executions, history, packages, runs};

/// What differs between two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunsDifference {
    /// How many tasks came to the same in both.
    pub same: u64,
    /// The others: tasks by name, entries of tasks as `TASK[ENTRY]`.
    pub tasks: BTreeMap<String, TaskDifference>,
}

/// What differs about a task between two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskDifference {
    /// What became of it in the first; none if it was not part of it.
    pub before: Option<String>,
    /// And in the second.
    pub after: Option<String>,
    /// What differs in what it was executed on, as far as that is known.
    pub differences: Vec<Difference>,
}

/// How a task ended in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Output(Option<ExecutionId>, ObjectRef),
    Failed(Option<ExecutionId>, String),
    Skipped,
    Open,
}

impl End {
    fn execution(&self) -> Option<ExecutionId> {
        match self {
            Self::Output(execution, _) | Self::Failed(execution, _) => *execution,
            Self::Skipped | Self::Open => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Output(_, output) => output.hash.to_string(),
            Self::Failed(_, failure) => format!("failed: {failure}"),
            Self::Skipped => "skipped".to_owned(),
            Self::Open => "not finished".to_owned(),
        }
    }
}

/// Compares two runs, task by task.
pub async fn runs_difference(
    storage: &dyn StorageBackend,
    before: RunId,
    after: RunId,
) -> Result<RunsDifference, PackageError> {
    let (Ends { ends: old, stood: stood_before }, Ends { ends: new, stood: stood_after }) =
        (ends(storage, before).await?, ends(storage, after).await?);
    // Of the entries of what stood nothing is told but the folder of all that they made.
    let is_told = |(task, item): &&Place| {
        item.is_none() || !(stood_before.contains(task) || stood_after.contains(task))
    };
    let names: BTreeSet<&Place> = old.keys().chain(new.keys()).filter(is_told).collect();
    let mut found = RunsDifference { same: 0, tasks: BTreeMap::new() };
    for name in names {
        let (old, new) = (old.get(name), new.get(name));
        let same = match (old, new) {
            (Some(End::Output(_, before)), Some(End::Output(_, after))) => before == after,
            (before, after) => before == after,
        };
        let (old_key, new_key) = (key(storage, old).await?, key(storage, new).await?);
        let mut differing = Vec::new();
        if let (Some(old), Some(new)) = (old_key, new_key) {
            differing = differences(storage.objects(), &old, &new).await.map_err(StorageError::from)?;
        }
        if same && differing.is_empty() {
            found.same += 1;
        } else {
            let (before, after) = (old.map(End::text), new.map(End::text));
            let (task, item) = name;
            let label = item.as_ref().map_or_else(|| task.to_string(), |item| format!("{task}[{item}]"));
            found.tasks.insert(label, TaskDifference { before, after, differences: differing });
        }
    }
    Ok(found)
}

/// A task, or an entry of one.
type Place = (Name, Option<Arc<str>>);

/// What became of the tasks of a run.
struct Ends {
    ends: BTreeMap<Place, End>,
    /// Those that it has taken over from before.
    stood: BTreeSet<Name>,
}

async fn ends(storage: &dyn StorageBackend, run: RunId) -> Result<Ends, PackageError> {
    let mut ends: BTreeMap<Place, End> = BTreeMap::new();
    let mut stands_in = None;
    let mut cursor = runs::EventCursor::default();
    loop {
        let events = runs::next_events(storage, run, &mut cursor).await.map_err(StorageError::from)?;
        if events.is_empty() {
            let stood = match stands_in {
                Some(workspace) => add_what_stood(storage, &workspace, run, &mut ends).await?,
                None => BTreeSet::new(),
            };
            return Ok(Ends { ends, stood });
        }
        for event in events {
            match event.kind {
                EventKind::RunStarted { workspace, standing, .. } => {
                    stands_in = (standing > 0).then_some(workspace);
                }
                EventKind::TaskCompleted { task, item, execution, output, superseded: false, .. } => {
                    ends.insert((task, item), End::Output(execution, output));
                }
                EventKind::TaskFailed { task, item, execution, failure, superseded: false, .. } => {
                    ends.insert((task, item), End::Failed(execution, failure.to_string()));
                }
                EventKind::TaskSkipped { task, .. } => {
                    ends.insert((task, None), End::Skipped);
                }
                EventKind::TaskInvalidated { task, .. } => {
                    ends.retain(|(other, item), _| item.is_none() || *other != task);
                    ends.insert((task, None), End::Open);
                }
                EventKind::TaskExpanded { task, .. } => {
                    ends.entry((task, None)).or_insert(End::Open);
                }
                EventKind::TaskStarted { task, item, .. } => {
                    ends.entry((task, item)).or_insert(End::Open);
                }
                _ => {}
            }
        }
    }
}

/// Adds the tasks of which the run has told nothing, because nothing had happened to their results: these are what the workspace
/// held then.
async fn add_what_stood(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    run: RunId,
    ends: &mut BTreeMap<Place, End>,
) -> Result<BTreeSet<Name>, PackageError> {
    let mut stood = BTreeSet::new();
    let record = runs::find(storage, workspace, run).await.map_err(StorageError::from)?;
    let Some(record) = record else { return Ok(stood) };
    for task in packages::load(storage, record.package).await?.tasks.into_keys() {
        let place = (task, None);
        if ends.contains_key(&place) {
            continue;
        }
        if let Some((execution, output)) = published_before(storage, workspace, &place.0, run).await? {
            stood.insert(place.0.clone());
            ends.insert(place, End::Output(execution, output));
        }
    }
    Ok(stood)
}

/// How much of the history of a task is read at once.
const PAGE: usize = 8;

/// What the dataset of a task held when a run ended that has not written it.
async fn published_before(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    task: &Name,
    run: RunId,
) -> Result<Option<(Option<ExecutionId>, ObjectRef)>, StorageError> {
    let mut before = Some((run, u64::MAX));
    loop {
        let page = history::list(storage, workspace, task, before, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        before = Some((last.run, last.seq));
        let published = page.into_iter().map(|entry| entry.record).find(|record| record.published);
        if let Some(HistoryRecord { execution, output: Some(output), .. }) = published {
            return Ok(Some((execution, output)));
        }
    }
}

async fn key(storage: &dyn StorageBackend, end: Option<&End>) -> Result<Option<KeyDocument>, PackageError> {
    let Some(execution) = end.and_then(End::execution) else { return Ok(None) };
    let record = executions::find(storage, execution).await.map_err(StorageError::from)?;
    match record {
        Some(record) => Ok(Some(KeyDocument::read(storage, record.task, &record.inputs).await?)),
        None => Ok(None),
    }
}
