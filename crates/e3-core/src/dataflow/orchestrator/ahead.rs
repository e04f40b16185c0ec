//! Executions that are asked for ahead of their start, so that the runner gets ready for them while others still run.
//!
//! To the state machine and in the history these are not there: an execution counts from its start, which opens its gate.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use e3_types::Hash;

use super::{Orchestrator, Report};
use crate::{Cancellation, Gate, dataflow::action::Unit};

/// What the runner gets ready for.
#[derive(Default)]
pub(super) struct Ahead {
    asked: HashMap<Unit, Asked>,
    /// How many executions there are whose gate is closed.
    closed: usize,
    /// Whether any of them is waited for, for those who make room for it.
    waits: Arc<AtomicBool>,
}

struct Asked {
    attempt: u32,
    /// What it is an execution of: an input may change before it starts.
    key: (Hash, Vec<Hash>),
    gate: Gate,
    cancellation: Cancellation,
}

impl Ahead {
    /// Tells whether anything waits for room, now and later.
    pub(super) fn waits(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.waits)
    }

    fn ask(&mut self, unit: Unit, asked: Asked) {
        self.closed += 1;
        self.asked.insert(unit, asked);
        self.waits.store(true, Ordering::Relaxed);
    }

    /// Asks no more for one that may never be started, or is being started.
    fn take(&mut self, unit: Unit) -> Option<Asked> {
        let asked = self.asked.remove(&unit);
        self.waits.store(!self.asked.is_empty(), Ordering::Relaxed);
        asked
    }

    /// Takes an execution out whose gate will never be opened. It may have been forgone before.
    fn remove(&mut self, unit: Unit, gate: &Gate) {
        self.closed -= 1;
        if self.asked.get(&unit).is_some_and(|asked| asked.gate.is(gate)) {
            self.take(unit);
        }
    }
}

impl Orchestrator<'_> {
    /// Asks for an execution that is to start later.
    pub(super) fn prepare(&mut self, unit: Unit) {
        // What has changed since is not waited for any more.
        let is_gone = |unit: &Unit| !self.flow.is_runnable(*unit);
        let gone: Vec<Unit> = self.ahead.asked.keys().copied().filter(is_gone).collect();
        gone.into_iter().chain([unit]).for_each(|unit| self.forgo(unit));
        let (attempt, gate) = (self.flow.attempts[unit.at()] + 1, Gate::default());
        let cancellation = self.execute(unit, attempt, Some(gate.clone()));
        self.ahead.ask(unit, Asked { attempt, key: self.flow.key(unit), gate, cancellation });
    }

    /// Starts what has been prepared, if that was for these inputs.
    pub(super) fn start_prepared(&mut self, unit: Unit, attempt: u32) -> bool {
        let Some(asked) = self.ahead.asked.get(&unit) else { return false };
        if (asked.attempt, &asked.key) != (attempt, &self.flow.key(unit)) {
            self.forgo(unit);
            return false;
        }
        if let Some(Asked { gate, cancellation, .. }) = self.ahead.take(unit) {
            self.ahead.closed -= 1;
            self.follow(unit, cancellation);
            gate.open();
        }
        true
    }

    /// An execution has ended before its gate was opened: it was cancelled, or the runner has a defect.
    pub(super) fn ended_early(&mut self, unit: Unit, attempt: u32, gate: &Gate) {
        if gate.is_open() {
            // It has been started since.
            let cancellation = self.execute(unit, attempt, None);
            self.follow(unit, cancellation);
        } else {
            self.ahead.remove(unit, gate);
        }
    }

    fn forgo(&mut self, unit: Unit) {
        if let Some(asked) = self.ahead.take(unit) {
            asked.cancellation.stop.cancel();
        }
    }

    /// Has the runner clear away whatever it has prepared, and waits for that.
    pub(super) async fn forgo_all(&mut self) {
        let all: Vec<Unit> = self.ahead.asked.keys().copied().collect();
        for unit in all {
            self.forgo(unit);
        }
        while self.ahead.closed > 0 {
            match self.work.join_next().await {
                Some(Ok((unit, Report::Result { early: Some(gate), .. }))) => self.ahead.remove(unit, &gate),
                // A wait for a next attempt.
                Some(_) => {}
                None => return,
            }
        }
    }
}
