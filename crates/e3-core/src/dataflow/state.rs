//! `Dataflow`: the state of a run as the fold of its events, and what is to be done next.
//!
//! No async, no clock, no I/O. `apply` takes what happened, `next_action` says what should happen; the loop in `execute`
//! only does the one and reports the other. Everything is an array indexed by number or derived from one. Queues may
//! hold what has left them for another phase: the phase is the truth, and whoever takes something out looks at it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use e3_types::{
    DatasetPath, Event, EventKind, Failure, Name, ObjectRef, RunReason, RunState, RunSummary, Timestamp,
};

use super::{
    action::{Action, Unit},
    graph::{Graph, Input, RootIndex, TaskIndex},
    items::{Expansion, Item},
    options::{DataflowPolicy, OnFailure},
    ready::{Ready, remaining},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Some of its inputs are not there yet.
    Waiting,
    /// All inputs are there; which entries it runs for has not been looked up.
    Unexpanded,
    /// Its entries are under way.
    Expanded,
    /// All its entries are done.
    Unassembled,
    /// All inputs are there; the cache has not been asked.
    Unchecked,
    /// To be executed as soon as there is room.
    Runnable(RunReason),
    Running(RunReason),
    /// It runs on inputs that have changed meanwhile.
    Superseded(RootIndex),
    /// An attempt failed, the next one is not due yet.
    Backoff(RunReason),
    Done {
        cached: bool,
    },
    Failed,
    /// To be reported as skipped.
    Doomed(Obstacle),
    Skipped(Obstacle),
    /// It was cancelled while it ran.
    Cancelled,
    /// An entry of a folder that has changed: nobody needs it any more.
    Gone,
}

/// What keeps a task from ever running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// A task that failed.
    Task(TaskIndex),
    /// An input without a value.
    Root(RootIndex),
}

/// How many keys are looked up at once.
const LOOK_AT_ONCE: usize = 1024;

/// The state of a run.
#[derive(Debug)]
pub struct Dataflow {
    pub(super) graph: Arc<Graph>,
    on_failure: OnFailure,
    /// By unit.
    pub(super) phases: Vec<Phase>,
    pub(super) attempts: Vec<u32>,
    pub(super) outputs: Vec<Option<ObjectRef>>,
    /// By task: how many dependencies are not done.
    pub(super) missing: Vec<u32>,
    /// By task: why the cache is not asked about it, if it is not.
    pub(super) uncached: Vec<Option<RunReason>>,
    /// By task: how long the longest path from here to the end takes, itself included.
    remaining: Vec<u64>,
    pub(super) roots: Vec<Option<ObjectRef>>,
    /// The entries, numbered behind the tasks.
    pub(super) items: Vec<Item>,
    pub(super) expansions: HashMap<TaskIndex, Expansion>,
    pub(super) notices: VecDeque<Action>,
    doomed: VecDeque<TaskIndex>,
    pub(super) unexpanded: VecDeque<TaskIndex>,
    pub(super) unassembled: VecDeque<TaskIndex>,
    unchecked: VecDeque<Unit>,
    ready: Ready,
    running: usize,
    /// What runs and has given back its room. At most as many as there are slots: what they store is work, too.
    released: HashSet<Unit>,
    slots: usize,
    pub(super) backing_off: usize,
    /// How many tasks are done.
    pub(super) done: usize,
    cancelled: bool,
    cancel_sent: bool,
    ended: bool,
    pub(super) started: Timestamp,
    pub(super) summary: RunSummary,
}

impl Dataflow {
    /// The state before the first event.
    ///
    /// `root` gives the value of each root input, `uncached` says for which tasks the cache is not to be asked, `took`
    /// how long a task is known to take, in milliseconds.
    pub fn new(
        graph: &Arc<Graph>,
        policy: &DataflowPolicy,
        mut root: impl FnMut(&DatasetPath) -> Option<ObjectRef>,
        uncached: impl FnMut(&Name) -> Option<RunReason>,
        took: impl FnMut(TaskIndex) -> Option<u64>,
    ) -> Self {
        let roots = graph.roots().iter().map(&mut root).collect();
        Self::standing(graph, policy, roots, uncached, took, |_| None)
    }

