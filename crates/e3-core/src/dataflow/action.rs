//! The vocabulary between a `Dataflow` and whoever drives it: what is executed, what to do next, how things stand.

use e3_types::{DatasetPath, ObjectRef, RunReason, RunState, SkipReason};

use super::graph::TaskIndex;

/// Something that is executed: a task, or one entry of a task that runs once per entry. Entries are numbered behind the
/// tasks, as they become known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(pub(super) u32);

impl Unit {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

impl From<TaskIndex> for Unit {
    fn from(task: TaskIndex) -> Self {
        Self(task.0)
    }
}

/// What to do next. Each is handed out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say that what is known of a task came from an input that has changed.
    Invalidate {
        /// The task.
        task: TaskIndex,
        /// The input.
        because: DatasetPath,
    },
    /// Say that a task waits because its inputs come from two versions of a root input.
    Defer {
        /// The task.
        task: TaskIndex,
        /// The root input.
        because: DatasetPath,
    },
    /// Say that a task is skipped.
    Skip {
        /// The task.
        task: TaskIndex,
        /// What stands in its way.
        because: SkipReason,
    },
    /// Find out which entries the folder has that a task runs for: report `TaskExpanded`, then call `expand`.
    Expand {
        /// The task.
        task: TaskIndex,
    },
    /// Make the folder of the outputs of all entries and report `TaskCompleted`.
    Assemble {
        /// The task.
        task: TaskIndex,
        /// Whether all of them came from the cache.
        cached: bool,
    },
    /// Ask the cache about these: report `TaskCompleted` for each hit, `missed` for each miss.
    Look {
        /// All their inputs are known.
        units: Vec<Unit>,
    },
    /// Have the runner get ready for one that will be started soon. To leave this undone costs time, and nothing else.
    Prepare {
        /// Which.
        unit: Unit,
    },
    /// Start one.
    Start {
        /// Which.
        unit: Unit,
        /// Which attempt, from 1.
        attempt: u32,
        /// Why the cache could not answer.
        because: RunReason,
    },
    /// Cancel what runs.
    CancelRunning,
    /// Say that the run has ended.
    End {
        /// How.
        state: RunState,
    },
}

/// How a unit stands, as far as its events tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitState {
    /// It waits: for inputs, for room, for a next attempt, or for its entries.
    Pending,
    /// It runs.
    Running,
    /// It runs on inputs that have changed meanwhile.
    Superseded,
    /// It has its output.
    Done(ObjectRef),
    /// It has failed.
    Failed,
    /// It cannot run.
    Skipped(SkipReason),
    /// It was cancelled while it ran.
    Cancelled,
    /// An entry of a folder that has changed: nobody needs it any more.
    Gone,
}
