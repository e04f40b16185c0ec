//! Inputs that are missing when a task is about to use them.

use std::sync::Mutex;

use e3_core::{MockResponse, OnFailure, StorageBackend, TreeEntry, read_tree};
use e3_testkit::{Scenario, TaskSketch, task_hash};
use e3_types::{Failure, Hash, RunState};

use crate::sketch;

/// The first so many calls of a task find its input `input` missing.
fn misses(scenario: &Scenario, task: &TaskSketch, times: usize, input: u32) {
    let left = Mutex::new(times);
    let name = task.name;
    scenario.runner.respond_with(task_hash(task), move |call| {
        let mut left = left.lock().unwrap();
        if *left == 0 {
            return MockResponse::bytes(format!("{name} made"));
        }
        *left -= 1;
        let object = call.inputs[input as usize];
        MockResponse::failure(Failure::InputMissing { input, object, message: "it is gone".to_owned() })
    });
}

#[tokio::test(start_paused = true)]
async fn a_missing_input_is_made_again_inside_the_run() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["b"])]);
    let scenario = Scenario::new(&tasks).await;
    misses(&scenario, &tasks[1], 1, 0);
    let report = scenario.run().await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 3",
            "start a",
            "done a",
            "start b",
            "rebuild a",
            "done b",
            "start c",
            "done c",
            "end completed"
        ]
    );
    assert_eq!((report.summary.executed, report.summary.reexecuted), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_needed_to_make_it_again_is_made_again_too() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["b"])]);
    let scenario = Scenario::new(&tasks).await;
    misses(&scenario, &tasks[2], 1, 0);
    // The first call of `b` is its own, the second one is for `c`.
    let calls = Mutex::new(0);
    scenario.runner.respond_with(task_hash(&tasks[1]), move |call| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        if *calls == 2 {
            let (input, object) = (0, call.inputs[0]);
            return MockResponse::failure(Failure::InputMissing {
                input,
                object,
                message: "gone".to_owned(),
            });
        }
        MockResponse::bytes("b made")
    });
    assert_eq!(scenario.run().await.state, RunState::Completed);
    let story = scenario.take_story();
    assert_eq!(story[5..], ["start c", "rebuild a", "rebuild b", "done c", "end completed"]);
}

#[tokio::test(start_paused = true)]
async fn several_that_need_it_wait_for_one_execution() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["a"])]);
    let scenario = Scenario::new(&tasks).await;
    misses(&scenario, &tasks[1], 1, 0);
    misses(&scenario, &tasks[2], 1, 0);
    assert_eq!(scenario.run().await.state, RunState::Completed);
    let rebuilt = scenario.take_story().iter().filter(|line| *line == "rebuild a").count();
    assert_eq!(rebuilt, 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_mended_fails_and_says_why() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"]), ("c", &["a"]), ("d", &["raw"])]);
    let mut scenario = Scenario::new(&tasks).await;
    scenario.options.on_failure = OnFailure::KeepGoing;
    // Made again, it is missing again; and what nobody made cannot be made again.
    misses(&scenario, &tasks[1], 9, 0);
    misses(&scenario, &tasks[3], 9, 0);
    let report = scenario.run().await;
    assert_eq!((report.state, report.summary.failed, report.summary.executed), (RunState::Failed, 2, 2));
    assert!(report.failures.iter().all(|failed| failed.failure.to_string() == "it is gone"), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_made_again_must_be_the_same() {
    let tasks = sketch(&[("a", &["raw"]), ("b", &["a"])]);
    let scenario = Scenario::new(&tasks).await;
    let calls = Mutex::new(0);
    scenario.runner.respond_with(task_hash(&tasks[0]), move |_| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        MockResponse::bytes(format!("call {calls}"))
    });
    misses(&scenario, &tasks[1], 1, 0);
    let report = scenario.run().await;
    let message = report.failures[0].failure.to_string();
    assert!(message.contains("`a` does not make the same again"), "{message}");
    // The next run starts from what there is now.
    assert_eq!(scenario.run().await.state, RunState::Completed);
}

#[tokio::test(start_paused = true)]
async fn the_output_of_an_entry_and_the_folder_of_all_are_made_again() {
    let tasks = [
        TaskSketch { each: Some("photos"), ..TaskSketch::new("small", &["photos"]) },
        TaskSketch::new("all", &["small"]),
    ];
    let mut scenario = Scenario::new(&tasks).await;
    scenario.set_folder("photos", &[("a", "1"), ("b", "2")]).await;
    scenario.run().await;
    scenario.take_story();
    let folder = scenario.value("main", "small").await.unwrap().object;
    let entries = read_tree(scenario.storage.objects(), &folder).await.unwrap();
    let Some((_, TreeEntry::File(of_b))) = entries.into_iter().find(|(path, _)| path.ends_with("b")) else {
        panic!("the folder has an entry b");
    };
    let missing = Mutex::new(vec![folder.hash, of_b.object.hash]);
    let all = scenario.package(&tasks).await.tasks["all"].task;
    scenario.runner.respond_with(all, move |_| {
        missing.lock().unwrap().pop().map_or_else(
            || MockResponse::bytes("all"),
            |object: Hash| {
                MockResponse::failure(Failure::InputMissing { input: 0, object, message: "gone".to_owned() })
            },
        )
    });
    scenario.options.force = e3_core::Force::Matching(vec!["all".parse().unwrap()]);
    assert_eq!(scenario.run().await.state, RunState::Completed);
    let story = scenario.take_story();
    assert!(story.contains(&"rebuild small[b]".to_owned()), "{story:?}");
}
