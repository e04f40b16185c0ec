//! Inputs that change during a run.

use std::sync::Arc;

use async_trait::async_trait;
use e3_core::{
    MockResponse, MockTaskRunner, OnFailure, StorageBackend, TaskExecuteOptions, TaskResult, TaskRunner,
};
use e3_testkit::{Scenario, TaskSketch, task_hash};
use e3_types::{Failure, Hash, RunState, RunSummary, TaskPolicy};

use crate::{counts, diamond, seconds, sketch};

/// A scenario whose tasks take ten seconds each, with as many slots as there are tasks.
async fn slow(tasks: &[TaskSketch]) -> Scenario {
    let mut scenario = Scenario::new(tasks).await;
    scenario.options.slots = std::num::NonZeroUsize::new(tasks.len()).unwrap();
    scenario.runner.respond_by_default(|call| {
        let inputs: Vec<_> = call.inputs.iter().map(ToString::to_string).collect();
        MockResponse::bytes(format!("{} of {}", call.task, inputs.join(" "))).after(seconds(10))
    });
    scenario
}

/// Runs, and sets an input after so many seconds.
async fn run_and_set(scenario: &Scenario, after: u64, input: &str, text: &str) -> e3_core::RunReport {
    let set = async {
        tokio::time::sleep(seconds(after)).await;
        scenario.set(input, text).await;
    };
    tokio::join!(scenario.run(), set).0
}

