//! Runs after a complete one: they take over what nothing has happened to, and what they come to is what a run would that asks
//! about everything.

use e3_core::{
    Force, MockResponse, ObjectStoreExt, OnFailure, RunReport, Scan, StorageBackend, datasets, history,
    operations, runs_difference, workspaces,
};
use e3_testkit::{Scenario, TaskSketch, task_hash};
use e3_types::{EventKind, Failure, RunState, Timestamp};
use proptest::prelude::*;

use crate::{random, seconds, sketch};

const ANY_TIME: u64 = u64::MAX;

/// Two inputs and what comes of them, side by side and together.
fn tasks() -> Vec<TaskSketch> {
    sketch(&[("a", &["left"]), ("b", &["a"]), ("c", &["right"]), ("d", &["b", "c"]), ("e", &["right"])])
}

async fn complete(tasks: &[TaskSketch]) -> Scenario {
    let scenario = Scenario::new(tasks).await;
    assert_eq!(scenario.run().await.state, RunState::Completed);
    scenario.take_events();
    scenario
}

/// How many tasks stood when the last run began.
fn stood(scenario: &Scenario) -> u64 {
    let events = scenario.take_events();
    let standing = |kind: &EventKind| match kind {
        EventKind::RunStarted { standing, .. } => Some(*standing),
        _ => None,
    };
    events.iter().find_map(|event| standing(&event.kind)).unwrap()
}

