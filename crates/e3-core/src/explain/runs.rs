//! What differs between two runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use e3_types::{EventKind, ExecutionId, Name, ObjectRef, RunId};
use serde::Serialize;

use super::{
    difference::{Difference, differences},
    key::KeyDocument,
};
use crate::{PackageError, StorageBackend, StorageError, executions, runs};

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
    let (old, new) = (ends(storage, before).await?, ends(storage, after).await?);
    let names: BTreeSet<&Place> = old.keys().chain(new.keys()).collect();
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

async fn ends(storage: &dyn StorageBackend, run: RunId) -> Result<BTreeMap<Place, End>, StorageError> {
    let mut ends: BTreeMap<Place, End> = BTreeMap::new();
    let mut cursor = runs::EventCursor::default();
    loop {
        let events = runs::next_events(storage, run, &mut cursor).await?;
        if events.is_empty() {
            return Ok(ends);
        }
        for event in events {
            match event.kind {
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

async fn key(storage: &dyn StorageBackend, end: Option<&End>) -> Result<Option<KeyDocument>, PackageError> {
    let Some(execution) = end.and_then(End::execution) else { return Ok(None) };
    let record = executions::find(storage, execution).await.map_err(StorageError::from)?;
    match record {
        Some(record) => Ok(Some(KeyDocument::read(storage, record.task, &record.inputs).await?)),
        None => Ok(None),
    }
}