    /// The state before the first event of a run that takes over some results: `stands` says which, and how many milliseconds
    /// each took. What a task depends on that stands has to stand, too. The roots are given in their order.
    pub(super) fn standing(
        graph: &Arc<Graph>,
        policy: &DataflowPolicy,
        roots: Vec<Option<ObjectRef>>,
        mut uncached: impl FnMut(&Name) -> Option<RunReason>,
        took: impl FnMut(TaskIndex) -> Option<u64>,
        stands: impl Fn(TaskIndex) -> Option<(ObjectRef, u64)>,
    ) -> Self {
        let tasks = graph.len();
        let never = |task| (!graph.policy(task).cache).then_some(RunReason::NeverCached);
        let mut missing = vec![0; tasks];
        let (mut phases, mut outputs) = (vec![Phase::Waiting; tasks], vec![None; tasks]);
        let mut summary = RunSummary { total: tasks as u64, ..RunSummary::default() };
        let mut done = 0;
        for task in graph.indices() {
            if let Some((output, took_ms)) = stands(task) {
                (phases[task.at()], outputs[task.at()]) = (Phase::Done { cached: true }, Some(output));
                done += 1;
                summary.cached += 1;
                summary.saved_ms += took_ms;
                continue;
            }
            for dependent in graph.dependents(task) {
                missing[dependent.at()] += 1;
            }
        }
        let mut flow = Self {
            on_failure: policy.on_failure,
            phases,
            attempts: vec![0; tasks],
            outputs,
            missing,
            uncached: graph.indices().map(|task| uncached(graph.name(task)).or(never(task))).collect(),
            remaining: remaining(graph, took),
            roots,
            items: Vec::new(),
            expansions: HashMap::new(),
            notices: VecDeque::new(),
            doomed: VecDeque::new(),
            unexpanded: VecDeque::new(),
            unassembled: VecDeque::new(),
            unchecked: VecDeque::new(),
            ready: Ready::new(graph, policy.slots, &policy.limits),
            running: 0,
            released: HashSet::new(),
            slots: policy.slots.get(),
            backing_off: 0,
            done,
            cancelled: false,
            cancel_sent: false,
            ended: false,
            started: Timestamp::default(),
            summary,
            graph: Arc::clone(graph),
        };
        for task in graph.in_order().filter(|task| stands(*task).is_none()) {
            let unassigned = graph.inputs(task).iter().find_map(|input| match input {
                Input::Root(root) if flow.roots[root.at()].is_none() => Some(*root),
                _ => None,
            });
            if let Some(root) = unassigned {
                flow.doom(task, Obstacle::Root(root));
            } else if flow.missing[task.at()] == 0 {
                flow.make_ready(task);
            }
        }
        flow
    }

    /// Takes in what happened. An event about something that the graph does not have is ignored.
    pub fn apply(&mut self, event: &Event) {
        let unit = match &event.kind {
            EventKind::RunStarted { .. } | EventKind::RunEnded { .. } | EventKind::InputChanged { .. } => {
                None
            }
            EventKind::TaskInvalidated { task, .. }
            | EventKind::TaskNoted { task, .. }
            | EventKind::OutputRebuilt { task, .. }
            | EventKind::TaskDeferred { task, .. }
            | EventKind::TaskExpanded { task, .. }
            | EventKind::TaskSkipped { task, .. } => self.graph.find(task).map(Unit::from),
            EventKind::TaskCompleted { task, item: Some(item), superseded: true, .. }
            | EventKind::TaskFailed { task, item: Some(item), superseded: true, .. } => {
                self.find_superseded(task, item)
            }
            EventKind::TaskStarted { task, item, .. }
            | EventKind::AttemptFailed { task, item, .. }
            | EventKind::TaskCompleted { task, item, .. }
            | EventKind::TaskFailed { task, item, .. } => self.find(task, item.as_deref()),
        };
        self.apply_to(unit, event);
    }

