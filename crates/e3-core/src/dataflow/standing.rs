//! What stands: the results of the last complete run that nothing has happened to since. A run takes them over as they are, and
//! looks only at the rest, so that it costs what it has to do.
//!
//! `standing/WORKSPACE/graph/NUMBER` is the graph of that run, in pieces, `tasks/NUMBER` beside it the outputs of its tasks, `roots/NUMBER` the
//! values of its inputs, as pieces of cells. They belong to `settled/WORKSPACE`, and are written and forgotten with it.
//!
//! Three things can have happened to a result. An operation has changed an input that it was made of, directly or not: it is
//! reached, and does not stand. Or the package is another one, or an object has gone: then nothing stands. Or a task was
//! executed again elsewhere and made something else of the same: as long as nothing is done to this workspace, it keeps what
//! it has.

use std::sync::Arc;

use e3_types::{Hash, ObjectRef, WorkspaceName};

use super::{
    graph::{self, Graph, GraphReader, TaskIndex},
    settled::{self, Settled},
};
use crate::{
    ObjectStamp, Operation, RefChange, RefError, RefName, StorageBackend, StorageError, operations,
    views::pieces::{self, Fixed, Pieces},
};

/// An object, and how long it took to make it, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) object: ObjectRef,
    pub(super) took_ms: u64,
}

/// What each task has made, or each input holds.
pub(super) type Cells = Pieces<Option<Cell>>;

/// The size of what is not there.
const NOTHING: u64 = u64::MAX;

impl Fixed for Option<Cell> {
    /// Hash, size, and how long it took; numbers with the least significant byte first.
    const WIDTH: usize = 32 + 8 + 8;

    fn write(&self, to: &mut Vec<u8>) {
        let (hash, size, took_ms) = self.map_or(([0; 32], NOTHING, 0), |Cell { object, took_ms }| {
            (*object.hash.as_bytes(), object.size, took_ms)
        });
        to.extend_from_slice(&hash);
        to.extend_from_slice(&size.to_le_bytes());
        to.extend_from_slice(&took_ms.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        let (hash, size) = bytes.split_first_chunk().expect("so many bytes are given");
        let (size, took_ms) = size.split_first_chunk().expect("so many bytes are given");
        let size = u64::from_le_bytes(*size);
        let took_ms = u64::from_le_bytes(took_ms.try_into().expect("so many bytes are given"));
        let object = ObjectRef { hash: Hash::from_bytes(*hash), size };
        (size != NOTHING).then_some(Cell { object, took_ms })
    }
}

/// How many objects are looked for in one request.
const LOOK_AT_ONCE: usize = 8192;

/// What a run can stand on.
#[derive(Debug, Clone)]
pub struct Standing {
    pub(super) graph: Arc<Graph>,
    /// What the complete run saw.
    settled: Settled,
    tasks: Cells,
    roots: Cells,
    /// The inputs as they are now.
    now: Vec<Option<ObjectRef>>,
    /// By task: whether its result does not stand.
    reached: Vec<bool>,
}

impl Standing {
    /// What a run of a workspace in which this package is deployed can stand on, if there is anything. All its objects are there.
    pub async fn find(
        storage: &dyn StorageBackend,
        workspace: &WorkspaceName,
        package: Hash,
    ) -> Result<Option<Self>, StorageError> {
        let Some(settled) = settled::find(storage, workspace).await? else { return Ok(None) };
        if settled.package != package {
            return Ok(None);
        }
        let standing = match Self::read(storage, workspace, settled).await {
            Err(RefError::Corrupt { name, message }) => {
                // All of it can be found out again.
                tracing::warn!(%name, message, "what stands cannot be read: every task is asked about");
                return Ok(None);
            }
            other => other?,
        };
        let lacks_any = standing.lacks_any(storage, &storage.object_stamp().await?, [].into_iter()).await?;
        Ok((!lacks_any).then_some(standing))
    }

    /// Whether the run that it comes from is still the last complete one.
    pub(super) fn is_of(&self, settled: &Settled) -> bool {
        self.settled == *settled
    }

    /// Takes in what was done to the workspace since; false if nothing stands after that. An object that has gone since this was
    /// found is missed at the end of the run.
    pub(super) async fn bring_up_to_date(
        &mut self,
        storage: &dyn StorageBackend,
        workspace: &WorkspaceName,
    ) -> Result<bool, StorageError> {
        let operations = operations::since(storage, workspace, self.settled.operation).await?;
        if operations.iter().any(|operation| operation.package.is_some()) {
            return Ok(false);
        }
        self.take_in(&operations);
        Ok(true)
    }

    fn take_in(&mut self, operations: &[Operation]) {
        let graph = Arc::clone(&self.graph);
        for change in operations.iter().flat_map(|operation| &operation.changes) {
            if let Some(root) = graph.find_root(&change.path) {
                self.now[root.at()] = change.after.as_ref().map(|value| value.object);
                self.reach(graph.readers(root));
            }
        }
        // What runs once per entry has as many results as there are entries: each is asked about.
        let is_unknown = |task: &TaskIndex| self.tasks.0[task.at()].is_none();
        let unknown: Vec<_> = graph.indices().filter(is_unknown).collect();
        self.reach(&unknown);
    }

