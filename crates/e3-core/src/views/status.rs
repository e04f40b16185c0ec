//! How the tasks of a workspace stand: what a run would do, beside what the workspace holds and who is at work. Nothing is
//! executed to find out.

use std::{collections::BTreeMap, sync::Arc};

use e3_types::{DatasetPath, ExecutionId, Failure, Hash, Name, ObjectRef, Package, RunReason};

use super::{datasets::DatasetRef, executions};
use crate::{
    DataflowError, Decision, EntriesPlan, ExecutionKey, Holder, PlanOptions, PlannedTask, StorageBackend,
    StorageError, WorkspaceError, plan,
};

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskStatus {
    /// Its output is derived from the inputs as they are now.
    UpToDate,
    /// It is being executed.
    Running {
        /// By whom.
        holders: Vec<Holder>,
    },
    /// Its inputs are up to date and it failed on them.
    Failed {
        /// The entry, for a task that runs once per entry.
        item: Option<Arc<str>>,
        /// The execution, if it came to one.
        execution: Option<ExecutionId>,
        /// What went wrong.
        failure: String,
    },
    /// Its inputs are up to date, and so is its result, which is no longer in the store.
    OutputMissing,
    /// Its inputs are up to date, and it has not run on them; or it waits for a task that has not.
    Pending,
    /// It needs, directly or not, an input that has no value.
    Blocked {
        /// The input.
        dataset: DatasetPath,
    },
}

/// The status of every task of a workspace.
pub async fn tasks(
    storage: &dyn StorageBackend,
    package: &Package,
    values: &BTreeMap<DatasetPath, DatasetRef>,
) -> Result<BTreeMap<Name, TaskStatus>, DataflowError> {
    let roots: BTreeMap<DatasetPath, ObjectRef> =
        values.iter().map(|(path, value)| (path.clone(), value.object)).collect();
    let planned = plan(storage, package, &roots, &PlanOptions::default()).await?;
    let mut statuses = BTreeMap::new();
    for task in planned.tasks {
        let value = values.get(&package.tasks[&task.task].output).map(|value| value.object);
        let status = status(storage, &task, value).await;
        let status = status.map_err(|error| DataflowError::Workspace(WorkspaceError::Storage(error)))?;
        statuses.insert(task.task, status);
    }
    Ok(statuses)
}

async fn status(
    storage: &dyn StorageBackend,
    task: &PlannedTask,
    value: Option<ObjectRef>,
) -> Result<TaskStatus, StorageError> {
    Ok(match &task.decision {
        Decision::Cached { output, .. } if value == Some(*output) => TaskStatus::UpToDate,
        Decision::Cached { .. } | Decision::Depends { .. } => TaskStatus::Pending,
        Decision::Blocked { dataset } => TaskStatus::Blocked { dataset: dataset.clone() },
        Decision::Error { message } => {
            TaskStatus::Failed { item: None, execution: None, failure: message.clone() }
        }
        Decision::Run { because } => {
            let holders = holders(storage, task).await?;
            if !holders.is_empty() {
                return Ok(TaskStatus::Running { holders });
            }
            if let Some(failed) = failed(storage, task).await? {
                return Ok(failed);
            }
            match because {
                RunReason::OutputMissing => TaskStatus::OutputMissing,
                _ => TaskStatus::Pending,
            }
        }
    })
}

/// What would be executed for a task, with the name of the entry and the reason.
fn to_run(task: &PlannedTask) -> Vec<(Option<Arc<str>>, ExecutionKey, RunReason)> {
    let key = |(task, inputs): &(Hash, Vec<Hash>)| ExecutionKey::new(*task, inputs);
    match (&task.entries, &task.decision) {
        (Some(EntriesPlan::Known { run, .. }), _) => run
            .iter()
            .filter_map(|(name, because)| {
                Some((Some(Arc::clone(name)), key(task.entry_keys.get(name)?), *because))
            })
            .collect(),
        (None, Decision::Run { because }) => {
            task.key.iter().map(|known| (None, key(known), *because)).collect()
        }
        _ => Vec::new(),
    }
}

async fn holders(storage: &dyn StorageBackend, task: &PlannedTask) -> Result<Vec<Holder>, StorageError> {
    let mut holders: Vec<Holder> = Vec::new();
    for (_, key, _) in to_run(task) {
        for holder in storage.leases().inspect(&key.lease()).await? {
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    Ok(holders)
}

/// The first of what would be executed that has failed before.
async fn failed(
    storage: &dyn StorageBackend,
    task: &PlannedTask,
) -> Result<Option<TaskStatus>, StorageError> {
    let last_failed = |because| because == RunReason::LastFailed;
    let Some((item, key, _)) = to_run(task).into_iter().find(|(_, _, because)| last_failed(*because)) else {
        return Ok(None);
    };
    let result = executions::results(storage, &[key]).await?.pop().flatten();
    Ok(match result {
        Some(executions::ResultRecord { execution, outcome: Err(failure), .. }) => Some(TaskStatus::Failed {
            item,
            execution: Some(execution),
            failure: Failure::to_string(&failure),
        }),
        _ => None,
    })
}
