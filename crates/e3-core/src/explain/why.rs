//! `why`: why a task ran, or would run.

use std::{collections::BTreeMap, sync::Arc};

use e3_types::{
    DatasetPath, ExecutionId, ExecutionState, Hash, Name, ObjectRef, Package, RunId, RunReason, TaskObject,
    Timestamp, WorkspaceName,
};
use serde::Serialize;

use super::{
    difference::{Difference, differences},
    key::KeyDocument,
    plan::{Decision, EntriesPlan, PlanOptions, plan},
};
use crate::{
    DataflowError, DatasetRef, HistoryEntry, HistoryRecord, OperationKind, Origin, RefError, StorageBackend,
    StorageError, WorkspaceError, executions, history, operations,
};

/// Why a task ran, or would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The task.
    pub task: Name,
    /// The entry, if it was asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Arc<str>>,
    /// What a run would do with it now.
    pub now: Decision,
    /// What a run would do with its entries, if it runs once per entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<EntriesPlan>,
    /// What it would be executed on, or was if the result is there; none if that is not known yet.
    pub key: Option<KeyDocument>,
    /// The execution that made the result which is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<Earlier>,
    /// The nearest execution before, in this workspace.
    pub earlier: Option<Earlier>,
    /// What differs between that one and the key.
    pub differences: Vec<Difference>,
    /// Where the inputs that differ come from, by their names.
    pub provenance: BTreeMap<String, Provenance>,
}

/// An execution of the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// The execution.
    pub execution: ExecutionId,
    /// The run in which the workspace came to know it.
    pub run: RunId,
    /// When that was.
    pub at: Timestamp,
    /// Why it was executed in that run, if it was.
    pub because: Option<RunReason>,
    /// How it ended.
    pub state: ExecutionState,
    /// Why it has no output, if it has none.
    pub failure: Option<String>,
}

/// Where the value of an input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Provenance {
    /// A person, a file of the project, or the package.
    Operation {
        /// The dataset.
        dataset: DatasetPath,
        /// Who put it there.
        origin: Origin,
        /// When.
        at: Timestamp,
        /// The operation, if it is still known.
        operation: Option<u64>,
        /// Whether that operation took another one back.
        undo: bool,
    },
    /// A task.
    Task {
        /// The dataset.
        dataset: DatasetPath,
        /// The task that writes it.
        task: Name,
    },
}

/// Where to look.
struct Place<'a> {
    storage: &'a dyn StorageBackend,
    workspace: &'a WorkspaceName,
    package: &'a Package,
    roots: &'a BTreeMap<DatasetPath, DatasetRef>,
}

/// How many entries of the history are read at once.
const PAGE: usize = 64;

/// Says why a task of `package` ran, or would run, on the inputs `roots`.
pub async fn why(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    package: &Package,
    roots: &BTreeMap<DatasetPath, DatasetRef>,
    task: &Name,
    item: Option<&str>,
) -> Result<Why, DataflowError> {
    let place = Place { storage, workspace, package, roots };
    place.why(task, item).await
}

fn failed(error: impl Into<StorageError>) -> DataflowError {
    DataflowError::Workspace(WorkspaceError::Storage(error.into()))
}

