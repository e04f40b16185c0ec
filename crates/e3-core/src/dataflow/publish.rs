//! What a run writes into its workspace: the outputs, each with the version vector that says what it came from.

use std::{collections::BTreeMap, sync::Arc};

use e3_types::{DatasetPath, ObjectRef, Timestamp, VectorConflict, VersionVector, WorkspaceName};

use super::graph::{Graph, Input, TaskIndex};
use crate::{DatasetRef, Origin, RefChange, datasets};

/// The version vectors of a run, and what its workspace held before.
pub(super) struct Publisher {
    graph: Arc<Graph>,
    workspace: WorkspaceName,
    before: BTreeMap<DatasetPath, DatasetRef>,
    roots: Vec<Option<Arc<VersionVector>>>,
    /// Shared wherever a task adds nothing to what one of its inputs says.
    outputs: Vec<Option<Arc<VersionVector>>>,
}

impl Publisher {
    pub(super) fn new(
        graph: Arc<Graph>,
        workspace: WorkspaceName,
        before: BTreeMap<DatasetPath, DatasetRef>,
    ) -> Self {
        let root = |path: &DatasetPath| {
            let value = before.get(path)?;
            Some(Arc::new(VersionVector::root(path.clone(), value.object.hash)))
        };
        let roots = graph.roots().iter().map(root).collect();
        Self { outputs: vec![None; graph.len()], graph, workspace, before, roots }
    }

    /// The change that publishes an output, if the workspace does not say the same already.
    pub(super) fn completed(
        &mut self,
        task: TaskIndex,
        output: ObjectRef,
        at: Timestamp,
    ) -> Result<Option<RefChange>, VectorConflict> {
        let vector = self.union(task)?;
        self.outputs[task.at()] = Some(Arc::clone(&vector));
        let path = &self.graph.node(task).output;
        let same =
            self.before.get(path).is_some_and(|value| value.object == output && value.vector == *vector);
        if same {
            return Ok(None);
        }
        let value = DatasetRef { object: output, origin: Origin::Task, at, vector: (*vector).clone() };
        Ok(Some(datasets::assign(&self.workspace, path, &value)))
    }

    fn union(&self, task: TaskIndex) -> Result<Arc<VersionVector>, VectorConflict> {
        let mut union = Arc::new(VersionVector::default());
        for input in &self.graph.node(task).inputs {
            let vector = match input {
                Input::Root(root) => &self.roots[*root],
                Input::Task(producer) => &self.outputs[producer.at()],
            };
            let Some(vector) = vector else { continue };
            if *union == VersionVector::default() {
                union = Arc::clone(vector);
            } else if !Arc::ptr_eq(&union, vector) && !union.includes(vector) {
                Arc::make_mut(&mut union).merge(vector)?;
            }
        }
        Ok(union)
    }
}
