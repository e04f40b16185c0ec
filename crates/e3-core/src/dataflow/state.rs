//! `Dataflow`: the state of a run as the fold of its events, and what is to be done next.
//!
//! No async, no clock, no I/O. `apply` takes what happened, `next` says what should happen; the loop in `execute`
//! only does the one and reports the other. Everything is an array indexed by task number or derived from one.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
};

use e3_types::{
    Event, EventKind, Failure, Hash, ObjectRef, RunReason, RunState, RunSummary, SkipReason, Timestamp,
};

use super::graph::{Graph, Input, TaskIndex};

/// What decides the course of a run beside the graph.
#[derive(Debug, Clone, Copy)]
pub struct DataflowPolicy {
    /// How many tasks may run at once.
    pub slots: NonZeroUsize,
    /// What a failure means for the others.
    pub on_failure: OnFailure,
}

/// What happens to the other tasks when one has failed. Its dependents are skipped in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// What runs is finished, nothing new is started.
    #[default]
    Finish,
    /// Everything that can be run is run.
    KeepGoing,
    /// What runs is cancelled.
    Cancel,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say that a task is skipped.
    Skip {
        /// The task.
        task: TaskIndex,
        /// What stands in its way.
        because: SkipReason,
    },
    /// Ask the cache about these tasks: report `TaskCompleted` for each hit, `missed` for each miss.
    Look {
        /// The tasks; all their inputs are known.
        tasks: Vec<TaskIndex>,
    },
    /// Start a task.
    Start {
        /// The task.
        task: TaskIndex,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Some of its inputs are not there yet.
    Waiting,
    /// All inputs are there; the cache has not been asked.
    Unchecked,
    /// To be executed as soon as there is room.
    Runnable(RunReason),
    Running(RunReason),
    /// An attempt failed, the next one is not due yet.
    Backoff(RunReason),
    Done,
    Failed,
    /// To be reported as skipped.
    Doomed,
    Skipped,
    /// It was cancelled while it ran.
    Cancelled,
}

/// The longest remaining path first, ties by name.
type Rank = (Reverse<u32>, TaskIndex);

/// How many keys are looked up at once.
const LOOK_AT_ONCE: usize = 1024;

/// The state of a run.
#[derive(Debug)]
pub struct Dataflow {
    graph: Arc<Graph>,
    policy: DataflowPolicy,
    phases: Vec<Phase>,
    /// How many dependencies are not done.
    missing: Vec<u32>,
    attempts: Vec<u32>,
    /// Why the cache is not asked about a task, where it is not.
    uncached: Vec<Option<RunReason>>,
    roots: Vec<Option<ObjectRef>>,
    outputs: Vec<Option<ObjectRef>>,
    unchecked: BTreeSet<Rank>,
    runnable: BTreeSet<Rank>,
    doomed: VecDeque<(TaskIndex, SkipReason)>,
    running: usize,
    backing_off: usize,
    cancelled: bool,
    cancel_sent: bool,
    ended: bool,
    started: Timestamp,
    summary: RunSummary,
}

impl Dataflow {
    /// The state before the first event.
    ///
    /// `roots` gives the value of each root input; `uncached` says for which tasks the cache is not to be asked.
    pub fn new(
        graph: &Arc<Graph>,
        policy: DataflowPolicy,
        mut root: impl FnMut(&e3_types::DatasetPath) -> Option<ObjectRef>,
        mut uncached: impl FnMut(&e3_types::Name) -> Option<RunReason>,
    ) -> Self {
        let tasks = graph.len();
        let missing = |index| u32::try_from(graph.node(index).dependencies.len()).unwrap_or(u32::MAX);
        let mut flow = Self {
            policy,
            phases: vec![Phase::Waiting; tasks],
            missing: Vec::with_capacity(tasks),
            attempts: vec![0; tasks],
            uncached: Vec::with_capacity(tasks),
            roots: graph.roots().iter().map(&mut root).collect(),
            outputs: vec![None; tasks],
            unchecked: BTreeSet::new(),
            runnable: BTreeSet::new(),
            doomed: VecDeque::new(),
            running: 0,
            backing_off: 0,
            cancelled: false,
            cancel_sent: false,
            ended: false,
            started: Timestamp::default(),
            summary: RunSummary { total: tasks as u64, ..RunSummary::default() },
            graph: Arc::clone(graph),
        };
        let mut by_number: Vec<TaskIndex> = graph.in_order().collect();
        by_number.sort_unstable();
        for &index in &by_number {
            flow.missing.push(missing(index));
            let never = (!graph.node(index).policy.cache).then_some(RunReason::NeverCached);
            flow.uncached.push(uncached(graph.name(index)).or(never));
        }
        for index in graph.in_order() {
            let unassigned = graph.node(index).inputs.iter().find_map(|input| match input {
                Input::Root(root) if flow.roots[*root].is_none() => Some(graph.roots()[*root].clone()),
                _ => None,
            });
            if let Some(dataset) = unassigned {
                flow.doom(index, &SkipReason::Unassigned { dataset });
            } else if flow.missing[index.at()] == 0 {
                flow.make_ready(index);
            }
        }
        flow
    }

