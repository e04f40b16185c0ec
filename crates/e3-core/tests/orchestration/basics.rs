//! Order, cache, failures, retries, cancellation, targets, lost runs.

use std::{num::NonZeroUsize, sync::Arc};

use e3_core::{
    DataflowError, Force, MockResponse, OnFailure, StorageBackend, WorkspaceError, WorkspaceLease,
    dataflow_execute, runs,
};
use e3_testkit::{Scenario, TaskSketch, holder, task_hash};

use crate::{counts, diamond, seconds, sketch};
use e3_types::{Failure, Hash, ObjectRef, Retry, RetryClass, RunState, RunSummary, TaskPolicy};

#[tokio::test(start_paused = true)]
async fn tasks_run_after_what_they_need_and_events_come_in_order() {
    let tasks = diamond();
    let scenario = Scenario::new(&tasks).await;
    let report = scenario.run().await;
    assert_eq!(report.state, RunState::Completed);
    assert_eq!(counts(report.summary), RunSummary { total: 4, executed: 4, ..RunSummary::default() });
    assert_eq!(scenario.called(&tasks), ["a", "b", "c", "d"]);
    let events = scenario.take_events();
    assert!(events.iter().zip(0..).all(|(event, seq)| event.seq == seq), "sequence numbers have no gap");
    assert!(events.windows(2).all(|pair| pair[0].at <= pair[1].at));
    assert_eq!(
        runs::events(&*scenario.storage, report.run).await.unwrap(),
        events,
        "what was shown was recorded"
    );
}

#[tokio::test(start_paused = true)]
async fn the_story_of_a_run() {
    let scenario = Scenario::new(&diamond()).await;
    scenario.run().await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 4",
            "start a",
            "done a",
            "start b",
            "start c",
            "done b",
            "done c",
            "start d",
            "done d",
            "end completed"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn independent_tasks_run_in_parallel_up_to_the_limit_and_never_above_it() {
    let tasks: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|name| TaskSketch::new(name, &[])).into();
    for slots in [1, 2, 3, 7, 100] {
        let mut scenario = Scenario::new(&tasks).await;
        scenario.options.slots = NonZeroUsize::new(slots).unwrap();
        scenario
            .runner
            .respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
        let report = scenario.run().await;
        assert_eq!(report.summary.executed, 7);
        assert_eq!(scenario.runner.most_running(), slots.min(7));
        let rounds = 7_u64.div_ceil(slots as u64);
        assert_eq!(report.summary.wall_ms, rounds * 10_000, "{slots} slots are kept busy");
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_remaining_path_starts_first_and_ties_go_by_name() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["raw"]), ("z", &["raw"]), ("y", &["z"]), ("x", &["y"])]);
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.slots = NonZeroUsize::MIN;
    scenario.run().await;
    assert_eq!(scenario.called(&tasks), ["z", "y", "a", "b", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_run_executes_nothing_and_says_what_the_cache_saved() {
    let scenario = Scenario::new(&diamond()).await;
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(3)));
    let first = scenario.run().await;
    let calls = scenario.runner.calls().len();
    scenario.take_events();
    let second = scenario.run().await;
    assert_eq!(scenario.runner.calls().len(), calls, "the runner is not even asked");
    assert_eq!(counts(second.summary), RunSummary { total: 4, cached: 4, ..RunSummary::default() });
    assert_eq!(second.summary.saved_ms, 12_000);
    assert_eq!(second.summary.wall_ms, 0);
    assert_ne!(first.run, second.run);
    assert_eq!(scenario.take_story(), ["begin 4", "end completed"]);
    let recorded = runs::events(&*scenario.storage, second.run).await.unwrap();
    assert_eq!(recorded.len(), 2, "what was shown was recorded");
}

