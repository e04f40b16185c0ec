//! What a run writes into its workspace: the outputs, each with the key that says what it was made of.

use e3_types::{ExecutionId, ObjectRef, Timestamp, WorkspaceName};

use super::graph::{Graph, TaskIndex};
use crate::{DatasetRef, Derivation, ExecutionKey, Origin, RefChange, RefError, StorageBackend, datasets};

/// The outputs that the workspace has.
pub(super) struct Publisher {
    workspace: WorkspaceName,
    /// By task.
    published: Vec<Option<Box<(ObjectRef, Derivation)>>>,
}

impl Publisher {
    pub(super) async fn new(
        storage: &dyn StorageBackend,
        graph: &Graph,
        workspace: &WorkspaceName,
    ) -> Result<Self, RefError> {
        let mut published = vec![None; graph.len()];
        for (path, value) in datasets::read_outputs(storage.refs(), workspace).await? {
            if let (Some(task), Some(made)) = (graph.producer(&path), value.made) {
                published[task.at()] = Some(Box::new((value.object, made)));
            }
        }
        Ok(Self { workspace: workspace.clone(), published })
    }

    /// The change that publishes an output, if the workspace does not say the same already.
    pub(super) fn completed(
        &mut self,
        graph: &Graph,
        task: TaskIndex,
        key: ExecutionKey,
        execution: Option<ExecutionId>,
        output: ObjectRef,
        at: Timestamp,
    ) -> Option<RefChange> {
        let made = Derivation { task: key.task, inputs: key.inputs, execution };
        let published = &mut self.published[task.at()];
        if published.as_deref() == Some(&(output, made)) {
            return None;
        }
        *published = Some(Box::new((output, made)));
        let value = DatasetRef { object: output, origin: Origin::Task, at, made: Some(made) };
        Some(datasets::publish(&self.workspace, graph.output(task), &value))
    }
}
