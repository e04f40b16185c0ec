//! The orchestration on the mock: in memory, with paused time, without processes.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails ends the test")]

mod basics;
mod faults;
mod items;
mod limits;
mod plans;
mod reactive;
mod repair;
mod settled;
mod standing;
mod stories;

use std::time::Duration;

use e3_testkit::TaskSketch;
use e3_types::RunSummary;

pub(crate) fn sketch(tasks: &[(&'static str, &'static [&'static str])]) -> Vec<TaskSketch> {
    tasks.iter().map(|(name, inputs)| TaskSketch::new(name, inputs)).collect()
}

/// `raw` feeds `a`, which feeds `b` and `c`, which `d` joins.
pub(crate) fn diamond() -> Vec<TaskSketch> {
    sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])])
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What a run came to, without the time that it took.
pub(crate) fn counts(summary: RunSummary) -> RunSummary {
    RunSummary { wall_ms: 0, saved_ms: 0, ..summary }
}