    /// The same for a caller who knows which unit the event is about.
    pub fn apply_to(&mut self, unit: Option<Unit>, event: &Event) {
        match (&event.kind, unit) {
            (EventKind::RunStarted { .. }, _) => self.started = event.at,
            (EventKind::RunEnded { .. }, _) => self.ended = true,
            (EventKind::InputChanged { dataset, object }, _) => {
                if let Some(root) = self.graph.find_root(dataset) {
                    self.input_changed(root, *object);
                }
            }
            (EventKind::TaskStarted { attempt, because, .. }, Some(unit)) => {
                self.leave(unit);
                self.attempts[unit.at()] = *attempt;
                self.phases[unit.at()] = Phase::Running(*because);
                self.running += 1;
                self.ready.take(self.graph.policy_number(self.task_of(unit)));
            }
            (EventKind::AttemptFailed { .. }, Some(unit)) => {
                if let Phase::Running(because) = self.phases[unit.at()] {
                    self.leave(unit);
                    self.phases[unit.at()] = Phase::Backoff(because);
                    self.backing_off += 1;
                }
            }
            (
                EventKind::TaskCompleted { superseded: true, .. }
                | EventKind::TaskFailed { superseded: true, .. },
                Some(unit),
            ) => self.superseded_ended(unit),
            (EventKind::TaskCompleted { output, cached, took_ms, .. }, Some(unit)) => {
                self.completed(unit, *output, *cached, *took_ms);
            }
            (EventKind::TaskFailed { failure, .. }, Some(unit)) => self.failed(unit, failure),
            (EventKind::TaskSkipped { .. }, Some(unit)) => self.skipped(TaskIndex(unit.0)),
            // What these tell follows from the other events; which entries there are comes with `expand`.
            (
                EventKind::TaskInvalidated { .. }
                | EventKind::TaskNoted { .. }
                | EventKind::OutputRebuilt { .. }
                | EventKind::TaskDeferred { .. }
                | EventKind::TaskExpanded { .. },
                Some(_),
            )
            | (_, None) => {}
        }
    }

    /// The cache has no result. Not an event: a fact about the cache at this moment, which is worth nothing after a
    /// restart.
    pub fn missed(&mut self, unit: Unit, because: RunReason) {
        if self.phases[unit.at()] == Phase::Unchecked {
            self.enter_runnable(unit, because);
        }
    }

    /// The wait before the next attempt is over.
    pub fn retry_is_due(&mut self, unit: Unit) {
        if let Phase::Backoff(because) = self.phases[unit.at()] {
            self.leave(unit);
            self.enter_runnable(unit, because);
        }
    }