    /// As it was when the complete run had ended.
    async fn read(
        storage: &dyn StorageBackend,
        workspace: &WorkspaceName,
        settled: Settled,
    ) -> Result<Self, RefError> {
        let mut reader = GraphReader::default();
        for name in graph_names(workspace, settled.tasks, settled.roots) {
            let piece = storage.refs().read(std::slice::from_ref(&name)).await?.pop().flatten();
            let read = piece.map(|piece| reader.add(&piece));
            let corrupt = |message: String| RefError::Corrupt { name: name.clone(), message };
            read.ok_or_else(|| corrupt("it is not there".to_owned()))?
                .map_err(|error| corrupt(error.to_string()))?;
        }
        let graph = reader.finish().map_err(|error| RefError::Corrupt {
            name: piece_name(workspace, GRAPH)(0),
            message: error.to_string(),
        })?;
        let (count, inputs) = (graph.len(), graph.roots().len());
        let tasks = Cells::read(storage.refs(), count, piece_name(workspace, TASKS)).await?;
        let roots = Cells::read(storage.refs(), inputs, piece_name(workspace, ROOTS)).await?;
        let now = roots.0.iter().map(|cell| cell.map(|cell| cell.object)).collect();
        let reached = vec![false; graph.len()];
        Ok(Self { graph: Arc::new(graph), settled, tasks, roots, now, reached })
    }

    /// These tasks do not stand, nor does what depends on them.
    fn reach(&mut self, tasks: &[TaskIndex]) {
        let mut open = tasks.to_vec();
        while let Some(task) = open.pop() {
            if !std::mem::replace(&mut self.reached[task.at()], true) {
                open.extend(self.graph.dependents(task));
            }
        }
    }

    /// Whether an object is gone that was there when the complete run had ended, or one of these others, by the stamp of now.
    pub(super) async fn lacks_any(
        &self,
        storage: &dyn StorageBackend,
        stamp: &ObjectStamp,
        others: impl Iterator<Item = Hash>,
    ) -> Result<bool, StorageError> {
        let task_objects = self.graph.indices().map(|task| self.graph.object(task));
        let values = self.tasks.0.iter().chain(&self.roots.0).flatten().map(|cell| cell.object.hash);
        let all = task_objects.chain(values).chain(others);
        let doubtful: Vec<Hash> = all.filter(|hash| stamp.may_lack(&self.settled.objects, hash)).collect();
        for some in doubtful.chunks(LOOK_AT_ONCE) {
            if storage.objects().stat_many(some).await?.contains(&None) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The result of a task, if it stands.
    pub(super) fn result(&self, task: TaskIndex) -> Option<Cell> {
        if self.reached[task.at()] { None } else { self.tasks.0[task.at()] }
    }

    /// The tasks whose results do not stand.
    pub(super) fn reached(&self) -> impl Iterator<Item = TaskIndex> {
        self.graph.indices().filter(|task| self.reached[task.at()])
    }

    /// How long a task took when it was last executed, in milliseconds.
    pub(super) fn took_ms(&self, task: TaskIndex) -> Option<u64> {
        Some(self.tasks.0[task.at()]?.took_ms)
    }

    /// What the inputs hold now, to be taken once.
    pub(super) fn take_roots(&mut self) -> Vec<Option<ObjectRef>> {
        std::mem::take(&mut self.now)
    }
}

/// The changes that remember a complete run with these results and inputs, by their numbers; `before` is what it stood on.
pub(super) fn remember(
    workspace: &WorkspaceName,
    before: Option<&Standing>,
    task: impl Fn(usize) -> Option<Cell>,
    root: impl Fn(usize) -> Option<Cell>,
    settled: &Settled,
) -> Vec<RefChange> {
    let mut changes = vec![settled::remember(workspace, settled)];
    let (tasks, roots) = (before.map(|before| &before.tasks), before.map(|before| &before.roots));
    changes.extend(pieces::changes(settled.tasks, task, tasks, piece_name(workspace, TASKS)));
    changes.extend(pieces::changes(settled.roots, root, roots, piece_name(workspace, ROOTS)));
    changes
}

/// The changes that forget what stands, of so many tasks and inputs.
pub(super) fn forget(workspace: &WorkspaceName, tasks: usize, roots: usize) -> Vec<RefChange> {
    let mut names = graph_names(workspace, tasks, roots);
    names.extend(pieces::names(tasks, piece_name(workspace, TASKS)));
    names.extend(pieces::names(roots, piece_name(workspace, ROOTS)));
    names.into_iter().map(RefChange::remove).collect()
}

/// Writes the graph of a run that stands on nothing: piece by piece, since all of it together may be large. It is worth
/// nothing until the run is remembered.
pub(super) async fn write_graph(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    graph: &Graph,
) -> Result<(), RefError> {
    for (number, name) in graph_names(workspace, graph.len(), graph.roots().len()).into_iter().enumerate() {
        storage.refs().write(vec![RefChange::set(name, graph.piece(number))]).await?;
    }
    Ok(())
}

const GRAPH: &str = "graph";
const TASKS: &str = "tasks";
const ROOTS: &str = "roots";

fn graph_names(workspace: &WorkspaceName, tasks: usize, roots: usize) -> Vec<RefName> {
    (0..graph::pieces(tasks, roots)).map(piece_name(workspace, GRAPH)).collect()
}

fn piece_name(workspace: &WorkspaceName, what: &'static str) -> impl Fn(usize) -> RefName {
    move |number| RefName::new(&[&"standing", workspace, &what, &format!("{number:06}")])
}
