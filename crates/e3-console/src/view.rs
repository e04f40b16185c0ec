//! `View`: what is known of a run from its events so far.

use std::{collections::BTreeMap, sync::Arc};

use e3_types::{Event, EventKind, Name, RunState, SkipReason, Timestamp};

/// The state of a run for display: the fold of its events.
#[derive(Debug, Default)]
pub struct View {
    /// How many tasks were selected; the entries of a task that runs once per entry count, as soon as they are known,
    /// instead of that task.
    pub total: u64,
    /// How many tasks are over: done, failed, skipped or blocked.
    pub over: u64,
    /// Tasks that run, and the entries of tasks, with the time when their attempt began.
    pub running: BTreeMap<Place, Timestamp>,
    /// The tasks that were skipped, under the task whose failure caused it.
    pub skipped: BTreeMap<Name, Vec<Name>>,
    /// How the run ended, once it has.
    pub ended: Option<RunState>,
    /// What is over, so that it can be taken back.
    settled: BTreeMap<Name, Settled>,
    /// How many tasks have a result from before the run.
    standing: u64,
}

/// A task, or one of its entries.
pub type Place = (Name, Option<Arc<str>>);

/// What is known of a task.
#[derive(Debug, Default)]
struct Settled {
    /// How many entries it has, if it runs once per entry.
    items: Option<u64>,
    /// How many of its units are over.
    over: u64,
}

impl View {
    /// Takes in the next event.
    pub fn apply(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { total, standing, .. } => {
                (self.total, self.over, self.standing) = (*total, *standing, *standing);
            }
            EventKind::InputChanged { .. }
            | EventKind::TaskDeferred { .. }
            | EventKind::TaskNoted { .. }
            | EventKind::OutputRebuilt { .. } => {}
            EventKind::TaskInvalidated { task, .. } => self.take_back(task),
            EventKind::TaskExpanded { task, items } => {
                self.total = (self.total + items).saturating_sub(1);
                self.settled.entry(task.clone()).or_default().items = Some(*items);
            }
            EventKind::TaskStarted { task, item, .. } => {
                self.running.insert((task.clone(), item.clone()), event.at);
                self.settled.entry(task.clone()).or_default();
            }
            EventKind::AttemptFailed { task, item, .. } => {
                self.running.remove(&(task.clone(), item.clone()));
            }
            EventKind::TaskCompleted { task, item, superseded, .. }
            | EventKind::TaskFailed { task, item, superseded, .. } => {
                self.running.remove(&(task.clone(), item.clone()));
                if !superseded {
                    self.settle(task, item.is_some());
                }
            }
            EventKind::TaskSkipped { task, because } => {
                self.settle(task, false);
                if let SkipReason::Failed { task: cause } = because {
                    self.skipped.entry(cause.clone()).or_default().push(task.clone());
                }
            }
            EventKind::RunEnded { state, .. } => self.ended = Some(*state),
        }
    }

    fn settle(&mut self, task: &Name, is_item: bool) {
        let settled = self.settled.entry(task.clone()).or_default();
        if is_item || settled.items.is_none() {
            settled.over += 1;
            self.over += 1;
        }
    }

    /// What was known of a task does not count any more.
    fn take_back(&mut self, task: &Name) {
        for names in self.skipped.values_mut() {
            names.retain(|name| name != task);
        }
        let Some(settled) = self.settled.get_mut(task) else {
            // Of what stood nothing was told before.
            let stood = self.standing.min(1);
            (self.over, self.standing) = (self.over - stood, self.standing - stood);
            self.settled.insert(task.clone(), Settled::default());
            return;
        };
        let Settled { items, over } = std::mem::take(settled);
        self.over -= over;
        if let Some(items) = items {
            self.total = (self.total + 1).saturating_sub(items);
        }
    }
}

#[cfg(test)]
mod tests {
    use e3_types::{EventKind, ObjectRef, RunId};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn completed(task: &str, item: Option<&str>) -> EventKind {
        EventKind::TaskCompleted {
            task: name(task),
            item: item.map(Arc::from),
            execution: None,
            output: ObjectRef::of(b""),
            cached: false,
            because: None,
            took_ms: 1,
            superseded: false,
        }
    }

    #[test]
    fn entries_count_instead_of_their_task_and_what_is_taken_back_counts_no_more() {
        let mut view = View::default();
        let mut tell = |kind| {
            view.apply(&Event { seq: 0, at: Timestamp::default(), kind });
            (view.over, view.total)
        };
        let (run, workspace) = (RunId::from_parts(0, [0; 10]), "main".parse().unwrap());
        let package = ObjectRef::of(b"").hash;
        assert_eq!(tell(EventKind::RunStarted { run, workspace, package, total: 2, standing: 0 }), (0, 2));
        assert_eq!(tell(EventKind::TaskExpanded { task: name("a"), items: 3 }), (0, 4));
        for (over, item) in ["x", "y", "z"].into_iter().enumerate() {
            assert_eq!(tell(completed("a", Some(item))), (over as u64 + 1, 4));
        }
        assert_eq!(tell(completed("a", None)), (3, 4), "the folder of all outputs is no task of its own");
        assert_eq!(tell(completed("b", None)), (4, 4));
        let because = "raw".parse().unwrap();
        assert_eq!(tell(EventKind::TaskInvalidated { task: name("a"), because }), (1, 2));
    }

    #[test]
    fn what_stands_is_over_until_it_is_taken_back() {
        let mut view = View::default();
        let mut tell = |kind| {
            view.apply(&Event { seq: 0, at: Timestamp::default(), kind });
            (view.over, view.total)
        };
        let (run, workspace) = (RunId::from_parts(0, [0; 10]), "main".parse().unwrap());
        let package = ObjectRef::of(b"").hash;
        assert_eq!(tell(EventKind::RunStarted { run, workspace, package, total: 5, standing: 3 }), (3, 5));
        assert_eq!(tell(completed("d", None)), (4, 5));
        let taken_back =
            |task| EventKind::TaskInvalidated { task: name(task), because: "raw".parse().unwrap() };
        assert_eq!(tell(taken_back("a")), (3, 5));
        assert_eq!(tell(taken_back("a")), (3, 5), "it was over once");
        assert_eq!(tell(taken_back("d")), (2, 5));
        assert_eq!(tell(completed("a", None)), (3, 5));
        assert_eq!(tell(taken_back("a")), (2, 5));
    }
}
