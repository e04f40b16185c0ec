//! What is asked for ahead of its time: its inputs are staged at once, its process is started in time.

use std::{collections::BTreeMap, fs};

use e3_core::{Gate, TaskExecuteOptions, TaskResult};
use e3_types::{Dir, Failure, Hash, Kind, TaskObject};

use crate::bench::{self, Bench, script};

/// Asks for an execution and calls `meanwhile` when its inputs are staged; then its gate is opened.
async fn ahead(
    bench: &Bench,
    task: &TaskObject,
    inputs: &[Hash],
    meanwhile: impl AsyncFnOnce(&TaskExecuteOptions),
) -> TaskResult {
    let gate = Gate::default();
    let options = TaskExecuteOptions { gate: Some(gate.clone()), ..TaskExecuteOptions::default() };
    let then = async {
        while bench.scratch_files() == 0 {
            tokio::task::yield_now().await;
        }
        meanwhile(&options).await;
        gate.open();
    };
    futures::join!(bench.run_with(task, inputs, options.clone()), then).0
}

fn printing() -> TaskObject {
    script("cat inputs/a > output; ls -A . inputs >> output", &[("a", Kind::File)], Kind::File)
}

#[tokio::test]
async fn inputs_are_staged_before_there_is_room_for_the_process() {
    let bench = bench::local();
    let (task, input) = (printing(), bench.put("one\n").await);
    let result = ahead(&bench, &task, &[input], async |_| assert_eq!(bench.scratch_files(), 1)).await;
    assert!(!result.cached);
    assert_eq!(bench.output(&task, &[input]).await, "one\n.:\ninputs\noutput\n\ninputs:\na\n");
    assert_eq!(bench.scratch_files(), 0);
}

#[tokio::test]
async fn what_is_staged_for_nothing_is_cleared_away() {
    let bench = bench::local();
    let (task, input) = (printing(), bench.put("one\n").await);
    let cancelled = ahead(&bench, &task, &[input], async |options| options.cancellation.stop.cancel()).await;
    assert_eq!(cancelled.outcome, Err(Failure::Cancelled));
    assert_eq!(bench.scratch_files(), 0);
    // Somebody else has made it meanwhile.
    let made = ahead(&bench, &task, &[input], async |_| {
        assert!(!bench.run(&task, &[input]).await.cached);
    })
    .await;
    assert!(made.cached);
    assert_eq!(bench.scratch_files(), 0);
}

#[tokio::test]
async fn what_a_task_does_to_an_input_does_not_fail_another_one_for_which_that_is_staged() {
    let bench = bench::local();
    let input = bench.put("one\n").await;
    let spoiling = script("touch inputs/a; echo > output", &[("a", Kind::File)], Kind::File);
    let result = ahead(&bench, &printing(), &[input], async |_| {
        let failure = bench.failure(&spoiling, &[input]).await;
        assert!(failure.contains("its staged file `inputs/a` was changed"), "{failure}");
    })
    .await;
    assert!(result.outcome.is_ok(), "{result:?}");
}

#[tokio::test]
async fn what_was_missing_then_may_be_there_in_time() {
    let bench = bench::local();
    let (task, inputs) = (printing(), [Hash::of(b"one\n")]);
    let gate = Gate::default();
    let options = TaskExecuteOptions { gate: Some(gate.clone()), ..TaskExecuteOptions::default() };
    let then = async {
        tokio::task::yield_now().await;
        bench.put("one\n").await;
        gate.open();
    };
    let (result, ()) = futures::join!(bench.run_with(&task, &inputs, options), then);
    assert!(result.outcome.is_ok(), "{result:?}");
}

#[tokio::test]
async fn what_takes_time_or_room_to_stage_is_not_staged_ahead() {
    let bench = bench::local();
    let file = bench.put("one\n").await;
    let folder = bench.put(Dir { entries: BTreeMap::new() }.encode()).await;
    let mut writable = printing();
    writable.inputs[0].writable = true;
    let of_folder = script("ls inputs/a > output", &[("a", Kind::Dir)], Kind::File);
    for (task, input) in [(writable, file), (of_folder, folder)] {
        let (inputs, gate) = ([input], Gate::default());
        let options = TaskExecuteOptions { gate: Some(gate.clone()), ..TaskExecuteOptions::default() };
        let then = async {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
                // Not even a folder for it.
                assert_eq!(fs::read_dir(&bench.scratch).unwrap().count(), 0);
            }
            gate.open();
        };
        let (result, ()) = futures::join!(bench.run_with(&task, &inputs, options), then);
        assert!(result.outcome.is_ok(), "{result:?}");
        fs::remove_dir_all(&bench.scratch).unwrap();
        fs::create_dir(&bench.scratch).unwrap();
    }
}