    /// What runs uses no more of what it was given room for, though its end is not known yet.
    pub fn release(&mut self, unit: Unit) {
        if matches!(self.phases[unit.at()], Phase::Running(_) | Phase::Superseded(_))
            && self.released.len() < self.slots
            && self.released.insert(unit)
        {
            self.ready.give_back(self.graph.policy_number(self.task_of(unit)));
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

    /// Whether changes of inputs still concern the run: not when what runs has been told to stop.
    pub fn takes_changes(&self) -> bool {
        !(self.cancelled || self.cancel_sent)
    }

    /// What to do next; `None` means: wait until something happens.
    pub fn next_action(&mut self) -> Option<Action> {
        if self.ended {
            return None;
        }
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        while let Some(task) = self.doomed.pop_front() {
            if let Phase::Doomed(obstacle) = self.phases[task.at()] {
                return Some(Action::Skip { task, because: self.reason(obstacle) });
            }
        }
        while let Some(task) = self.unassembled.pop_front() {
            if self.phases[task.at()] == Phase::Unassembled {
                return Some(Action::Assemble { task, cached: self.is_cached(task) });
            }
        }
        let idle = self.running == 0;
        if self.is_stopping() {
            let cancels = self.cancelled || self.on_failure == OnFailure::Cancel;
            if cancels && !idle && !self.cancel_sent {
                self.cancel_sent = true;
                return Some(Action::CancelRunning);
            }
            let state = if self.cancelled { RunState::Cancelled } else { RunState::Failed };
            return idle.then_some(Action::End { state });
        }
        while let Some(task) = self.unexpanded.pop_front() {
            if self.phases[task.at()] == Phase::Unexpanded {
                return Some(Action::Expand { task });
            }
        }
        if let Some(units) = self.next_unchecked() {
            return Some(Action::Look { units });
        }
        if let Some(start) = self.next_runnable() {
            return Some(start);
        }
        if !idle && let Some(unit) = self.next_ahead() {
            return Some(Action::Prepare { unit });
        }
        if idle && self.backing_off == 0 {
            let complete = self.done == self.graph.len();
            let state = if complete { RunState::Completed } else { RunState::Failed };
            return Some(Action::End { state });
        }
        None
    }

    fn next_unchecked(&mut self) -> Option<Vec<Unit>> {
        let mut units = Vec::new();
        while units.len() < LOOK_AT_ONCE
            && let Some(unit) = self.unchecked.pop_front()
        {
            if self.phases[unit.at()] == Phase::Unchecked {
                units.push(unit);
            }
        }
        (!units.is_empty()).then_some(units)
    }

    fn next_runnable(&mut self) -> Option<Action> {
        let phases = &self.phases;
        let unit = self.ready.pop(|unit| matches!(phases[unit.at()], Phase::Runnable(_)))?;
        let Phase::Runnable(because) = self.phases[unit.at()] else { return None };
        Some(Action::Start { unit, attempt: self.attempts[unit.at()] + 1, because })
    }

    fn next_ahead(&mut self) -> Option<Unit> {
        let phases = &self.phases;
        self.ready.next_ahead(|unit| matches!(phases[unit.at()], Phase::Runnable(_)))
    }

    /// Whether nothing new is started any more.
    pub fn is_stopping(&self) -> bool {
        self.cancelled
            || self.cancel_sent
            || (self.summary.failed > 0 && self.on_failure != OnFailure::KeepGoing)
    }

    /// Takes a unit out of whatever its phase counts it in.
    pub(super) fn leave(&mut self, unit: Unit) {
        match self.phases[unit.at()] {
            Phase::Running(_) | Phase::Superseded(_) => {
                self.running -= 1;
                if !self.released.remove(&unit) {
                    self.ready.give_back(self.graph.policy_number(self.task_of(unit)));
                }
            }
            Phase::Backoff(_) => self.backing_off -= 1,
            _ => {}
        }
    }

    fn completed(&mut self, unit: Unit, output: ObjectRef, cached: bool, took_ms: u64) {
        self.leave(unit);
        self.phases[unit.at()] = Phase::Done { cached };
        self.outputs[unit.at()] = Some(output);
        let task = self.task_of(unit);
        if Unit::from(task) == unit && self.expansions.contains_key(&task) {
            // Its entries have been counted.
            self.task_done(task);
            return;
        }
        if cached {
            self.summary.cached += 1;
            self.summary.saved_ms += took_ms;
        } else {
            self.summary.executed += 1;
        }
        if Unit::from(task) == unit { self.task_done(task) } else { self.item_done(task) }
    }

    fn task_done(&mut self, task: TaskIndex) {
        self.done += 1;
        let graph = Arc::clone(&self.graph);
        for &dependent in graph.dependents(task) {
            self.missing[dependent.at()] -= 1;
            if self.missing[dependent.at()] == 0 && self.phases[dependent.at()] == Phase::Waiting {
                self.make_ready(dependent);
            }
        }
    }

    fn failed(&mut self, unit: Unit, failure: &Failure) {
        self.leave(unit);
        if *failure == Failure::Cancelled {
            self.phases[unit.at()] = Phase::Cancelled;
            return;
        }
        self.phases[unit.at()] = Phase::Failed;
        self.summary.failed += 1;
        let task = self.task_of(unit);
        if Unit::from(task) != unit && !self.item_failed(task) {
            return;
        }
        self.doom_dependents(task, Obstacle::Task(task));
    }

    fn skipped(&mut self, task: TaskIndex) {
        if let Phase::Doomed(obstacle) = self.phases[task.at()] {
            self.phases[task.at()] = Phase::Skipped(obstacle);
            match obstacle {
                Obstacle::Task(_) => self.summary.skipped += 1,
                Obstacle::Root(_) => self.summary.blocked += 1,
            }
            self.doom_dependents(task, obstacle);
        }
    }

    fn doom_dependents(&mut self, task: TaskIndex, obstacle: Obstacle) {
        let graph = Arc::clone(&self.graph);
        for &dependent in graph.dependents(task) {
            self.doom(dependent, obstacle);
        }
    }

    pub(super) fn doom(&mut self, task: TaskIndex, obstacle: Obstacle) {
        if self.phases[task.at()] == Phase::Waiting {
            self.phases[task.at()] = Phase::Doomed(obstacle);
            self.doomed.push_back(task);
        }
    }

    /// All inputs of a task are there.
    pub(super) fn make_ready(&mut self, task: TaskIndex) {
        if self.graph.each(task).is_some() {
            self.phases[task.at()] = Phase::Unexpanded;
            self.unexpanded.push_back(task);
        } else {
            self.check(Unit::from(task));
        }
    }

    /// Everything is there to execute a unit, or to find its result in the cache.
    pub(super) fn check(&mut self, unit: Unit) {
        if let Some(because) = self.uncached[self.task_of(unit).at()] {
            self.enter_runnable(unit, because);
        } else {
            self.phases[unit.at()] = Phase::Unchecked;
            self.unchecked.push_back(unit);
        }
    }

    fn enter_runnable(&mut self, unit: Unit, because: RunReason) {
        self.phases[unit.at()] = Phase::Runnable(because);
        let task = self.task_of(unit);
        self.ready.push(self.graph.policy_number(task), self.remaining[task.at()], unit);
    }
}
