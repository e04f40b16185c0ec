//! `View`: what is known of a run from its events so far.

use std::collections::BTreeMap;

use e3_types::{Event, EventKind, Name, RunState, SkipReason, Timestamp};

/// The state of a run for display: the fold of its events.
#[derive(Debug, Default)]
pub struct View {
    /// How many tasks were selected.
    pub total: u64,
    /// How many tasks are over: done, failed, skipped or blocked.
    pub over: u64,
    /// Tasks that run, with the time when their attempt began.
    pub running: BTreeMap<Name, Timestamp>,
    /// The tasks that were skipped, under the task whose failure caused it.
    pub skipped: BTreeMap<Name, Vec<Name>>,
    /// How the run ended, once it has.
    pub ended: Option<RunState>,
}

impl View {
    /// Takes in the next event.
    pub fn apply(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { total, .. } => self.total = *total,
            EventKind::TaskStarted { task, .. } => {
                self.running.insert(task.clone(), event.at);
            }
            EventKind::AttemptFailed { task, .. } => {
                self.running.remove(task);
            }
            EventKind::TaskCompleted { task, .. } | EventKind::TaskFailed { task, .. } => {
                self.running.remove(task);
                self.over += 1;
            }
            EventKind::TaskSkipped { task, because } => {
                self.over += 1;
                if let SkipReason::Failed { task: cause } = because {
                    self.skipped.entry(cause.clone()).or_default().push(task.clone());
                }
            }
            EventKind::RunEnded { state, .. } => self.ended = Some(*state),
        }
    }
}
