//! What is asked for ahead of its start: the runner may get ready for it, and nobody else is to know.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use e3_core::{
    MockResponse, MockTaskRunner, OnFailure, StorageBackend, TaskExecuteOptions, TaskResult, TaskRunner,
    dataflow_execute,
};
use e3_testkit::{Faults, FaultyStorage, Scenario, TaskSketch, task_hash};
use e3_types::{Hash, RunState};

use crate::{needs, seconds, sketch};

/// Writes down what is asked for while it is not to be executed yet, and what becomes of that.
struct Watched {
    runner: Arc<MockTaskRunner>,
    seen: Mutex<Vec<String>>,
    /// How long it prepares until it panics, if it does.
    panics: Option<Duration>,
}

impl Watched {
    fn note(&self, what: &str, label: &str) {
        let name = label.trim_start_matches("main/");
        self.seen.lock().unwrap().push(format!("{what} {name}"));
    }
}

#[async_trait]
impl TaskRunner for Watched {
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        let label = options.label.clone();
        if options.is_time() {
            self.note("execute", &label);
        } else {
            self.note("prepare", &label);
            if let Some(after) = self.panics {
                tokio::time::sleep(after).await;
                // Once it has started, that would be its failure.
                assert!(options.is_time(), "no");
            }
            let happened = if options.time_comes().await { "go on with" } else { "forget" };
            self.note(happened, &label);
        }
        self.runner.execute(storage, task, inputs, options).await
    }
}

/// A scenario with tasks of ten seconds and one slot.
async fn watch(tasks: &[TaskSketch], panics: Option<Duration>) -> (Scenario, Arc<Watched>) {
    let mut scenario = Scenario::new(tasks).await;
    scenario.options.slots = NonZeroUsize::MIN;
    scenario.runner.respond_by_default(|call| {
        let inputs: String = call.inputs.iter().map(ToString::to_string).collect();
        MockResponse::bytes(format!("{} {inputs}", call.task)).after(seconds(10))
    });
    let runner = Arc::clone(&scenario.runner);
    let watched = Arc::new(Watched { runner, seen: Mutex::default(), panics });
    scenario.options.runner = Arc::clone(&watched) as _;
    (scenario, watched)
}

fn three() -> Vec<TaskSketch> {
    sketch(&[("a", &["raw"]), ("b", &["raw"]), ("c", &["raw"])])
}

#[tokio::test(start_paused = true)]
async fn as_many_are_prepared_as_there_are_slots_and_each_starts_once() {
    let tasks = three();
    let (scenario, watched) = watch(&tasks, None).await;
    let report = scenario.run().await;
    assert_eq!((report.summary.executed, report.summary.wall_ms), (3, 30_000));
    let expected = ["execute a", "prepare b", "go on with b", "prepare c", "go on with c"];
    assert_eq!(*watched.seen.lock().unwrap(), expected);
    assert_eq!((scenario.called(&tasks), scenario.runner.most_running()), (vec!["a", "b", "c"], 1));
    let story = scenario.take_story().join(", ");
    assert!(story.contains("start a, done a, start b, done b, start c, done c"), "{story}");
}

