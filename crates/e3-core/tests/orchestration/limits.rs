//! Cores and other resources: never exceeded, never starved; and the order in which ready tasks start.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use e3_core::{
    DataflowError, LimitedRunner, MockResponse, MockTaskRunner, StorageBackend, TaskExecuteOptions,
    TaskResult, TaskRunner, dataflow_execute,
};
use e3_testkit::{Scenario, TaskSketch, task_hash};
use e3_types::Hash;

use crate::{needs, seconds, sketch};

/// Runs tasks of ten seconds each; returns what ran together at every start, and the wall time in seconds.
async fn together(tasks: &[TaskSketch], slots: usize, limits: &[(&str, u64)]) -> (Vec<String>, u64) {
    let mut scenario = Scenario::new(tasks).await;
    scenario.options.slots = NonZeroUsize::new(slots).unwrap();
    scenario.options.limits = limits.iter().map(|(name, limit)| (name.parse().unwrap(), *limit)).collect();
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
    let report = scenario.run().await;
    let mut running: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    for word in scenario.take_story() {
        if let Some(name) = word.strip_prefix("start ") {
            running.push(name.to_owned());
            running.sort();
            seen.push(running.join("+"));
        } else if let Some(name) = word.strip_prefix("done ") {
            running.retain(|other| other != name);
        }
    }
    (seen, report.summary.wall_ms / 1000)
}

