//! How the tasks of a workspace stand, as far as what is recorded tells: nothing is executed to find out.

use std::collections::BTreeMap;

use e3_types::{DatasetPath, ExecutionId, Failure, Hash, Name, Package};

use super::{datasets::DatasetRef, executions};
use crate::{ExecutionKey, Graph, Holder, PackageError, StorageBackend, StorageError};

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
        /// The execution.
        execution: ExecutionId,
        /// What went wrong.
        failure: Failure,
    },
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
) -> Result<BTreeMap<Name, TaskStatus>, PackageError> {
    let graph =
        Graph::new(package).map_err(|source| PackageError::Graph { name: package.name.clone(), source })?;
    // The datasets that are what they would be if everything were made now, with their objects.
    let mut current: BTreeMap<&DatasetPath, Hash> = values
        .iter()
        .filter(|(path, _)| graph.producer(path).is_none())
        .map(|(path, value)| (path, value.object.hash))
        .collect();
    let mut statuses: BTreeMap<Name, TaskStatus> = BTreeMap::new();
    let mut blocked: BTreeMap<&DatasetPath, DatasetPath> = BTreeMap::new();
    for index in graph.in_order() {
        let name = graph.name(index);
        let task = &package.tasks[name];
        let obstacle = task.inputs.iter().find_map(|input| {
            let is_root = graph.producer(input).is_none();
            blocked
                .get(input)
                .cloned()
                .or_else(|| (is_root && !values.contains_key(input)).then(|| input.clone()))
        });
        let status = if let Some(dataset) = obstacle {
            blocked.insert(&task.output, dataset.clone());
            TaskStatus::Blocked { dataset }
        } else if let Some(inputs) =
            task.inputs.iter().map(|input| current.get(input).copied()).collect::<Option<Vec<_>>>()
        {
            let key = ExecutionKey::new(task.task, &inputs);
            match values.get(&task.output) {
                Some(value)
                    if value.made.is_some_and(|made| (made.task, made.inputs) == (key.task, key.inputs)) =>
                {
                    current.insert(&task.output, value.object.hash);
                    TaskStatus::UpToDate
                }
                _ => with_inputs(storage, key).await?,
            }
        } else {
            TaskStatus::Pending
        };
        statuses.insert(name.clone(), status);
    }
    Ok(statuses)
}

/// The status of a task whose inputs are known.
async fn with_inputs(storage: &dyn StorageBackend, key: ExecutionKey) -> Result<TaskStatus, StorageError> {
    let holders = storage.leases().inspect(&key.lease()).await?;
    if !holders.is_empty() {
        return Ok(TaskStatus::Running { holders });
    }
    let result = executions::results(storage, &[key]).await?.pop().flatten();
    Ok(match result {
        Some(executions::ResultRecord { execution, outcome: Err(failure), .. }) => {
            TaskStatus::Failed { execution, failure }
        }
        _ => TaskStatus::Pending,
    })
}