#[tokio::test(start_paused = true)]
async fn what_was_prepared_is_forgotten_when_nothing_is_started_any_more() {
    let tasks = three();
    for on_failure in [OnFailure::Finish, OnFailure::Cancel] {
        let (mut scenario, watched) = watch(&tasks, None).await;
        scenario.options.on_failure = on_failure;
        scenario.runner.respond(task_hash(&tasks[0]), MockResponse::exit(1).after(seconds(10)));
        let report = scenario.run().await;
        assert_eq!((report.state, report.summary.failed), (RunState::Failed, 1));
        assert_eq!(*watched.seen.lock().unwrap(), ["execute a", "prepare b", "forget b"]);
        assert_eq!(scenario.called(&tasks), ["a"]);
        assert!(!scenario.take_story().iter().any(|word| word.ends_with(" b")), "nothing is said of it");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_prepared_is_forgotten_when_the_run_is_cancelled() {
    let tasks = three();
    let (scenario, watched) = watch(&tasks, None).await;
    let stop = scenario.options.cancellation.stop.clone();
    let (report, ()) = tokio::join!(scenario.run(), async {
        tokio::time::sleep(seconds(5)).await;
        stop.cancel();
    });
    assert_eq!((report.state, report.summary.wall_ms), (RunState::Cancelled, 5000));
    assert_eq!(*watched.seen.lock().unwrap(), ["execute a", "prepare b", "forget b"]);
    assert_eq!(scenario.called(&tasks), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_prepared_for_another_input_is_not_what_starts() {
    let tasks = sketch(&[("a", &["other"]), ("b", &["raw"])]);
    let (scenario, watched) = watch(&tasks, None).await;
    let change = async {
        tokio::time::sleep(seconds(5)).await;
        scenario.set("raw", "new").await;
    };
    let (report, ()) = tokio::join!(scenario.run(), change);
    assert_eq!((report.state, report.summary.executed), (RunState::Completed, 2));
    let calls = scenario.runner.calls();
    assert_eq!(calls.iter().map(|call| call.inputs[0]).next_back(), Some(Hash::of(b"new")));
    assert_eq!(calls.len(), 2);
    let seen = watched.seen.lock().unwrap().clone();
    assert_eq!(seen.iter().filter(|word| *word == "forget b").count(), 1, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn what_lacks_more_than_a_core_is_not_prepared() {
    let tasks = [needs("a", &[("gpu", 1)]), needs("b", &[("gpu", 1)]), needs("c", &[]), needs("d", &[])];
    let (mut scenario, watched) = watch(&tasks, None).await;
    scenario.options.limits = [("gpu".parse().unwrap(), 1)].into();
    assert_eq!(scenario.run().await.summary.executed, 4);
    let seen = watched.seen.lock().unwrap().clone();
    // While `a` has the only one, `b` cannot be the next; but it starts first, as soon as that is free.
    assert_eq!(seen[..4], ["execute a", "prepare c", "execute b", "go on with c"]);

    let tasks = [
        needs("a", &[("gpu", 1)]),
        needs("b", &[]),
        needs("c", &[("gpu", 1)]),
        needs("d", &[("gpu", 1)]),
        needs("e", &[]),
    ];
    let (mut scenario, watched) = watch(&tasks, None).await;
    scenario.options.slots = NonZeroUsize::new(2).unwrap();
    scenario.options.limits = [("gpu".parse().unwrap(), 2)].into();
    assert_eq!(scenario.run().await.summary.executed, 5);
    let seen = watched.seen.lock().unwrap().clone();
    assert_eq!(seen[..4], ["execute a", "execute b", "prepare c", "prepare e"], "`c` takes the second one");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_panics_while_it_prepares_keeps_nobody_waiting() {
    let tasks = three();
    // Also at the moment at which it is to start.
    for after in [0, 5, 10].map(seconds) {
        let (scenario, watched) = watch(&tasks, Some(after)).await;
        let report = tokio::time::timeout(seconds(1000), scenario.run()).await.unwrap();
        assert_eq!(
            (report.state, report.summary.executed),
            (RunState::Completed, 3),
            "{:?}",
            report.failures
        );
        let seen = watched.seen.lock().unwrap().clone();
        assert_eq!(seen, ["execute a", "prepare b", "execute b", "prepare c", "execute c"]);
    }
}

/// A preparation may end while the storage is waited for, and be started before that is heard.
#[tokio::test(start_paused = true)]
async fn what_ended_before_it_was_started_is_executed_then() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["raw"]), ("c", &["a"])]);
    for seed in 0..200 {
        let (scenario, _) =
            watch(&tasks, Some(Duration::from_secs(10) + Duration::from_millis(seed % 50))).await;
        let storage = Arc::clone(&scenario.storage) as Arc<dyn StorageBackend>;
        let slow = Arc::new(FaultyStorage::new(storage, Faults { seed, failures: 0, delay_ms: 50 }));
        let workspace = "main".parse().unwrap();
        let run = dataflow_execute(slow, &workspace, scenario.options.clone());
        let report = tokio::time::timeout(seconds(1000), run).await.expect("nobody is kept waiting").unwrap();
        assert_eq!(
            (report.state, report.summary.executed),
            (RunState::Completed, 3),
            "{:?}",
            report.failures
        );
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_slots_there_are_few_are_prepared() {
    let names: Vec<&'static str> = (0..60).map(|number| &*format!("t{number:02}").leak()).collect();
    let tasks: Vec<_> = names.into_iter().map(|name| TaskSketch::new(name, &["raw"])).collect();
    let (mut scenario, watched) = watch(&tasks, None).await;
    scenario.options.slots = NonZeroUsize::new(20).unwrap();
    assert_eq!(scenario.run().await.summary.executed, 60);
    let seen = watched.seen.lock().unwrap().clone();
    let before = seen.iter().take_while(|word| !word.starts_with("go on"));
    assert_eq!(before.filter(|word| word.starts_with("prepare")).count(), 8);
    assert_eq!(scenario.runner.most_running(), 20);
}