#[tokio::test(start_paused = true)]
async fn a_task_takes_as_many_cores_as_it_says() {
    let tasks =
        [needs("a", &[("cpu", 2)]), needs("b", &[("cpu", 3)]), needs("c", &[]), needs("d", &[("cpu", 4)])];
    let (seen, wall) = together(&tasks, 4, &[]).await;
    assert_eq!(seen, ["a", "b", "b+c", "d"]);
    assert_eq!(wall, 30, "c has to wait with b: else b, which comes first, might wait for ever");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_asks_for_more_cores_than_there_are_gets_all_of_them() {
    let (seen, _) = together(&[needs("a", &[("cpu", 64)]), needs("b", &[])], 2, &[]).await;
    assert_eq!(seen, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_limited_resource_is_never_exceeded_and_the_others_go_on() {
    let license = |name| needs(name, &[("license", 1)]);
    let tasks = [license("a"), license("b"), license("c"), needs("d", &[]), needs("e", &[])];
    let (seen, wall) = together(&tasks, 4, &[("license", 1)]).await;
    assert_eq!(seen, ["a", "a+d", "a+d+e", "b", "c"]);
    assert_eq!(wall, 30);
    let (seen, _) = together(&tasks, 4, &[]).await;
    assert_eq!(seen[3], "a+b+c+d", "what has no limit is not limited");
}

#[tokio::test(start_paused = true)]
async fn a_big_task_is_not_starved_by_small_ones_that_would_always_fit() {
    // `a_big` comes first by name and needs all the memory; the small ones keep coming free one by one.
    let memory = |name, amount| needs(name, &[("memory", amount)]);
    let mut tasks = vec![memory("a0", 1), memory("a_big", 4)];
    for name in ["b", "c", "d", "e", "f"] {
        tasks.push(memory(name, 1));
    }
    let (seen, _) = together(&tasks, 4, &[("memory", 4)]).await;
    assert_eq!(&seen[..3], ["a0", "a_big", "b"], "as soon as a0 is done");
}

#[tokio::test(start_paused = true)]
async fn what_could_never_run_is_refused_before_anything_starts() {
    let tasks = [needs("a", &[]), needs("b", &[("license", 3)])];
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.limits = BTreeMap::from([("license".parse().unwrap(), 2)]);
    let storage = Arc::clone(&scenario.storage) as Arc<dyn StorageBackend>;
    let error =
        dataflow_execute(storage, &"main".parse().unwrap(), scenario.options.clone()).await.unwrap_err();
    assert!(matches!(error, DataflowError::Unsatisfiable { .. }));
    assert_eq!(error.to_string(), "task `b` needs 3 of `license`, but the limit is 2: it could never run");
    assert!(scenario.runner.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_path_that_took_longest_the_last_time_starts_first() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["b"]), ("z", &["raw"])]);
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.slots = NonZeroUsize::MIN;
    scenario.runner.respond(task_hash(&tasks[3]), MockResponse::bytes("z").after(seconds(60)));
    scenario.run().await;
    assert_eq!(scenario.called(&tasks), ["a", "b", "c", "z"], "nothing is known: the path with most tasks");
    scenario.runner.clear_calls();
    scenario.set("raw", "new").await;
    scenario.run().await;
    assert_eq!(
        scenario.called(&tasks),
        ["z", "a", "b", "c"],
        "a minute is longer than three tasks of no time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_limited_runner_executes_only_so_many_at_once_and_stays_a_runner() {
    let tasks: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| TaskSketch::new(name, &[])).into();
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.slots = NonZeroUsize::new(5).unwrap();
    let runner = LimitedRunner::new(Arc::clone(&scenario.runner) as _, NonZeroUsize::new(2).unwrap());
    scenario.options.runner = Arc::new(runner);
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
    let report = scenario.run().await;
    assert_eq!((report.summary.executed, scenario.runner.most_running()), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_ahead_of_its_time_takes_no_place_of_a_limited_runner() {
    // `b` is prepared while `a` runs; but then the longer path through `c` comes first.
    let tasks = sketch(&[("a", &["raw"]), ("b", &["raw"]), ("c", &["a"]), ("d", &["c"])]);
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.slots = NonZeroUsize::MIN;
    scenario.options.runner =
        Arc::new(LimitedRunner::new(Arc::clone(&scenario.runner) as _, NonZeroUsize::MIN));
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
    let report = tokio::time::timeout(seconds(1000), scenario.run()).await.unwrap();
    assert_eq!((report.summary.executed, report.summary.wall_ms), (4, 40_000));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_limited_runner_can_be_cancelled() {
    let tasks: Vec<_> = ["a", "b"].map(|name| TaskSketch::new(name, &[])).into();
    let mut scenario = Scenario::new(&tasks).await;
    let runner = LimitedRunner::new(Arc::clone(&scenario.runner) as _, NonZeroUsize::MIN);
    scenario.options.runner = Arc::new(runner);
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    scenario.runner.respond_by_default(move |call| {
        *count.lock().unwrap() += 1;
        MockResponse::bytes(call.task.to_string()).after(seconds(1000))
    });
    let stop = scenario.options.cancellation.stop.clone();
    let (report, ()) = tokio::join!(scenario.run(), async {
        tokio::time::sleep(seconds(5)).await;
        stop.cancel();
    });
    assert_eq!((report.state, report.summary.wall_ms), (e3_types::RunState::Cancelled, 5000));
    assert_eq!(*seen.lock().unwrap(), 1);
}

/// A runner that takes its time to store what a task has made, and says when it begins to.
struct SlowToStore {
    runner: Arc<MockTaskRunner>,
    /// What it was told: whether anything waited for the room that it gave back.
    waited: Arc<Mutex<Vec<bool>>>,
}

#[async_trait]
impl TaskRunner for SlowToStore {
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        let released = options.released.clone().unwrap();
        let result = self.runner.execute(storage, task, inputs, options).await;
        let waited = released();
        self.waited.lock().unwrap().push(waited);
        tokio::time::sleep(seconds(100)).await;
        result
    }
}

#[tokio::test(start_paused = true)]
async fn the_room_of_a_task_is_used_while_its_output_is_stored_but_not_for_more_than_there_are_slots() {
    let tasks: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| needs(name, &[])).collect();
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.slots = NonZeroUsize::new(1).unwrap();
    scenario.runner.respond_by_default(|call| MockResponse::bytes(call.task.to_string()).after(seconds(10)));
    let waited = Arc::default();
    let runner = SlowToStore { runner: Arc::clone(&scenario.runner), waited: Arc::clone(&waited) };
    scenario.options.runner = Arc::new(runner);
    let report = scenario.run().await;
    assert_eq!((report.summary.executed, scenario.runner.most_running()), (5, 1));
    // `b` runs while `a` is being stored; `c` has to wait until `b` is stored, 120 s after the begin.
    let story = scenario.take_story().join(", ");
    let expected = "start a, start b, done a, done b, start c, start d, done c, done d, start e, done e";
    assert!(story.contains(expected), "{story}");
    assert_eq!(report.summary.wall_ms / 1000, 350);
    assert_eq!(
        *waited.lock().unwrap(),
        [true, true, true, true, false],
        "what waited when each gave back its room"
    );
}
