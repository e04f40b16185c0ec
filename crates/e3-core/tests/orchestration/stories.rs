//! Whole runs, on the mock and in memory, to which anything may happen at any time.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use e3_core::{Cancellation, MockResponse, OnFailure, operations};
use e3_testkit::{Scenario, TaskSketch};
use e3_types::{Hash, RunState};
use proptest::prelude::*;

const NAMES: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];
const ROOTS: [&str; 2] = ["r0", "r1"];

/// What happens, so many seconds after what happened before.
#[derive(Debug, Clone)]
enum Happens {
    Set(usize, u8),
    Cancel,
    Crash,
}

fn story() -> impl Strategy<Value = Vec<(u64, Happens)>> {
    let happens = prop_oneof![
        4 => (0..ROOTS.len(), 0_u8..3).prop_map(|(root, value)| Happens::Set(root, value)),
        1 => Just(Happens::Cancel),
        1 => Just(Happens::Crash),
    ];
    prop::collection::vec((0_u64..12, happens), 0..6)
}

/// What a task makes: decided by its inputs, and often the same for different ones. It takes up to four seconds.
pub(crate) fn respond(scenario: &Scenario) {
    scenario.runner.respond_by_default(|call| {
        let text: Vec<_> = call.inputs.iter().map(ToString::to_string).collect();
        let mixed = Hash::of(format!("{} {}", call.task, text.join(" ")).as_bytes());
        let (kind, time) = (mixed.as_bytes()[0] % 3, mixed.as_bytes()[1] % 4);
        MockResponse::bytes(format!("{} {kind}", call.task)).after(Duration::from_secs(u64::from(time)))
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// However it was disturbed, what a completed run leaves is what a fresh workspace with the same inputs comes to.
    #[test]
    fn a_completed_run_leaves_what_a_fresh_one_does(
        reads in prop::collection::vec(prop::collection::btree_set(0_usize..8, 1..4), 1..6),
        slots in 1_usize..4,
        restart_on_change: bool,
        story in story(),
    ) {
        let tasks = sketches(&reads);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut scenario = Scenario::new(&tasks).await;
            respond(&scenario);
            scenario.options.slots = NonZeroUsize::new(slots).unwrap();
            scenario.options.restart_on_change = restart_on_change;
            scenario.options.on_failure = OnFailure::KeepGoing;
            let read = |root: &str| tasks.iter().any(|task| task.inputs.contains(&root));
            let mut values: [Option<u8>; ROOTS.len()] = [None; ROOTS.len()];
            let mut story = story.into_iter();
            // A run after the other, until one has come to its end with nothing left to happen.
            loop {
                scenario.options.cancellation = Cancellation::default();
                let stop = scenario.options.cancellation.stop.clone();
                let disturb = async {
                    for (after, happens) in story.by_ref() {
                        tokio::time::sleep(Duration::from_secs(after)).await;
                        match happens {
                            Happens::Set(root, value) if read(ROOTS[root]) => {
                                values[root] = Some(value);
                                scenario.set(ROOTS[root], &value.to_string()).await;
                            }
                            Happens::Set(..) => {}
                            Happens::Cancel => stop.cancel(),
                            Happens::Crash => return,
                        }
                    }
                    std::future::pending::<()>().await;
                };
                let ended = tokio::select! {
                    report = scenario.run() => Some(report),
                    () = disturb => None,
                };
                // What was set after a run had come to its end, while that was being written down, is for the next one.
                let head = operations::head(&*scenario.storage, &"main".parse().unwrap()).await.unwrap();
                if let Some(report) = ended
                    && report.state == RunState::Completed
                    && report.operation == head
                    && story.as_slice().is_empty()
                {
                    break;
                }
            }
            let fresh = Scenario::new(&tasks).await;
            respond(&fresh);
            for (root, value) in ROOTS.iter().zip(values) {
                if let Some(value) = value {
                    fresh.set(root, &value.to_string()).await;
                }
            }
            assert_eq!(fresh.run().await.state, RunState::Completed);
            for task in &tasks {
                let (here, there) = (scenario.value("main", task.name).await, fresh.value("main", task.name).await);
                assert_eq!(here.unwrap().object, there.unwrap().object, "{}", task.name);
                scenario.vector(task.name).await;
            }
            assert_eq!(scenario.run().await.summary.executed, 0, "and there is nothing left to do");
        });
    }
}

pub(crate) fn sketches(reads: &[BTreeSet<usize>]) -> Vec<TaskSketch> {
    let sketch = |(number, reads): (usize, &BTreeSet<usize>)| {
        let inputs = reads.iter().filter_map(|&at| match at.checked_sub(ROOTS.len()) {
            None => Some(ROOTS[at]),
            Some(task) => (task < number).then(|| NAMES[task]),
        });
        let inputs: Vec<&'static str> = inputs.collect();
        TaskSketch::new(NAMES[number], inputs.leak())
    };
    reads.iter().enumerate().map(sketch).collect()
}
