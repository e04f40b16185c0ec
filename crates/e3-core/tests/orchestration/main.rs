//! The orchestration on the mock: in memory, with paused time, without processes.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails ends the test")]

mod ahead;
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

use std::{collections::BTreeSet, time::Duration};

use e3_testkit::TaskSketch;
use e3_types::{RunSummary, TaskPolicy};

pub(crate) fn sketch(tasks: &[(&'static str, &'static [&'static str])]) -> Vec<TaskSketch> {
    tasks.iter().map(|(name, inputs)| TaskSketch::new(name, inputs)).collect()
}

/// A task that reads `raw` and needs so much of what is limited.
pub(crate) fn needs(name: &'static str, resources: &[(&str, u64)]) -> TaskSketch {
    let resources = resources.iter().map(|(name, amount)| (name.parse().unwrap(), *amount)).collect();
    let policy = TaskPolicy { resources, ..TaskPolicy::default() };
    TaskSketch { policy, ..TaskSketch::new(name, &["raw"]) }
}

/// `raw` feeds `a`, which feeds `b` and `c`, which `d` joins.
pub(crate) fn diamond() -> Vec<TaskSketch> {
    sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])])
}

/// Tasks of these names, each of which reads some roots and some of the tasks before it: by their numbers, roots first.
pub(crate) fn random(
    reads: &[BTreeSet<usize>],
    roots: &[&'static str],
    names: &[&'static str],
) -> Vec<TaskSketch> {
    let task = |(number, reads): (usize, &BTreeSet<usize>)| {
        let inputs = reads.iter().filter_map(|&at| match at.checked_sub(roots.len()) {
            None => Some(roots[at]),
            Some(task) => (task < number).then(|| names[task]),
        });
        let inputs: Vec<&'static str> = inputs.collect();
        TaskSketch::new(names[number], inputs.leak())
    };
    reads.iter().enumerate().map(task).collect()
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What a run came to, without the time that it took.
pub(crate) fn counts(summary: RunSummary) -> RunSummary {
    RunSummary { wall_ms: 0, saved_ms: 0, ..summary }
}