#[tokio::test(start_paused = true)]
async fn the_runner_gets_the_task_and_the_hashes_of_its_inputs_in_its_order() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a", "raw", "a"])]);
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::bytes("made by a"));
    scenario.run().await;
    let calls = scenario.runner.calls();
    let (raw, made) = (Hash::of(b"raw"), Hash::of(b"made by a"));
    assert_eq!((calls[0].task, &calls[0].inputs[..]), (task_hash(&tasks[0]), &[raw][..]));
    assert_eq!((calls[1].task, &calls[1].inputs[..]), (task_hash(&tasks[1]), &[made, raw, made][..]));
    assert!(!calls[0].force);
    assert_eq!(calls[0].attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_skips_exactly_its_transitive_dependents_and_names_the_cause() {
    let tasks = sketch(&[
        ("a", &["raw"]),
        ("b", &["a"]),
        ("c", &["b"]),
        ("d", &["c", "e"]),
        ("e", &["raw"]),
        ("f", &["e"]),
    ]);
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.on_failure = OnFailure::KeepGoing;
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::exit(3));
    let report = scenario.run().await;
    assert_eq!(report.state, RunState::Failed);
    let expected = RunSummary { total: 6, executed: 3, failed: 1, skipped: 2, ..RunSummary::default() };
    assert_eq!(counts(report.summary), expected);
    assert_eq!(report.failures.len(), 1);
    assert_eq!(report.failures[0].task.as_str(), "b");
    assert_eq!(report.failures[0].failure, Failure::Exit { code: 3 });
    let story = scenario.take_story();
    let skipped: Vec<_> = story.iter().filter(|word| word.starts_with("skip")).collect();
    assert_eq!(skipped, ["skip c<b", "skip d<b"]);
    assert!(scenario.value("main", "f").await.is_some());
    assert!(scenario.value("main", "d").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn by_default_nothing_new_starts_after_a_failure_and_what_runs_is_finished() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["raw"]), ("c", &["raw"]), ("d", &["raw"])]);
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(5)));
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::exit(1).after(seconds(1)));
    let report = scenario.run().await;
    assert_eq!(scenario.take_story(), ["begin 4", "start a", "start b", "fail a", "done b", "end failed"]);
    assert_eq!(
        counts(report.summary),
        RunSummary { total: 4, executed: 1, failed: 1, ..RunSummary::default() }
    );
}

#[tokio::test(start_paused = true)]
async fn fail_fast_cancels_what_runs() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["raw"]), ("c", &["raw"])]);
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.on_failure = OnFailure::Cancel;
    scenario
        .runner
        .respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(1000)));
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::exit(1).after(seconds(1)));
    let report = scenario.run().await;
    assert_eq!(scenario.take_story(), ["begin 3", "start a", "start b", "fail a", "stop b", "end failed"]);
    assert_eq!((report.state, report.summary.wall_ms), (RunState::Failed, 1000));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_as_one() {
    let tasks = diamond();
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::error("no such command"));
    let report = scenario.run().await;
    assert_eq!(report.failures[0].failure.to_string(), "no such command");
    let expected = RunSummary { total: 4, failed: 1, skipped: 3, ..RunSummary::default() };
    assert_eq!(counts(report.summary), expected);
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_tried_again_by_the_next_run_and_the_others_are_known() {
    let tasks = diamond();
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::exit(1));
    scenario.run().await;
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::bytes("mended"));
    scenario.take_events();
    let report = scenario.run().await;
    let expected = RunSummary { total: 4, executed: 2, cached: 2, ..RunSummary::default() };
    assert_eq!(counts(report.summary), expected, "c was running when b failed, so it was finished");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_before_it_begins_starts_nothing() {
    let scenario = Scenario::new(&diamond()).await;
    scenario.options.cancellation.stop.cancel();
    let report = scenario.run().await;
    assert_eq!(report.state, RunState::Cancelled);
    assert!(scenario.runner.calls().is_empty());
    assert_eq!(scenario.take_story(), ["begin 4", "end cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_stops_what_runs_and_goes_on_where_it_was() {
    let tasks = diamond();
    let mut scenario = Scenario::new(&tasks).await;
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
    let stop = scenario.options.cancellation.stop.clone();
    let (report, ()) = tokio::join!(scenario.run(), async {
        tokio::time::sleep(seconds(15)).await;
        stop.cancel();
    });
    assert_eq!((report.state, report.summary.wall_ms), (RunState::Cancelled, 15_000));
    let mut story = scenario.take_story();
    story[5..7].sort(); // Both are told at once; which one answers first is nobody's promise.
    assert_eq!(
        story,
        ["begin 4", "start a", "done a", "start b", "start c", "stop b", "stop c", "end cancelled"]
    );
    scenario.options.cancellation = e3_core::Cancellation::default();
    let report = scenario.run().await;
    assert_eq!(
        counts(report.summary),
        RunSummary { total: 4, executed: 3, cached: 1, ..RunSummary::default() }
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_also_reaches_a_run_that_is_finishing_after_a_failure() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["raw"])]);
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::exit(1));
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::bytes("b").after(seconds(1000)));
    let stop = scenario.options.cancellation.stop.clone();
    let (report, ()) = tokio::join!(scenario.run(), async {
        tokio::time::sleep(seconds(5)).await;
        stop.cancel();
    });
    assert_eq!((report.state, report.summary.wall_ms), (RunState::Cancelled, 5000));
}

