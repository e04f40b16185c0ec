//! What a run writes into its workspace: the outputs, each with the key that says what it was made of.

use e3_types::{ExecutionId, ObjectRef, Timestamp, WorkspaceName};

use super::graph::{Graph, TaskIndex};
use crate::{DatasetRef, Derivation, ExecutionKey, Origin, RefChange, RefError, StorageBackend, datasets};

/// How many outputs are read in one request.
const READ_AT_ONCE: usize = 4096;

/// The outputs that the workspace has.
pub(super) struct Publisher {
    workspace: WorkspaceName,
    /// By task.
    outputs: Vec<Known>,
}

/// What is known of an output.
#[derive(Clone)]
enum Known {
    /// Nothing yet.
    Unread,
    /// There is none.
    Nothing,
    Holds(Box<Published>),
}

/// An output as it is published.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Of the execution that made it.
    pub(super) key: ExecutionKey,
    pub(super) execution: Option<ExecutionId>,
    pub(super) output: ObjectRef,
}

impl Known {
    fn of(value: Option<DatasetRef>) -> Self {
        let of = |value: DatasetRef| {
            let Derivation { task, inputs, execution } = *value.made?;
            Some(Published { key: ExecutionKey { task, inputs }, execution, output: value.object })
        };
        value.and_then(of).map_or(Self::Nothing, |published| Self::Holds(Box::new(published)))
    }
}

impl Publisher {
    /// For a run that looks at every task.
    pub(super) async fn new(
        storage: &dyn StorageBackend,
        graph: &Graph,
        workspace: &WorkspaceName,
    ) -> Result<Self, RefError> {
        let mut outputs = vec![Known::Nothing; graph.len()];
        for (path, value) in datasets::read_outputs(storage.refs(), workspace).await? {
            if let Some(task) = graph.producer(&path) {
                outputs[task.at()] = Known::of(Some(value));
            }
        }
        Ok(Self { workspace: workspace.clone(), outputs })
    }

    /// For a run that looks at these tasks. Another one is read when it completes all the same. If these are most, all are read:
    /// one after the other they cost less than by name.
    pub(super) async fn of(
        storage: &dyn StorageBackend,
        graph: &Graph,
        workspace: &WorkspaceName,
        tasks: impl Iterator<Item = TaskIndex>,
    ) -> Result<Self, RefError> {
        let tasks: Vec<TaskIndex> = tasks.collect();
        if tasks.len() > graph.len() / 2 {
            return Self::new(storage, graph, workspace).await;
        }
        let mut publisher = Self { workspace: workspace.clone(), outputs: vec![Known::Unread; graph.len()] };
        for some in tasks.chunks(READ_AT_ONCE) {
            publisher.read(storage, graph, some).await?;
        }
        Ok(publisher)
    }

    async fn read(
        &mut self,
        storage: &dyn StorageBackend,
        graph: &Graph,
        tasks: &[TaskIndex],
    ) -> Result<(), RefError> {
        let paths: Vec<_> = tasks.iter().map(|task| graph.output(*task)).collect();
        let values = datasets::read_some_outputs(storage.refs(), &self.workspace, &paths).await?;
        for (task, value) in tasks.iter().zip(values) {
            self.outputs[task.at()] = Known::of(value);
        }
        Ok(())
    }

    /// The change that publishes an output, if the workspace does not say the same already.
    pub(super) async fn completed(
        &mut self,
        storage: &dyn StorageBackend,
        graph: &Graph,
        task: TaskIndex,
        published: Published,
        at: Timestamp,
    ) -> Result<Option<RefChange>, RefError> {
        if matches!(self.outputs[task.at()], Known::Unread) {
            self.read(storage, graph, &[task]).await?;
        }
        if matches!(&self.outputs[task.at()], Known::Holds(before) if **before == published) {
            return Ok(None);
        }
        let Published { key, execution, output } = published.clone();
        self.outputs[task.at()] = Known::Holds(Box::new(published));
        let made = Derivation { task: key.task, inputs: key.inputs, execution };
        let value = DatasetRef { object: output, origin: Origin::Task, at, made: Some(Box::new(made)) };
        Ok(Some(datasets::publish(&self.workspace, graph.output(task), &value)))
    }
}