impl Place<'_> {
    async fn why(&self, task: &Name, item: Option<&str>) -> Result<Why, DataflowError> {
        let target = task
            .as_str()
            .parse()
            .map_err(|_| DataflowError::NoMatch { pattern: task.to_string(), similar: None })?;
        let options = PlanOptions { targets: vec![target], ..PlanOptions::default() };
        let objects: BTreeMap<DatasetPath, ObjectRef> =
            self.roots.iter().map(|(path, value)| (path.clone(), value.object)).collect();
        let planned = plan(self.storage, self.package, &objects, &options).await?;
        let planned = planned.tasks.into_iter().find(|planned| planned.task == *task);
        let planned =
            planned.ok_or_else(|| DataflowError::NoMatch { pattern: task.to_string(), similar: None })?;

        let mut past = Past { place: self, task, item, before: None, page: Vec::new() };
        let newest = past.next().await.map_err(failed)?;
        let now = match (item, &planned.entries) {
            (Some(item), Some(EntriesPlan::Known { run, .. })) => match (run.get(item), &newest) {
                (Some(&because), _) => Decision::Run { because },
                (None, _) if !planned.entry_keys.contains_key(item) => {
                    return Err(DataflowError::NoEntry { task: task.clone(), item: item.to_owned() });
                }
                (
                    None,
                    Some((HistoryEntry { record: HistoryRecord { output: Some(output), .. }, .. }, found)),
                ) => Decision::Cached { execution: Some(found.execution), output: *output },
                (None, _) => planned.decision,
            },
            _ => planned.decision,
        };
        // What there is, is explained by what came before it; what is to come, by what there is.
        let made = match (&now, &newest) {
            (Decision::Cached { execution, .. }, Some((entry, _)))
                if entry.record.execution == *execution =>
            {
                newest.clone()
            }
            _ => None,
        };
        let earlier = if made.is_some() { past.next().await.map_err(failed)? } else { newest };
        let planned_key = match item {
            Some(item) => planned.entry_keys.get(item),
            None => planned.key.as_ref(),
        };
        let key = match (&made, planned_key) {
            (Some((_, record)), _) => KeyDocument::find(self.storage, record.task, &record.inputs).await?,
            (None, Some((object, inputs))) => KeyDocument::find(self.storage, *object, inputs).await?,
            (None, None) => None,
        };
        let mut differing = Vec::new();
        if let (Some(key), Some((_, record))) = (&key, &earlier)
            && let Some(before) = KeyDocument::find(self.storage, record.task, &record.inputs).await?
        {
            differing = differences(self.storage.objects(), &before, key).await.map_err(failed)?;
        }
        let mut provenance = BTreeMap::new();
        for difference in &differing {
            if let Difference::Input { name, after: Some(object), .. } = difference
                && let Some(found) = self.provenance(task, name, *object).await.map_err(failed)?
            {
                provenance.insert(name.clone(), found);
            }
        }
        let told = |found: &(HistoryEntry, executions::ExecutionRecord)| Earlier {
            execution: found.1.execution,
            run: found.0.run,
            at: found.0.record.at,
            because: found.0.record.because,
            state: found.1.state,
            failure: match &found.1.outcome {
                Some(Err(failure)) => Some(failure.to_string()),
                _ => None,
            },
        };
        Ok(Why {
            task: task.clone(),
            item: item.map(Arc::from),
            now,
            entries: planned.entries,
            key,
            made: made.as_ref().map(told),
            earlier: earlier.as_ref().map(told),
            differences: differing,
            provenance,
        })
    }

    /// Where the input `name` of a task got its object.
    async fn provenance(
        &self,
        task: &Name,
        name: &str,
        object: Hash,
    ) -> Result<Option<Provenance>, RefError> {
        let wired = &self.package.tasks[task];
        let is_item = name == TaskObject::ITEM && wired.each.is_some();
        let dataset = match wired.each {
            Some(each) if is_item => wired.inputs.get(each as usize),
            _ => wired.inputs.iter().find(|path| {
                path.as_str() == name || (name == "code" && path.as_str() == format!("{task}.code"))
            }),
        };
        let Some(dataset) = dataset.cloned() else { return Ok(None) };
        if let Some((task, _)) = self.package.tasks.iter().find(|(_, other)| other.output == dataset) {
            return Ok(Some(Provenance::Task { dataset, task: task.clone() }));
        }
        let Some(value) = self.roots.get(&dataset).filter(|value| is_item || value.object.hash == object)
        else {
            return Ok(None);
        };
        let operation = operations::origin_of(self.storage, self.workspace, &dataset, value.object).await?;
        Ok(Some(Provenance::Operation {
            origin: value.origin,
            at: operation.as_ref().map_or(value.at, |operation| operation.at),
            undo: matches!(operation, Some(operations::Operation { kind: OperationKind::Undo { .. }, .. })),
            operation: operation.map(|operation| operation.number),
            dataset,
        }))
    }
}

/// The executions of a task, newest first.
struct Past<'a> {
    place: &'a Place<'a>,
    task: &'a Name,
    item: Option<&'a str>,
    before: Option<(RunId, u64)>,
    page: Vec<HistoryEntry>,
}

impl Past<'_> {
    async fn next(&mut self) -> Result<Option<(HistoryEntry, executions::ExecutionRecord)>, RefError> {
        let storage = self.place.storage;
        loop {
            if self.page.is_empty() {
                self.page =
                    history::list(storage, self.place.workspace, self.task, self.before, PAGE).await?;
                self.page.reverse();
            }
            let Some(entry) = self.page.pop() else { return Ok(None) };
            self.before = Some((entry.run, entry.seq));
            if entry.record.item.as_deref() != self.item {
                continue;
            }
            let Some(execution) = entry.record.execution else { continue };
            if let Some(record) = executions::find(storage, execution).await? {
                return Ok(Some((entry, record)));
            }
        }
    }
}