#[tokio::test(start_paused = true)]
async fn an_output_that_stays_the_same_triggers_nothing_downstream() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["b"])]);
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::bytes("always the same"));
    scenario.run().await;
    scenario.set("raw", "another value").await;
    scenario.take_events();
    let report = scenario.run().await;
    assert_eq!(scenario.take_story(), ["begin 3", "start a", "done a", "hit b", "hit c", "end completed"]);
    assert_eq!(report.summary.executed, 1);
    let raw = scenario.value("main", "raw").await.unwrap().object.hash;
    assert_eq!(
        scenario.vector("c").await,
        [("raw".to_owned(), raw)],
        "and yet it is derived from the new value"
    );
}

#[tokio::test(start_paused = true)]
async fn changing_an_input_back_executes_nothing() {
    let scenario = Scenario::new(&diamond()).await;
    scenario.run().await;
    scenario.set("raw", "another value").await;
    assert_eq!(scenario.run().await.summary.executed, 4);
    scenario.set("raw", "raw").await;
    assert_eq!(scenario.run().await.summary.executed, 0);
}

#[tokio::test(start_paused = true)]
async fn two_workspaces_at_once_share_the_cache_and_execute_a_common_task_once() {
    let tasks = diamond();
    let scenario = Scenario::new(&tasks).await;
    scenario.deploy("other", &tasks).await;
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(1)));
    let (one, other) = tokio::join!(scenario.run(), scenario.run_in("other"));
    assert_eq!((one.state, other.state), (RunState::Completed, RunState::Completed));
    assert_eq!(one.summary.executed + other.summary.executed, 4, "each task once");
    assert_eq!(one.summary.cached + other.summary.cached, 4);
    assert_eq!(
        scenario.value("main", "d").await.unwrap().object,
        scenario.value("other", "d").await.unwrap().object
    );
}

#[tokio::test(start_paused = true)]
async fn at_most_one_run_of_a_workspace_and_the_second_is_told_who_has_it() {
    let scenario = Scenario::new(&diamond()).await;
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(1)));
    let storage = || Arc::clone(&scenario.storage) as Arc<dyn StorageBackend>;
    let main = "main".parse().unwrap();
    let mut options = scenario.options.clone();
    options.holder = holder(2);
    let second = dataflow_execute(storage(), &main, options);
    let (first, second) = tokio::join!(scenario.run(), second);
    assert_eq!(first.state, RunState::Completed);
    let Err(DataflowError::Workspace(WorkspaceError::Held { holders, .. })) = second else {
        panic!("{second:?}")
    };
    assert_eq!(holders, [holder(1)]);
    assert_eq!(scenario.run().await.summary.cached, 4, "and then it is free");
}

#[tokio::test(start_paused = true)]
async fn an_unassigned_input_blocks_what_needs_it_and_the_rest_runs() {
    let tasks = sketch(&[("a", &["unassigned"]), ("b", &["a"]), ("c", &["raw"])]);
    let scenario = Scenario::new(&tasks).await;
    let report = scenario.run().await;
    assert_eq!(report.state, RunState::Failed);
    assert_eq!(
        counts(report.summary),
        RunSummary { total: 3, executed: 1, blocked: 2, ..RunSummary::default() }
    );
    assert_eq!(
        report.unassigned.iter().map(e3_types::DatasetPath::as_str).collect::<Vec<_>>(),
        ["unassigned"]
    );
    assert!(scenario.take_story().contains(&"block b<unassigned".to_owned()));
    scenario.set("unassigned", "now it has a value").await;
    assert_eq!(scenario.run().await.state, RunState::Completed);
}

