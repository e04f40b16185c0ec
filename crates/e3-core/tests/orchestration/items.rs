//! Tasks that run once per entry of a folder.

use e3_core::{MockResponse, ObjectStoreExt, OnFailure, StorageBackend};
use e3_testkit::{Scenario, TaskSketch};
use e3_types::{Dir, Failure, RunState, RunSummary};

use crate::{counts, seconds};

/// `small` runs for each of `photos`, `album` reads what comes of it.
fn photos() -> Vec<TaskSketch> {
    vec![
        TaskSketch { each: Some("photos"), ..TaskSketch::new("small", &["photos", "size"]) },
        TaskSketch { each: None, ..TaskSketch::new("album", &["small"]) },
    ]
}

async fn names(scenario: &Scenario, dataset: &str) -> Vec<String> {
    let object = scenario.value("main", dataset).await.unwrap().object;
    let bytes = scenario.storage.objects().get_bytes(&object.hash, 1 << 20).await.unwrap();
    Dir::decode(&bytes).unwrap().entries.into_keys().collect()
}

#[tokio::test(start_paused = true)]
async fn each_entry_is_an_execution_of_its_own_and_the_output_has_the_same_names() {
    let scenario = Scenario::new(&photos()).await;
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "2"), ("c.png", "3")]).await;
    let report = scenario.run().await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 2",
            "expand small 3",
            "start small[a.png]",
            "start small[b.png]",
            "done small[a.png]",
            "done small[b.png]",
            "start small[c.png]",
            "done small[c.png]",
            "done small",
            "start album",
            "done album",
            "end completed"
        ]
    );
    assert_eq!(counts(report.summary), RunSummary { total: 4, executed: 4, ..RunSummary::default() });
    assert_eq!(names(&scenario, "small").await, ["a.png", "b.png", "c.png"]);
}

#[tokio::test(start_paused = true)]
async fn one_changed_entry_is_one_execution_and_a_renamed_one_is_none() {
    let scenario = Scenario::new(&photos()).await;
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "2"), ("c.png", "3")]).await;
    scenario.run().await;
    scenario.take_events();
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "other"), ("d.png", "3")]).await;
    let report = scenario.run().await;
    assert_eq!(
        scenario.take_story(),
        [
            "begin 2",
            "expand small 3",
            "hit small[a.png]",
            "hit small[d.png]",
            "start small[b.png]",
            "done small[b.png]",
            "done small",
            "start album",
            "done album",
            "end completed"
        ]
    );
    assert_eq!(report.summary.executed, 2);
    assert_eq!(names(&scenario, "small").await, ["a.png", "b.png", "d.png"]);
    assert_eq!(scenario.run().await.summary.executed, 0);
}

#[tokio::test(start_paused = true)]
async fn another_input_of_the_task_concerns_every_entry() {
    let scenario = Scenario::new(&photos()).await;
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "2")]).await;
    scenario.run().await;
    scenario.set("size", "large").await;
    assert_eq!(scenario.run().await.summary.executed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_folder_without_entries_makes_one_without_entries() {
    let scenario = Scenario::new(&photos()).await;
    let report = scenario.run().await;
    assert_eq!(
        scenario.take_story(),
        ["begin 2", "expand small 0", "hit small", "start album", "done album", "end completed"]
    );
    assert_eq!(report.state, RunState::Completed);
    assert!(names(&scenario, "small").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_fails_is_named_and_the_others_go_on_if_asked_to() {
    let mut scenario = Scenario::new(&photos()).await;
    scenario.options.on_failure = OnFailure::KeepGoing;
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "bad"), ("c.png", "3")]).await;
    let bad = e3_types::Hash::of(b"bad");
    scenario.runner.respond_by_default(move |call| {
        if call.inputs[0] == bad {
            MockResponse::exit(4)
        } else {
            MockResponse::bytes(format!("{:?}", call.inputs))
        }
    });
    let report = scenario.run().await;
    let failed = &report.failures[0];
    assert_eq!((failed.task.as_str(), failed.item.as_deref()), ("small", Some("b.png")));
    assert_eq!(failed.failure, Failure::Exit { code: 4 });
    let expected = RunSummary { total: 4, executed: 2, failed: 1, skipped: 1, ..RunSummary::default() };
    assert_eq!(counts(report.summary), expected);
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "mended"), ("c.png", "3")]).await;
    let report = scenario.run().await;
    assert_eq!(
        counts(report.summary),
        RunSummary { total: 4, executed: 2, cached: 2, ..RunSummary::default() }
    );
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_changes_during_the_run_is_gone_through_again() {
    let scenario = Scenario::new(&photos()).await;
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "2"), ("c.png", "3")]).await;
    scenario
        .runner
        .respond_by_default(|call| MockResponse::bytes(format!("{:?}", call.inputs)).after(seconds(10)));
    let change = async {
        tokio::time::sleep(seconds(15)).await;
        scenario.set_folder("photos", &[("a.png", "1"), ("c.png", "other")]).await;
    };
    let (report, ()) = tokio::join!(scenario.run(), change);
    assert_eq!(
        scenario.take_story(),
        [
            "begin 2",
            "expand small 3",
            "start small[a.png]",
            "start small[b.png]",
            "done small[a.png]",
            "done small[b.png]",
            "start small[c.png]",
            "change photos",
            "invalid small<photos",
            "expand small 2",
            "hit small[a.png]",
            "start small[c.png]",
            "done small[c.png] too late",
            "done small[c.png]",
            "done small",
            "start album",
            "done album",
            "end completed"
        ]
    );
    let expected = RunSummary { total: 3, executed: 2, cached: 1, reexecuted: 2, ..RunSummary::default() };
    assert_eq!(counts(report.summary), expected);
    assert_eq!(names(&scenario, "small").await, ["a.png", "c.png"]);
}

#[tokio::test(start_paused = true)]
async fn the_folder_can_be_what_another_task_makes_entry_by_entry() {
    let tasks = [
        TaskSketch { each: Some("photos"), ..TaskSketch::new("small", &["photos"]) },
        TaskSketch { each: Some("small"), ..TaskSketch::new("grey", &["small"]) },
    ];
    let scenario = Scenario::new(&tasks).await;
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "2")]).await;
    assert_eq!(scenario.run().await.summary.executed, 4);
    scenario.set_folder("photos", &[("a.png", "1"), ("b.png", "3")]).await;
    assert_eq!(scenario.run().await.summary.executed, 2, "one changed entry, through both");
}

#[tokio::test(start_paused = true)]
async fn a_folder_with_a_link_is_refused_by_name() {
    let scenario = Scenario::new(&photos()).await;
    let entries = [("link".to_owned(), e3_types::DirEntry::Symlink("a".to_owned()))].into();
    let object = scenario.storage.objects().put_bytes(Dir { entries }.encode()).await.unwrap();
    scenario.assign("photos", e3_types::Kind::Dir, object).await;
    let report = scenario.run().await;
    assert_eq!(
        report.failures[0].failure.to_string(),
        "the entry `link` is a symbolic link: expected files and folders"
    );
    assert_eq!(
        counts(report.summary),
        RunSummary { total: 2, failed: 1, skipped: 1, ..RunSummary::default() }
    );
}