    /// Takes in what happened. An event about a task that the graph does not have is ignored.
    pub fn apply(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { .. } => self.started = event.at,
            EventKind::TaskStarted { task, attempt, because } => {
                let Some(index) = self.graph.find(task) else { return };
                self.leave(index);
                self.attempts[index.at()] = *attempt;
                self.phases[index.at()] = Phase::Running(*because);
                self.running += 1;
            }
            EventKind::AttemptFailed { task, .. } => {
                let Some(index) = self.graph.find(task) else { return };
                if let Phase::Running(because) = self.phases[index.at()] {
                    self.leave(index);
                    self.phases[index.at()] = Phase::Backoff(because);
                    self.backing_off += 1;
                }
            }
            EventKind::TaskCompleted { task, output, cached, took_ms, .. } => {
                let Some(index) = self.graph.find(task) else { return };
                self.leave(index);
                self.phases[index.at()] = Phase::Done;
                self.outputs[index.at()] = Some(*output);
                if *cached {
                    self.summary.cached += 1;
                    self.summary.saved_ms += took_ms;
                } else {
                    self.summary.executed += 1;
                }
                self.release_dependents(index);
            }
            EventKind::TaskFailed { task, failure, .. } => {
                let Some(index) = self.graph.find(task) else { return };
                self.leave(index);
                if *failure == Failure::Cancelled {
                    self.phases[index.at()] = Phase::Cancelled;
                } else {
                    self.phases[index.at()] = Phase::Failed;
                    self.summary.failed += 1;
                    self.doom_dependents(index, &SkipReason::Failed { task: task.clone() });
                }
            }
            EventKind::TaskSkipped { task, because } => {
                let Some(index) = self.graph.find(task) else { return };
                self.leave(index);
                self.phases[index.at()] = Phase::Skipped;
                match because {
                    SkipReason::Failed { .. } => self.summary.skipped += 1,
                    SkipReason::Unassigned { .. } => self.summary.blocked += 1,
                }
                self.doom_dependents(index, because);
            }
            EventKind::RunEnded { .. } => self.ended = true,
        }
    }

    /// The cache has no result for a task. Not an event: a fact about the cache at this moment, which is worth
    /// nothing after a restart.
    pub fn missed(&mut self, task: TaskIndex, because: RunReason) {
        if self.phases[task.at()] == Phase::Unchecked {
            self.leave(task);
            self.enter_runnable(task, because);
        }
    }

    /// The wait before the next attempt is over.
    pub fn retry_is_due(&mut self, task: TaskIndex) {
        if let Phase::Backoff(because) = self.phases[task.at()] {
            self.leave(task);
            self.enter_runnable(task, because);
        }
    }

    /// Somebody asked for the run to stop.
    pub fn cancel(&mut self) {
        self.cancelled = true;
    }

    /// Whether somebody asked for the run to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// What runs has been told to stop.
    pub fn running_was_cancelled(&mut self) {
        self.cancel_sent = true;
    }

    /// What to do next; `None` means: wait until something happens.
    pub fn next(&self) -> Option<Action> {
        if self.ended {
            return None;
        }
        let idle = self.running == 0;
        if let Some((task, because)) = self.doomed.front() {
            return Some(Action::Skip { task: *task, because: because.clone() });
        }
        if self.is_stopping() {
            let cancels = self.cancelled || self.policy.on_failure == OnFailure::Cancel;
            if cancels && !idle && !self.cancel_sent {
                return Some(Action::CancelRunning);
            }
            let state = if self.cancelled { RunState::Cancelled } else { RunState::Failed };
            return idle.then_some(Action::End { state });
        }
        if !self.unchecked.is_empty() {
            let tasks = self.unchecked.iter().take(LOOK_AT_ONCE).map(|(_, task)| *task).collect();
            return Some(Action::Look { tasks });
        }
        if self.running < self.policy.slots.get()
            && let Some(&(_, task)) = self.runnable.first()
            && let Phase::Runnable(because) = self.phases[task.at()]
        {
            return Some(Action::Start { task, attempt: self.attempts[task.at()] + 1, because });
        }
        if idle && self.backing_off == 0 {
            let complete = self.summary.executed + self.summary.cached == self.summary.total;
            let state = if complete { RunState::Completed } else { RunState::Failed };
            return Some(Action::End { state });
        }
        None
    }

    /// Whether nothing new is started any more.
    pub fn is_stopping(&self) -> bool {
        self.cancelled || (self.summary.failed > 0 && self.policy.on_failure != OnFailure::KeepGoing)
    }

    /// The objects that a task reads, in its order. Known for every task that an action names, but skipped ones.
    pub fn inputs(&self, task: TaskIndex) -> Vec<Hash> {
        let value = |input: &Input| match input {
            Input::Root(root) => self.roots[*root],
            Input::Task(producer) => self.outputs[producer.at()],
        };
        let node = self.graph.node(task);
        node.inputs.iter().map(|input| value(input).expect("a ready task has all its inputs").hash).collect()
    }

    /// Whether the cache is not to be asked about a task.
    pub fn is_uncached(&self, task: TaskIndex) -> bool {
        self.uncached[task.at()].is_some()
    }

    /// The totals at `now`.
    pub fn summary(&self, now: Timestamp) -> RunSummary {
        RunSummary { wall_ms: now.ms_since(self.started), ..self.summary }
    }

    fn rank(&self, task: TaskIndex) -> Rank {
        (Reverse(self.graph.node(task).remaining), task)
    }

    /// Takes a task out of whatever queue or count its phase has put it into.
    fn leave(&mut self, task: TaskIndex) {
        match self.phases[task.at()] {
            Phase::Unchecked => {
                self.unchecked.remove(&self.rank(task));
            }
            Phase::Runnable(_) => {
                self.runnable.remove(&self.rank(task));
            }
            Phase::Running(_) => self.running -= 1,
            Phase::Backoff(_) => self.backing_off -= 1,
            Phase::Doomed => {
                // Reported in order, so this is the first one but for a history that somebody else has written.
                if let Some(at) = self.doomed.iter().position(|(other, _)| *other == task) {
                    self.doomed.remove(at);
                }
            }
            Phase::Waiting | Phase::Done | Phase::Failed | Phase::Skipped | Phase::Cancelled => {}
        }
    }

    fn make_ready(&mut self, task: TaskIndex) {
        if let Some(because) = self.uncached[task.at()] {
            self.enter_runnable(task, because);
        } else {
            self.phases[task.at()] = Phase::Unchecked;
            self.unchecked.insert(self.rank(task));
        }
    }

    fn enter_runnable(&mut self, task: TaskIndex, because: RunReason) {
        self.phases[task.at()] = Phase::Runnable(because);
        self.runnable.insert(self.rank(task));
    }

    fn release_dependents(&mut self, task: TaskIndex) {
        let graph = Arc::clone(&self.graph);
        for &dependent in &graph.node(task).dependents {
            self.missing[dependent.at()] -= 1;
            if self.missing[dependent.at()] == 0 && self.phases[dependent.at()] == Phase::Waiting {
                self.make_ready(dependent);
            }
        }
    }

    fn doom_dependents(&mut self, task: TaskIndex, because: &SkipReason) {
        let graph = Arc::clone(&self.graph);
        for &dependent in &graph.node(task).dependents {
            self.doom(dependent, because);
        }
    }

    fn doom(&mut self, task: TaskIndex, because: &SkipReason) {
        if self.phases[task.at()] == Phase::Waiting {
            self.phases[task.at()] = Phase::Doomed;
            self.doomed.push_back((task, because.clone()));
        }
    }
}