#[tokio::test(start_paused = true)]
async fn failures_of_a_class_are_tried_again_after_a_growing_wait() {
    let on = vec![RetryClass::Exit(Some(75))];
    let policy =
        TaskPolicy { retries: Some(Retry { max: 2, backoff_ms: 1000, on }), ..TaskPolicy::default() };
    let tasks = [TaskSketch { policy, ..TaskSketch::new("a", &["raw"]) }];
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond_with(task_hash(&tasks[0]), |call| match call.attempt {
        1 | 2 => MockResponse::exit(75),
        _ => MockResponse::bytes("third time lucky"),
    });
    let report = scenario.run().await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 1",
            "start a",
            "retry a in 1000",
            "start a #2",
            "retry a in 2000",
            "start a #3",
            "done a",
            "end completed"
        ]
    );
    assert_eq!((report.state, report.summary.wall_ms), (RunState::Completed, 3000));

    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::exit(1));
    scenario.set("raw", "another value").await;
    assert_eq!(scenario.run().await.failures[0].attempt, 1, "another class is not tried again");
}

#[tokio::test(start_paused = true)]
async fn forced_tasks_are_executed_and_so_are_those_that_are_never_cached() {
    let never = TaskPolicy { cache: false, ..TaskPolicy::default() };
    let mut tasks = diamond();
    tasks[2].policy = never;
    let mut scenario = Scenario::new(&tasks).await;
    scenario.run().await;
    scenario.take_events();
    scenario.run().await;
    assert_eq!(
        scenario.take_story(),
        ["begin 4", "hit a", "hit b", "start c", "done c", "hit d", "end completed"],
        "what depends on it is decided by content"
    );
    scenario.options.force = Force::Matching(vec!["[ab]".parse().unwrap()]);
    assert_eq!(scenario.run().await.summary.executed, 3);
    scenario.options.force = Force::Everything;
    assert_eq!(scenario.run().await.summary.executed, 4);
}

#[tokio::test(start_paused = true)]
async fn targets_select_tasks_and_all_that_they_need() {
    let tasks = diamond();
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.targets = vec!["b".parse().unwrap()];
    assert_eq!(scenario.run().await.summary.total, 2);
    assert_eq!(scenario.called(&tasks), ["a", "b"]);
    scenario.options.targets = vec!["[cd]".parse().unwrap()];
    assert_eq!(
        counts(scenario.run().await.summary),
        RunSummary { total: 4, executed: 2, cached: 2, ..RunSummary::default() }
    );
    scenario.options.targets = vec!["nothing*".parse().unwrap()];
    let storage = Arc::clone(&scenario.storage) as Arc<dyn StorageBackend>;
    let error =
        dataflow_execute(storage, &"main".parse().unwrap(), scenario.options.clone()).await.unwrap_err();
    assert!(matches!(&error, DataflowError::NoMatch { pattern, .. } if pattern == "nothing*"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn outputs_carry_the_versions_of_the_roots_that_they_come_from() {
    let tasks = sketch(&[("a", &["x"]), ("b", &["y"]), ("c", &["a", "b"]), ("d", &["a"])]);
    let scenario = Scenario::new(&tasks).await;
    scenario.run().await;
    let (x, y) = (("x".to_owned(), Hash::of(b"x")), ("y".to_owned(), Hash::of(b"y")));
    assert_eq!(scenario.vector("c").await, [x.clone(), y]);
    assert_eq!(scenario.vector("d").await, std::slice::from_ref(&x));
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_process_died_is_recorded_as_lost_and_the_next_one_goes_on() {
    let scenario = Scenario::new(&diamond()).await;
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
    // A future that is dropped in the middle leaves what a killed process leaves.
    tokio::select! {
        _ = scenario.run() => panic!("it takes 30 s"),
        () = tokio::time::sleep(seconds(15)) => {}
    }
    let main = "main".parse().unwrap();
    let record = runs::list(&*scenario.storage, &main, None, 1).await.unwrap().remove(0);
    assert_eq!(record.state, RunState::Running, "nobody has looked yet");
    let report = scenario.run().await;
    assert_eq!(report.lost, Some(record.run));
    assert_eq!(
        counts(report.summary),
        RunSummary { total: 4, executed: 3, cached: 1, ..RunSummary::default() }
    );
    let states: Vec<_> =
        runs::list(&*scenario.storage, &main, None, 9).await.unwrap().iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Completed, RunState::Lost], "newest first");
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_finds_a_lost_run_but_never_one_that_is_alive() {
    let scenario = Scenario::new(&diamond()).await;
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
    let main = "main".parse().unwrap();
    let look = || runs::settle_lost(&*scenario.storage, &*scenario.clock, &main, None);
    tokio::select! {
        _ = scenario.run() => panic!("it takes 30 s"),
        () = async {
            tokio::time::sleep(seconds(15)).await;
            assert_eq!(look().await.unwrap(), None, "it is alive");
        } => {}
    }
    assert!(look().await.unwrap().is_some());
    assert_eq!(look().await.unwrap(), None, "once");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_panics_fails_its_task_and_not_the_run() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["raw"])]);
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.on_failure = OnFailure::KeepGoing;
    scenario.runner.respond_with(task_hash(&tasks[0]), |_| panic!("on purpose"));
    let report = scenario.run().await;
    assert_eq!(
        counts(report.summary),
        RunSummary { total: 2, executed: 1, failed: 1, ..RunSummary::default() }
    );
    assert!(report.failures[0].failure.to_string().contains("panicked"), "{:?}", report.failures);
}