async fn delete_output(scenario: &Scenario, task: &str) {
    let output = scenario.value("main", task).await.unwrap().object.hash;
    let any_time = Timestamp::from_unix_ms(ANY_TIME);
    assert_eq!(scenario.storage.objects().delete_many(&[output], any_time).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_what_a_change_reaches_is_asked_about() {
    let scenario = complete(&tasks()).await;
    scenario.set("left", "new").await;
    let report = scenario.run().await;
    assert_eq!((report.summary.total, report.summary.cached, report.summary.executed), (5, 2, 3));
    let story = scenario.take_story();
    assert_eq!(
        story,
        ["begin 5", "start a", "done a", "start b", "done b", "start d", "done d", "end completed"]
    );
    // Back, which is known, and on from there.
    scenario.set("left", "left").await;
    assert_eq!(scenario.run().await.summary.cached, 5);
    assert_eq!(scenario.take_story(), ["begin 5", "hit a", "hit b", "hit d", "end completed"]);
    scenario.set("right", "new").await;
    assert_eq!(scenario.run().await.summary.executed, 3);
    assert_eq!(stood(&scenario), 2);
    for task in ["a", "b", "c", "d", "e"] {
        scenario.vector(task).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_output_that_stays_the_same_stops_a_change_there() {
    let tasks = tasks();
    let scenario = complete(&tasks).await;
    let b = scenario.storage.objects();
    let before = scenario.value("main", "a").await.unwrap().object;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::object(before));
    scenario.set("left", "new").await;
    assert_eq!(scenario.run().await.summary.executed, 1);
    assert_eq!(scenario.take_story(), ["begin 5", "start a", "done a", "hit b", "hit d", "end completed"]);
    assert_eq!(b.stat(&before.hash).await.unwrap(), Some(before.size));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_fails_leaves_the_rest_standing() {
    let tasks = tasks();
    let scenario = complete(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::exit(1));
    scenario.set("left", "new").await;
    for _ in 0..2 {
        assert_eq!(scenario.run().await.state, RunState::Failed);
        assert_eq!(stood(&scenario), 2);
    }
    scenario.set("right", "new").await;
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::bytes("mended"));
    assert_eq!(scenario.run().await.state, RunState::Completed);
    assert_eq!(stood(&scenario), 0, "both inputs have changed since the last complete run");
    scenario.run().await;
    assert_eq!(stood(&scenario), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_set_during_a_run_reaches_what_stands() {
    let tasks = tasks();
    let scenario = complete(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::bytes("slow").after(seconds(10)));
    scenario.set("left", "new").await;
    let set = async {
        tokio::time::sleep(seconds(5)).await;
        scenario.set("right", "newer").await;
    };
    let (report, ()) = tokio::join!(scenario.run(), set);
    assert_eq!((report.state, report.summary.executed, report.summary.cached), (RunState::Completed, 5, 0));
    let story = scenario.take_story();
    for invalid in ["invalid c<right", "invalid e<right"] {
        assert!(story.iter().any(|word| word == invalid), "{story:?}");
    }
    for task in &tasks {
        scenario.vector(task.name).await;
    }
    scenario.run().await;
    assert_eq!(stood(&scenario), 5);
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_the_same_after_all_is_not_published_again() {
    let tasks = tasks();
    let scenario = complete(&tasks).await;
    for slow in [&tasks[0], &tasks[2]] {
        scenario.runner.respond(task_hash(slow), MockResponse::bytes("slow").after(seconds(10)));
    }
    scenario.set("left", "new").await;
    let set = async {
        for text in ["newer", "right"] {
            tokio::time::sleep(seconds(2)).await;
            scenario.set("right", text).await;
        }
    };
    let (report, ()) = tokio::join!(scenario.run(), set);
    assert_eq!(report.state, RunState::Completed);
    let (main, c) = ("main".parse().unwrap(), "c".parse().unwrap());
    let entries = history::list(&*scenario.storage, &main, &c, None, 10).await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.record.published).count(), 1, "{entries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_misses_an_object_is_the_last_to_stand() {
    let tasks = tasks();
    let scenario = complete(&tasks).await;
    let missing = scenario.value("main", "left").await.unwrap().object.hash;
    let failure = Failure::InputMissing { input: 0, object: missing, message: "it is not there".to_owned() };
    scenario.runner.respond(task_hash(&tasks[0]), MockResponse::failure(failure));
    scenario.set("left", "new").await;
    assert_eq!(scenario.run().await.state, RunState::Failed);
    assert_eq!(stood(&scenario), 2);
    assert_eq!(scenario.run().await.state, RunState::Failed);
    assert_eq!(stood(&scenario), 0);
}

#[tokio::test(start_paused = true)]
async fn what_stood_is_part_of_a_run_when_two_are_compared() {
    let mut tasks = tasks();
    tasks.push(TaskSketch { each: Some("folder"), ..TaskSketch::new("each", &["folder"]) });
    let scenario = Scenario::new(&tasks).await;
    scenario.set_folder("folder", &[("x", "1"), ("y", "2")]).await;
    let first = scenario.run().await.run;
    scenario.set("left", "new").await;
    let second = scenario.run().await.run;
    let third = scenario.run().await.run;
    scenario.set("left", "left").await;
    let fourth = scenario.run().await.run;
    let compare = async |one, other| {
        let found = runs_difference(&*scenario.storage, one, other).await.unwrap();
        (found.same, found.tasks.into_keys().collect::<Vec<_>>().join(" "))
    };
    // Two tasks stand, and one has two entries and the folder of what they made.
    assert_eq!(compare(first, second).await, (5, "a b d".to_owned()));
    assert_eq!(compare(second, first).await, (5, "a b d".to_owned()));
    assert_eq!(compare(second, third).await, (6, String::new()));
    assert_eq!(compare(first, third).await, (3, "a b d".to_owned()));
    assert_eq!(compare(first, fourth).await, (8, String::new()));
    assert_eq!(compare(third, fourth).await, (3, "a b d".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nothing_stands_on_an_object_that_is_gone() {
    let scenario = complete(&tasks()).await;
    scenario.set("left", "new").await;
    delete_output(&scenario, "e").await;
    let report = scenario.run().await;
    assert_eq!((report.summary.executed, stood(&scenario)), (4, 0));
    // An object of a task, or an input, is as good as an output.
    let inputs = ["left", "right"].map(|input| scenario.value("main", input));
    let [_, right] = futures::future::join_all(inputs).await.try_into().unwrap();
    let any_time = Timestamp::from_unix_ms(ANY_TIME);
    for object in [task_hash(&tasks()[4]), right.unwrap().object.hash] {
        let bytes = scenario.storage.objects().get_bytes(&object, 1 << 20).await.unwrap();
        scenario.set("left", &format!("without {object}")).await;
        scenario.storage.objects().delete_many(&[object], any_time).await.unwrap();
        scenario.run().await;
        assert_eq!(stood(&scenario), 0);
        scenario.storage.objects().put_bytes(bytes).await.unwrap();
        scenario.run().await;
        scenario.take_events();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_something_that_goes_while_the_run_is_under_way_is_asked_about_the_next_time() {
    let tasks = tasks();
    let scenario = complete(&tasks).await;
    let storage = scenario.storage.clone();
    let gone = scenario.value("main", "e").await.unwrap().object.hash;
    scenario.runner.respond_with(task_hash(&tasks[0]), move |_| {
        let deleted =
            storage.objects().delete_many(std::slice::from_ref(&gone), Timestamp::from_unix_ms(ANY_TIME));
        assert_eq!(futures::FutureExt::now_or_never(deleted).unwrap().unwrap(), 1);
        MockResponse::bytes("made meanwhile")
    });
    scenario.set("left", "new").await;
    assert_eq!(scenario.run().await.state, RunState::Completed);
    assert_eq!(stood(&scenario), 2);
    let report = scenario.run().await;
    assert_eq!((stood(&scenario), report.summary.executed), (0, 1), "e is made again");
}

#[tokio::test(start_paused = true)]
async fn a_forced_run_and_another_package_forget_what_stands() {
    let tasks = tasks();
    let mut scenario = complete(&tasks).await;
    scenario.runner.respond(task_hash(&tasks[2]), MockResponse::bytes("another"));
    scenario.options.force = Force::Matching(vec!["c".parse().unwrap()]);
    scenario.options.targets = vec!["c".parse().unwrap()];
    assert_eq!(scenario.run().await.summary.executed, 1);
    scenario.options.force = Force::Nothing;
    scenario.options.targets = Vec::new();
    scenario.take_events();
    scenario.set("left", "new").await;
    scenario.run().await;
    assert_eq!(stood(&scenario), 0);
    scenario.vector("d").await;

    // The same inputs, and one output less.
    scenario.deploy("main", &tasks[..4]).await;
    scenario.deploy("main", &tasks).await;
    scenario.set("left", "newer").await;
    scenario.run().await;
    assert_eq!(stood(&scenario), 0, "another package was there meanwhile");
    for task in &tasks {
        scenario.vector(task.name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_input_that_is_taken_away_blocks_what_reads_it() {
    let tasks = sketch(&[("a", &["unassigned_x"]), ("b", &["right"]), ("c", &["a", "b"])]);
    let scenario = Scenario::new(&tasks).await;
    scenario.set("unassigned_x", "there").await;
    assert_eq!(scenario.run().await.state, RunState::Completed);
    operations::undo(&*scenario.storage, &*scenario.clock, &"main".parse().unwrap()).await.unwrap();
    scenario.take_events();
    let report = scenario.run().await;
    assert_eq!((report.state, report.summary.blocked), (RunState::Failed, 2));
    assert_eq!(
        scenario.take_story(),
        ["begin 3", "block a<unassigned_x", "block c<unassigned_x", "end failed"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_runs_once_per_entry_and_what_reads_it_is_always_asked_about() {
    let mut tasks = sketch(&[("each", &["folder"]), ("after", &["each"]), ("beside", &["right"])]);
    tasks[0].each = Some("folder");
    let scenario = Scenario::new(&tasks).await;
    scenario.set_folder("folder", &[("x", "1"), ("y", "2")]).await;
    assert_eq!(scenario.run().await.summary.executed, 4);
    scenario.take_events();
    scenario.set_folder("folder", &[("x", "1"), ("y", "3")]).await;
    let report = scenario.run().await;
    assert_eq!((report.summary.executed, report.summary.cached, stood(&scenario)), (2, 2, 1));
    scenario.set("right", "new").await;
    let report = scenario.run().await;
    assert_eq!((report.summary.executed, report.summary.cached, stood(&scenario)), (1, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_does_not_stand() {
    let scenario = complete(&tasks()).await;
    let refs = scenario.storage.refs();
    let kept = refs.scan(Scan::under(&[&"standing", &"main"])).await.unwrap();
    assert_eq!(kept.len(), 3, "{kept:?}");
    for (name, value) in kept {
        for damaged in [None, Some(value.slice(..value.len() / 2)), Some("{}".into()), Some("".into())] {
            let change = match damaged {
                Some(bytes) => e3_core::RefChange::set(name.clone(), bytes),
                None => e3_core::RefChange::remove(name.clone()),
            };
            refs.write(vec![change]).await.unwrap();
            scenario.set("left", &format!("{name} {}", scenario.runner.calls().len())).await;
            assert_eq!(scenario.run().await.summary.executed, 3);
            assert_eq!(stood(&scenario), 0, "{name}");
            // It is written again.
            scenario.set("right", &format!("{name} {}", scenario.runner.calls().len())).await;
            scenario.run().await;
            assert_eq!(stood(&scenario), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_workspace_that_is_removed_leaves_nothing_of_this() {
    let scenario = complete(&tasks()).await;
    let (storage, main) = (&*scenario.storage, "main".parse().unwrap());
    let lease = e3_core::WorkspaceLease::acquire(storage, &main, &e3_testkit::holder(7)).await.unwrap();
    workspaces::remove(storage, &lease).await.unwrap();
    for kind in ["standing", "settled", "followed", "looks"] {
        assert_eq!(storage.refs().scan(Scan::under(&[&kind])).await.unwrap(), [], "{kind}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set {
        root: usize,
        value: u8,
    },
    Delete {
        task: usize,
    },
    Run,
    RunAndSet {
        root: usize,
        value: u8,
        after: u64,
    },
    Fail {
        task: usize,
    },
    Force {
        task: usize,
    },
    Target {
        task: usize,
    },
    /// Another workspace executes a task again, which makes something else this time.
    Elsewhere {
        task: usize,
    },
    Redeploy {
        run: bool,
    },
    Undo,
}

const ROOTS: [&str; 3] = ["r0", "r1", "r2"];
const NAMES: [&str; 7] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (root, task, value) = (0..ROOTS.len(), 0..NAMES.len(), 0_u8..3);
    let step = prop_oneof![
        4 => (root.clone(), value.clone()).prop_map(|(root, value)| Step::Set { root, value }),
        4 => Just(Step::Run),
        2 => (root, value, 0_u64..40).prop_map(|(root, value, after)| Step::RunAndSet { root, value, after }),
        1 => task.clone().prop_map(|task| Step::Delete { task }),
        1 => task.clone().prop_map(|task| Step::Fail { task }),
        1 => task.clone().prop_map(|task| Step::Force { task }),
        1 => task.clone().prop_map(|task| Step::Target { task }),
        1 => task.prop_map(|task| Step::Elsewhere { task }),
        1 => any::<bool>().prop_map(|run| Step::Redeploy { run }),
        1 => Just(Step::Undo),
    ];
    prop::collection::vec(step, 1..25)
}

/// What every complete run comes to: each output is made of what its task reads now, and is there.
async fn check(scenario: &Scenario, tasks: &[TaskSketch], report: &RunReport) {
    if report.state != RunState::Completed {
        scenario.take_events();
        return;
    }
    let mut told = std::collections::BTreeSet::new();
    let mut standing = 0;
    for event in scenario.take_events() {
        match event.kind {
            EventKind::RunStarted { standing: stood, .. } => standing = stood,
            EventKind::TaskCompleted { task, .. } => {
                told.insert(task);
            }
            _ => {}
        }
    }
    assert!(standing + told.len() as u64 >= tasks.len() as u64, "nothing is said of some tasks");
    assert_eq!(report.summary.cached + report.summary.executed, tasks.len() as u64);
    for task in tasks {
        scenario.vector(task.name).await;
        let value = scenario.value("main", task.name).await.unwrap().object;
        assert_eq!(scenario.storage.objects().stat(&value.hash).await.unwrap(), Some(value.size));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_has_happened_a_complete_run_leaves_everything_current(
        reads in prop::collection::vec(prop::collection::btree_set(0..ROOTS.len() + NAMES.len(), 1..4), 2..NAMES.len()),
        steps in steps(),
    ) {
        let tasks = random(&reads, &ROOTS, &NAMES);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut scenario = Scenario::new(&tasks).await;
            let mut others = tasks.clone();
            others.pop();
            let is_root = |root: &str| tasks.iter().any(|task| task.inputs.contains(&root));
            let mut counter = 0;
            for step in &steps {
                match *step {
                    Step::Set { root, value } if is_root(ROOTS[root]) => {
                        scenario.set(ROOTS[root], &value.to_string()).await;
                    }
                    Step::Delete { task } if task < tasks.len() => {
                        if let Some(value) = scenario.value("main", NAMES[task]).await {
                            let any_time = Timestamp::from_unix_ms(ANY_TIME);
                            scenario.storage.objects().delete_many(&[value.object.hash], any_time).await.unwrap();
                        }
                    }
                    Step::Run => {
                        let report = scenario.run().await;
                        check(&scenario, &tasks, &report).await;
                    }
                    Step::RunAndSet { root, value, after } if is_root(ROOTS[root]) => {
                        scenario.runner.respond_by_default(|call| {
                            let inputs: Vec<_> = call.inputs.iter().map(ToString::to_string).collect();
                            MockResponse::bytes(format!("{} of {}", call.task, inputs.join(" "))).after(seconds(10))
                        });
                        let set = async {
                            tokio::time::sleep(seconds(after)).await;
                            scenario.set(ROOTS[root], &value.to_string()).await;
                        };
                        let (report, ()) = tokio::join!(scenario.run(), set);
                        // What was set after its end is for the next one.
                        if report.operation == operations::head(&*scenario.storage, &"main".parse().unwrap()).await.unwrap() {
                            check(&scenario, &tasks, &report).await;
                        }
                        scenario.take_events();
                    }
                    Step::Fail { task } if task < tasks.len() => {
                        scenario.runner.respond(task_hash(&tasks[task]), MockResponse::exit(1));
                        scenario.options.on_failure = OnFailure::KeepGoing;
                        scenario.run().await;
                        scenario.runner.respond_with(task_hash(&tasks[task]), |call| {
                            let inputs: Vec<_> = call.inputs.iter().map(ToString::to_string).collect();
                            MockResponse::bytes(format!("{} of {}", call.task, inputs.join(" ")))
                        });
                        scenario.take_events();
                    }
                    Step::Force { task } | Step::Target { task } | Step::Elsewhere { task } if task < tasks.len() => {
                        counter += 1;
                        let workspace = if matches!(step, Step::Elsewhere { .. }) { "other" } else { "main" };
                        let options = scenario.options.clone();
                        scenario.options.targets = vec![NAMES[task].parse().unwrap()];
                        if !matches!(step, Step::Target { .. }) {
                            let made = format!("otherwise {counter}");
                            scenario.runner.respond(task_hash(&tasks[task]), MockResponse::bytes(made));
                            scenario.options.force = Force::Matching(vec![NAMES[task].parse().unwrap()]);
                        }
                        if workspace == "other" {
                            scenario.deploy("other", &tasks).await;
                            let here = datasets::read_roots(scenario.storage.refs(), &"main".parse().unwrap()).await.unwrap();
                            let values: Vec<_> = here.iter().map(|(path, value)| datasets::Assignment {
                                path: path.clone(), kind: e3_types::Kind::File, object: value.object,
                            }).collect();
                            datasets::set(
                                &*scenario.storage, &*scenario.clock, &"other".parse().unwrap(), &values, e3_core::Origin::User,
                            ).await.unwrap();
                        }
                        scenario.run_in(workspace).await;
                        scenario.options = options;
                        scenario.take_events();
                    }
                    Step::Redeploy { run } => {
                        scenario.deploy("main", &others).await;
                        if run {
                            scenario.run().await;
                        }
                        scenario.deploy("main", &tasks).await;
                        scenario.take_events();
                    }
                    Step::Undo => {
                        // The first operation is the deployment that made the workspace: that cannot be taken back.
                        let _may_be_refused = operations::undo(&*scenario.storage, &*scenario.clock, &"main".parse().unwrap()).await;
                        scenario.deploy("main", &tasks).await;
                    }
                    _ => {}
                }
            }
            let report = scenario.run().await;
            check(&scenario, &tasks, &report).await;
        });
    }
}
