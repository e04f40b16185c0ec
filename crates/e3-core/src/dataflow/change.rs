//! Inputs that change during a run: what came from them goes back to waiting, and nothing else does.
//!
//! A task starts only when everything that it needs is done, and whatever a change reaches is no longer done. So all
//! inputs of a task that starts were derived from the same, current version of every root input: a mix cannot happen. The
//! cost is in proportion to the tasks that were decided on the old value.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    sync::Arc,
};

use e3_types::ObjectRef;

use super::{
    action::{Action, Unit},
    graph::{Input, RootIndex, TaskIndex},
    state::{Dataflow, Obstacle, Phase},
};

impl Dataflow {
    /// A root input has another value, or none any more.
    pub(super) fn input_changed(&mut self, root: RootIndex, object: Option<ObjectRef>) {
        if self.roots[root.at()] == object {
            return;
        }
        self.roots[root.at()] = object;
        let graph = Arc::clone(&self.graph);
        let mut open = graph.readers(root).to_vec();
        let mut back = open.clone();
        let mut skipped = BinaryHeap::new();
        while let Some(task) = open.pop() {
            match self.phases[task.at()] {
                // What waits has been taken back before, or was never further; so has all that depends on it.
                Phase::Waiting | Phase::Superseded(_) | Phase::Cancelled | Phase::Gone => {}
                Phase::Doomed(_) | Phase::Skipped(_) => skipped.push(Reverse((graph.position(task), task))),
                phase => {
                    self.take_back(task, phase, root);
                    back.push(task);
                    if matches!(phase, Phase::Done { .. } | Phase::Failed | Phase::Expanded) {
                        open.extend(graph.dependents(task));
                    }
                }
            }
        }
        // Those before others first, so that what was skipped behind another skipped task is looked at after it.
        while let Some(Reverse((_, task))) = skipped.pop() {
            if self.reconsider(task, root) {
                back.push(task);
                skipped.extend(
                    graph.dependents(task).iter().map(|next| Reverse((graph.position(*next), *next))),
                );
            }
        }
        for task in back {
            self.settle(task);
        }
    }

    /// Takes back what is known of a task.
    fn take_back(&mut self, task: TaskIndex, phase: Phase, root: RootIndex) {
        let graph = Arc::clone(&self.graph);
        let superseded = Phase::Superseded(root);
        let is_map = self.expansions.contains_key(&task);
        self.forget_items(task, superseded);
        self.phases[task.at()] = Phase::Waiting;
        self.attempts[task.at()] = 0;
        match phase {
            Phase::Done { cached } => {
                self.done -= 1;
                self.outputs[task.at()] = None;
                if !is_map {
                    self.uncount(cached);
                }
                for dependent in graph.dependents(task) {
                    self.missing[dependent.at()] += 1;
                }
            }
            Phase::Failed => self.summary.failed -= 1,
            Phase::Running(_) => self.phases[task.at()] = superseded,
            Phase::Backoff(_) => self.backing_off -= 1,
            // Nobody was told anything of these.
            Phase::Unexpanded | Phase::Unchecked | Phase::Runnable(_) => return,
            _ => {}
        }
        self.notices.push_back(Action::Invalidate { task, because: graph.roots()[root.at()].clone() });
    }

    /// Looks at a skipped task again; whether what stood in its way is gone.
    fn reconsider(&mut self, task: TaskIndex, root: RootIndex) -> bool {
        let (obstacle, reported) = match self.phases[task.at()] {
            Phase::Doomed(obstacle) => (obstacle, false),
            Phase::Skipped(obstacle) => (obstacle, true),
            _ => return false,
        };
        if self.stands(obstacle) {
            return false;
        }
        if reported {
            match obstacle {
                Obstacle::Task(_) => self.summary.skipped -= 1,
                Obstacle::Root(_) => self.summary.blocked -= 1,
            }
            let because = self.graph.roots()[root.at()].clone();
            self.notices.push_back(Action::Invalidate { task, because });
        }
        self.phases[task.at()] = Phase::Waiting;
        true
    }

    /// Whether an obstacle is still one.
    fn stands(&self, obstacle: Obstacle) -> bool {
        match obstacle {
            Obstacle::Root(root) => self.roots[root.at()].is_none(),
            Obstacle::Task(task) => self.is_failure(task),
        }
    }

    fn is_failure(&self, task: TaskIndex) -> bool {
        match self.phases[task.at()] {
            Phase::Failed => true,
            Phase::Expanded => self.expansions.get(&task).is_some_and(|expansion| expansion.failed > 0),
            _ => false,
        }
    }

    /// Sends a task that waits where it belongs.
    fn settle(&mut self, task: TaskIndex) {
        if self.phases[task.at()] != Phase::Waiting {
            return;
        }
        let obstacle = self.graph.inputs(task).iter().find_map(|input| match *input {
            Input::Root(root) => self.roots[root.at()].is_none().then_some(Obstacle::Root(root)),
            Input::Task(producer) => match self.phases[producer.at()] {
                Phase::Doomed(obstacle) | Phase::Skipped(obstacle) => Some(obstacle),
                _ => self.is_failure(producer).then_some(Obstacle::Task(producer)),
            },
        });
        match obstacle {
            Some(obstacle) => self.doom(task, obstacle),
            None if self.missing[task.at()] == 0 => self.make_ready(task),
            None => {}
        }
    }

    /// A unit that ran on inputs which have changed meanwhile has ended.
    pub(super) fn superseded_ended(&mut self, unit: Unit) {
        let Phase::Superseded(root) = self.phases[unit.at()] else { return };
        self.leave(unit);
        let task = self.task_of(unit);
        if Unit::from(task) != unit {
            self.phases[unit.at()] = Phase::Gone;
            return;
        }
        self.phases[unit.at()] = Phase::Waiting;
        let graph = Arc::clone(&self.graph);
        let beside = self.derived_beside(task, root);
        for &dependent in graph.dependents(task) {
            // With this result it could start, but the rest of what it reads is of another version.
            let only_this =
                self.missing[dependent.at()] == 1 && self.phases[dependent.at()] == Phase::Waiting;
            let reads_also = graph.inputs(dependent).iter().any(|input| match input {
                Input::Root(other) => *other == root,
                Input::Task(other) => beside.contains(other),
            });
            if only_this && reads_also {
                let because = graph.roots()[root.at()].clone();
                self.notices.push_back(Action::Defer { task: dependent, because });
            }
        }
        self.settle(task);
    }

    /// The tasks whose outputs are derived from `root` on a way that does not lead through `producer`.
    fn derived_beside(&self, producer: TaskIndex, root: RootIndex) -> HashSet<TaskIndex> {
        let mut open = self.graph.readers(root).to_vec();
        let mut found = HashSet::new();
        while let Some(task) = open.pop() {
            if task != producer && found.insert(task) {
                open.extend(self.graph.dependents(task));
            }
        }
        found
    }
}