#[tokio::test(start_paused = true)]
async fn a_workspace_that_is_held_for_a_deployment_cannot_run() {
    let scenario = Scenario::new(&diamond()).await;
    let main = "main".parse().unwrap();
    let held = WorkspaceLease::acquire(&*scenario.storage, &main, &holder(7)).await.unwrap();
    let storage = || Arc::clone(&scenario.storage) as Arc<dyn StorageBackend>;
    let refused = dataflow_execute(storage(), &main, scenario.options.clone()).await;
    assert!(matches!(refused, Err(DataflowError::Workspace(WorkspaceError::Held { .. }))));
    drop(held);
    assert_eq!(scenario.run().await.state, RunState::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_evicted_output_is_made_again_in_the_same_run() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"])]);
    let scenario = Scenario::new(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::bytes("made by a"));
    scenario.run().await;
    let some_day = e3_types::Timestamp::from_unix_ms(u64::MAX);
    let gone = ObjectRef::of(b"made by a").hash;
    assert_eq!(scenario.storage.objects().delete_many(&[gone], some_day).await.unwrap(), 1);
    scenario.take_events();
    scenario.run().await;
    assert_eq!(scenario.take_story(), ["begin 2", "start a", "done a", "hit b", "end completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_plus_selects_what_depends_on_a_task() {
    let tasks = sketch(&[
        ("a", &["raw"]),
        ("b", &["a"]),
        ("c", &["b", "x"]),
        ("x", &["raw"]),
        ("y", &["x"]),
        ("z", &["y"]),
    ]);
    let selected = async |target: &str| {
        let mut scenario = Scenario::new(&tasks).await;
        scenario.options.targets = vec![target.parse().unwrap()];
        scenario.run().await;
        let mut called = scenario.called(&tasks);
        called.sort_unstable();
        called
    };
    assert_eq!(selected("b").await, ["a", "b"]);
    assert_eq!(selected("+b").await, ["a", "b"]);
    assert_eq!(selected("b+").await, ["a", "b", "c", "x"], "what depends on it, with all that this needs");
    assert_eq!(selected("[yz]+").await, ["x", "y", "z"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_and_missing_memory_are_classes_of_their_own() {
    for (class, failure) in [
        (RetryClass::Lost, Failure::WorkerLost { message: "gone".to_owned() }),
        (RetryClass::OutOfMemory, Failure::OutOfMemory),
        (RetryClass::Timeout, Failure::Timeout { after_ms: 5 }),
        (RetryClass::Signal(Some(9)), Failure::Signal { signal: 9 }),
    ] {
        let retries = Some(Retry { max: 1, backoff_ms: 10, on: vec![class] });
        let tasks = [TaskSketch {
            policy: TaskPolicy { retries, ..TaskPolicy::default() },
            ..TaskSketch::new("a", &[])
        }];
        let scenario = Scenario::new(&tasks).await;
        scenario.runner.respond_with(task_hash(&tasks[0]), move |call| match call.attempt {
            1 => MockResponse::failure(failure.clone()),
            _ => MockResponse::exit(1),
        });
        let report = scenario.run().await;
        assert_eq!(report.failures[0].attempt, 2, "{class}: and another class is not tried a third time");
    }
}
