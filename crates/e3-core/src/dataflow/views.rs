//! What a `Dataflow` says about itself: what a unit is, how it stands, what it all comes to.

use e3_types::{DatasetPath, Hash, ObjectRef, RunReason, RunSummary, SkipReason, Timestamp};

use super::{
    action::{Unit, UnitState},
    graph::{Input, TaskIndex},
    state::{Dataflow, Obstacle, Phase},
};

impl Dataflow {
    /// The task that a unit belongs to.
    pub fn task_of(&self, unit: Unit) -> TaskIndex {
        match unit.at().checked_sub(self.graph.len()) {
            None => TaskIndex(unit.0),
            Some(item) => self.items[item].task,
        }
    }

    /// The task object that is executed for a unit, and the objects that it reads, in its order. Known for every unit that
    /// an action names.
    pub fn key(&self, unit: Unit) -> (Hash, Vec<Hash>) {
        let task = self.task_of(unit);
        let value = |input: &Input| match input {
            Input::Root(root) => self.roots[root.at()],
            Input::Task(producer) => self.outputs[producer.at()],
        };
        let inputs = self.graph.inputs(task).iter();
        let mut inputs: Vec<Hash> =
            inputs.map(|input| value(input).expect("what is ready has all its inputs").hash).collect();
        match (self.item(unit), self.graph.each(task)) {
            (Some(item), Some(each)) => {
                inputs[each] = item.input;
                (item.object, inputs)
            }
            _ => (self.graph.object(task), inputs),
        }
    }

    /// The task object of a task that runs once per entry, and the folder of the entries.
    pub(crate) fn folder_of(&self, task: TaskIndex) -> Option<(Hash, ObjectRef)> {
        let folder = match self.graph.inputs(task)[self.graph.each(task)?] {
            Input::Root(root) => self.roots[root.at()]?,
            Input::Task(producer) => self.outputs[producer.at()]?,
        };
        Some((self.graph.object(task), folder))
    }

    /// Why the cache could not answer about a unit that runs.
    pub(super) fn run_reason(&self, unit: Unit) -> Option<RunReason> {
        if let Phase::Running(because) = self.phases[unit.at()] { Some(because) } else { None }
    }

    /// Whether the cache is to be asked about a unit, which it has not been yet.
    pub fn is_unchecked(&self, unit: Unit) -> bool {
        self.phases[unit.at()] == Phase::Unchecked
    }

    /// Why the cache is not to be asked about a unit, if it is not.
    pub fn uncached(&self, unit: Unit) -> Option<RunReason> {
        self.uncached[self.task_of(unit).at()]
    }

    /// Whether a unit is to be executed as soon as there is room for it.
    pub(super) fn is_runnable(&self, unit: Unit) -> bool {
        matches!(self.phases[unit.at()], Phase::Runnable(_))
    }

    /// Whether a unit runs on inputs that have changed meanwhile.
    pub fn is_superseded(&self, unit: Unit) -> bool {
        matches!(self.phases[unit.at()], Phase::Superseded(_))
    }

    /// All units that there are so far: the tasks, then the entries.
    pub fn units(&self) -> impl Iterator<Item = Unit> + use<> {
        (0_u32..).map(Unit).take(self.phases.len())
    }

    /// How a unit stands.
    pub fn state(&self, unit: Unit) -> UnitState {
        match self.phases[unit.at()] {
            Phase::Waiting
            | Phase::Unexpanded
            | Phase::Expanded
            | Phase::Unassembled
            | Phase::Unchecked
            | Phase::Runnable(_)
            | Phase::Backoff(_)
            | Phase::Doomed(_) => UnitState::Pending,
            Phase::Running(_) => UnitState::Running,
            Phase::Superseded(_) => UnitState::Superseded,
            Phase::Done { .. } => self.outputs[unit.at()].map_or(UnitState::Pending, UnitState::Done),
            Phase::Failed => UnitState::Failed,
            Phase::Skipped(obstacle) => UnitState::Skipped(self.reason(obstacle)),
            Phase::Cancelled => UnitState::Cancelled,
            Phase::Gone => UnitState::Gone,
        }
    }

    /// Whether a unit has failed.
    pub fn has_failed(&self, unit: Unit) -> bool {
        self.phases[unit.at()] == Phase::Failed
    }

    /// The inputs without a value that tasks were skipped for.
    pub fn unassigned(&self) -> impl Iterator<Item = &DatasetPath> {
        self.phases.iter().filter_map(|phase| match phase {
            Phase::Skipped(Obstacle::Root(root)) => Some(&self.graph.roots()[root.at()]),
            _ => None,
        })
    }

    /// The totals at `now`.
    pub fn summary(&self, now: Timestamp) -> RunSummary {
        RunSummary { wall_ms: now.ms_since(self.started), ..self.summary }
    }

    pub(super) fn reason(&self, obstacle: Obstacle) -> SkipReason {
        match obstacle {
            Obstacle::Task(task) => SkipReason::Failed { task: self.graph.name(task).clone() },
            Obstacle::Root(root) => SkipReason::Unassigned { dataset: self.graph.roots()[root.at()].clone() },
        }
    }
}