/// Every output is what a run of an untouched workspace with these inputs makes.
async fn assert_like_a_fresh_run(scenario: &Scenario, tasks: &[TaskSketch], inputs: &[(&str, &str)]) {
    let fresh = Scenario::new(tasks).await;
    for (input, text) in inputs {
        fresh.set(input, text).await;
    }
    fresh.run().await;
    for task in tasks {
        let (here, there) =
            (scenario.value("main", task.name).await.unwrap(), fresh.value("main", task.name).await.unwrap());
        assert_eq!(here.object, there.object, "{}", task.name);
        scenario.vector(task.name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn completed_tasks_that_a_change_reaches_run_again_and_are_counted() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["other"]), ("d", &["c"])]);
    let scenario = slow(&tasks).await;
    let report = run_and_set(&scenario, 15, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 4",
            "start a",
            "start c",
            "done a",
            "done c",
            "start b",
            "start d",
            "change raw",
            "invalid a<raw",
            "invalid b<raw",
            "start a",
            "done b too late",
            "done d",
            "done a",
            "start b",
            "done b",
            "end completed"
        ]
    );
    let expected = RunSummary { total: 4, executed: 4, reexecuted: 1, ..RunSummary::default() };
    assert_eq!(counts(report.summary), expected);
    assert_like_a_fresh_run(&scenario, &tasks, &[("raw", "new")]).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_tasks_pick_a_change_up() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a", "late"])]);
    let scenario = slow(&tasks).await;
    run_and_set(&scenario, 5, "late", "new").await;
    let story = scenario.take_story();
    assert_eq!(story, ["begin 2", "start a", "change late", "done a", "start b", "done b", "end completed"]);
    assert_like_a_fresh_run(&scenario, &tasks, &[("late", "new")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_running_task_finishes_and_its_result_is_kept_but_not_published() {
    let tasks = sketch(&[("a", &["raw"])]);
    let scenario = slow(&tasks).await;
    let report = run_and_set(&scenario, 5, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 1",
            "start a",
            "change raw",
            "invalid a<raw",
            "done a too late",
            "start a",
            "done a",
            "end completed"
        ]
    );
    assert_eq!(counts(report.summary), RunSummary { total: 1, executed: 1, ..RunSummary::default() });
    assert_like_a_fresh_run(&scenario, &tasks, &[("raw", "new")]).await;
    scenario.set("raw", "raw").await;
    assert_eq!(scenario.run().await.summary.cached, 1, "the result that came too late was kept");
}

#[tokio::test(start_paused = true)]
async fn a_change_back_while_it_runs_costs_no_second_execution() {
    let tasks = sketch(&[("a", &["raw"])]);
    let scenario = slow(&tasks).await;
    let twice = async {
        tokio::time::sleep(seconds(3)).await;
        scenario.set("raw", "new").await;
        tokio::time::sleep(seconds(3)).await;
        scenario.set("raw", "raw").await;
    };
    let (report, ()) = tokio::join!(scenario.run(), twice);
    assert_eq!(scenario.runner.calls().len(), 1);
    assert_eq!(counts(report.summary), RunSummary { total: 1, cached: 1, ..RunSummary::default() });
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_inputs_disagree_is_deferred_and_never_run_on_a_mix() {
    // `quick` is done with the new value long before `long` has finished with the old one.
    let tasks = sketch(&[("quick", &["raw"]), ("long", &["raw"]), ("join", &["quick", "long"])]);
    let scenario = slow(&tasks).await;
    scenario.runner.respond_with(task_hash(&tasks[1]), |call| {
        MockResponse::bytes(format!("{} of {}", call.task, call.inputs[0])).after(seconds(100))
    });
    run_and_set(&scenario, 20, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 3",
            "start long",
            "start quick",
            "done quick",
            "change raw",
            "invalid quick<raw",
            "invalid long<raw",
            "start quick",
            "done quick",
            "done long too late",
            "defer join<raw",
            "start long",
            "done long",
            "start join",
            "done join",
            "end completed"
        ]
    );
    let calls = scenario.runner.calls();
    let joins: Vec<_> = calls.iter().filter(|call| call.task == task_hash(&tasks[2])).collect();
    assert_eq!(joins.len(), 1);
    assert_like_a_fresh_run(&scenario, &tasks, &[("raw", "new")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_and_what_was_skipped_become_pending_again() {
    let tasks = diamond();
    let mut scenario = slow(&tasks).await;
    scenario.options.on_failure = OnFailure::KeepGoing;
    let old = e3_types::Hash::of(b"raw");
    scenario.runner.respond_with(task_hash(&tasks[0]), move |call| {
        if call.inputs[0] == old { MockResponse::exit(1) } else { MockResponse::bytes("a") }
    });
    scenario.runner.respond(
        task_hash(&TaskSketch::new("slow", &["other"])),
        MockResponse::bytes("s").after(seconds(60)),
    );
    let mut with_other = diamond();
    with_other.push(TaskSketch::new("slow", &["other"]));
    scenario.deploy("main", &with_other).await;
    let report = run_and_set(&scenario, 30, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 5",
            "start a",
            "start slow",
            "fail a",
            "skip b<a",
            "skip c<a",
            "skip d<a",
            "change raw",
            "invalid a<raw",
            "invalid b<raw",
            "invalid c<raw",
            "invalid d<raw",
            "start a",
            "done a",
            "start b",
            "start c",
            "done b",
            "done c",
            "start d",
            "done d",
            "done slow",
            "end completed"
        ]
    );
    assert_eq!((report.state, report.failures.len()), (RunState::Completed, 0));
    assert_eq!(counts(report.summary), RunSummary { total: 5, executed: 5, ..RunSummary::default() });
}

#[tokio::test(start_paused = true)]
async fn what_another_failure_still_stands_in_the_way_of_stays_skipped() {
    let tasks = sketch(&[("bad", &["x"]), ("good", &["y"]), ("join", &["bad", "good"]), ("long", &["z"])]);
    let mut scenario = slow(&tasks).await;
    scenario.options.on_failure = OnFailure::KeepGoing;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::exit(1));
    scenario.runner.respond(task_hash(&tasks[3]), MockResponse::bytes("long").after(seconds(60)));
    let report = run_and_set(&scenario, 20, "y", "new").await;
    let story = scenario.take_story();
    assert_eq!(story.iter().filter(|word| word.contains("join")).collect::<Vec<_>>(), ["skip join<bad"]);
    let expected =
        RunSummary { total: 4, executed: 2, failed: 1, skipped: 1, reexecuted: 1, ..RunSummary::default() };
    assert_eq!(counts(report.summary), expected);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_a_change_takes_back_lets_the_run_go_on() {
    // By default nothing new starts after a failure: until it is none any more.
    let tasks = sketch(&[("bad", &["x"]), ("long", &["z"]), ("after", &["long"])]);
    let scenario = slow(&tasks).await;
    let old = e3_types::Hash::of(b"x");
    scenario.runner.respond_with(task_hash(&tasks[0]), move |call| {
        if call.inputs[0] == old { MockResponse::exit(1) } else { MockResponse::bytes("well") }
    });
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::bytes("long").after(seconds(60)));
    let report = run_and_set(&scenario, 20, "x", "new").await;
    assert_eq!(report.state, RunState::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_failure_on_old_inputs_is_no_failure_of_the_run_and_is_not_tried_again_on_them() {
    let retries = e3_types::Retry { max: 3, backoff_ms: 1, on: vec![e3_types::RetryClass::Exit(None)] };
    let policy = TaskPolicy { retries: Some(retries), ..TaskPolicy::default() };
    let tasks = [TaskSketch { policy, ..TaskSketch::new("a", &["raw"]) }];
    let scenario = slow(&tasks).await;
    let old = e3_types::Hash::of(b"raw");
    scenario.runner.respond_with(task_hash(&tasks[0]), move |call| {
        if call.inputs[0] == old {
            MockResponse::exit(1).after(seconds(10))
        } else {
            MockResponse::bytes("a")
        }
    });
    let report = run_and_set(&scenario, 5, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 1",
            "start a",
            "change raw",
            "invalid a<raw",
            "fail a too late",
            "start a",
            "done a",
            "end completed"
        ]
    );
    assert!(report.failures.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_next_attempt_ends_with_the_change() {
    let retries = e3_types::Retry { max: 3, backoff_ms: 60_000, on: vec![e3_types::RetryClass::Exit(None)] };
    let policy = TaskPolicy { retries: Some(retries), ..TaskPolicy::default() };
    let tasks = [TaskSketch { policy, ..TaskSketch::new("a", &["raw"]) }];
    let scenario = slow(&tasks).await;
    let old = e3_types::Hash::of(b"raw");
    scenario.runner.respond_with(task_hash(&tasks[0]), move |call| {
        if call.inputs[0] == old { MockResponse::exit(1) } else { MockResponse::bytes("a") }
    });
    let report = run_and_set(&scenario, 5, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 1",
            "start a",
            "retry a in 60000",
            "change raw",
            "invalid a<raw",
            "start a",
            "done a",
            "end completed"
        ]
    );
    assert_eq!(report.summary.wall_ms, 5000);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_gets_its_first_value_unblocks_what_waits_for_it() {
    let tasks = sketch(&[("a", &["unassigned"]), ("b", &["a"]), ("long", &["z"])]);
    let scenario = slow(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[2]), MockResponse::bytes("long").after(seconds(60)));
    let report = run_and_set(&scenario, 20, "unassigned", "a value").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 3",
            "block a<unassigned",
            "block b<unassigned",
            "start long",
            "change unassigned",
            "invalid a<unassigned",
            "invalid b<unassigned",
            "start a",
            "done a",
            "start b",
            "done b",
            "done long",
            "end completed"
        ]
    );
    assert!(report.unassigned.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_output_that_a_change_leaves_as_it_was_ends_the_recomputation() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("long", &["b"])]);
    let scenario = slow(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::bytes("always the same").after(seconds(1)));
    run_and_set(&scenario, 15, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 3",
            "start a",
            "done a",
            "start b",
            "done b",
            "start long",
            "change raw",
            "invalid a<raw",
            "invalid b<raw",
            "invalid long<raw",
            "start a",
            "done a",
            "hit b",
            "done long too late",
            "hit long",
            "end completed"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_at_the_very_end_is_part_of_the_run() {
    let tasks = sketch(&[("a", &["raw"])]);
    let scenario = slow(&tasks).await;
    // At the same moment as the end of `a`.
    let report = run_and_set(&scenario, 10, "raw", "new").await;
    assert_eq!(report.state, RunState::Completed);
    assert_like_a_fresh_run(&scenario, &tasks, &[("raw", "new")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_set_again_changes_nothing() {
    let tasks = sketch(&[("a", &["raw"])]);
    let scenario = slow(&tasks).await;
    run_and_set(&scenario, 5, "raw", "raw").await;
    assert_eq!(scenario.take_story(), ["begin 1", "start a", "done a", "end completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_what_the_targets_do_not_read_is_ignored() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["other"])]);
    let mut scenario = slow(&tasks).await;
    scenario.options.targets = vec!["a".parse().unwrap()];
    run_and_set(&scenario, 5, "other", "new").await;
    assert_eq!(scenario.take_story(), ["begin 1", "start a", "done a", "end completed"]);
}

#[tokio::test(start_paused = true)]
async fn superseded_work_is_stopped_only_on_request() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["other"])]);
    let mut scenario = slow(&tasks).await;
    scenario.options.restart_on_change = true;
    let report = run_and_set(&scenario, 5, "raw", "new").await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 2",
            "start a",
            "start b",
            "change raw",
            "invalid a<raw",
            "stop a too late",
            "start a",
            "done b",
            "done a",
            "end completed"
        ]
    );
    assert_eq!((report.state, report.summary.wall_ms), (RunState::Completed, 15_000));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_takes_no_changes_in() {
    let tasks = sketch(&[("a", &["raw"])]);
    let scenario = slow(&tasks).await;
    let stop = scenario.options.cancellation.stop.clone();
    scenario.runner.respond_with(task_hash(&tasks[0]), |_| {
        MockResponse::failure(Failure::Exit { code: 1 }).after(seconds(10))
    });
    let then = async {
        tokio::time::sleep(seconds(5)).await;
        stop.cancel();
        scenario.set("raw", "new").await;
    };
    let (report, ()) = tokio::join!(scenario.run(), then);
    assert_eq!(report.state, RunState::Cancelled);
    assert!(!scenario.take_story().iter().any(|word| word.starts_with("change")));
}

/// A runner whose tasks take two seconds to end when they are asked to.
struct SlowToStop(Arc<MockTaskRunner>);

#[async_trait]
impl TaskRunner for SlowToStop {
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        let result = self.0.execute(storage, task, inputs, options).await;
        if result.outcome == Err(Failure::Cancelled) {
            tokio::time::sleep(seconds(2)).await;
        }
        result
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_stops_after_a_failure_takes_no_changes_in_and_names_the_failure() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["other"])]);
    let mut scenario = slow(&tasks).await;
    scenario.options.on_failure = OnFailure::Cancel;
    scenario.options.runner = Arc::new(SlowToStop(Arc::clone(&scenario.runner)));
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::exit(1).after(seconds(1)));
    // While `b` is being stopped, the input that `a` failed on changes.
    let report = run_and_set(&scenario, 2, "raw", "better").await;
    assert_eq!((report.state, report.summary.failed, report.failures.len()), (RunState::Failed, 1, 1));
}
