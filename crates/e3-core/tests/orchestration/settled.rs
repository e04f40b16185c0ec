//! The shortest answer: when it is given, and when it must not be.

use std::num::NonZeroUsize;

use e3_core::{
    Deployment, Force, Looks, MockResponse, ObjectStoreExt, OnFailure, RefChange, Scan, StorageBackend,
    WorkspaceLease, datasets::Assignment, kept_if_settled, operations, packages, workspaces,
};
use e3_testkit::{Scenario, TaskSketch, holder, task_hash};
use e3_types::{Hash, Kind, RunState, TaskPolicy, Timestamp};
use futures::FutureExt;

use crate::{diamond, sketch};

const NOTHING_TO_DO: [&str; 2] = ["begin 4", "end completed"];

async fn complete() -> Scenario {
    let scenario = Scenario::new(&diamond()).await;
    scenario.run().await;
    scenario.take_story();
    scenario
}

#[tokio::test(start_paused = true)]
async fn a_complete_workspace_is_not_looked_at_again() {
    let mut scenario = complete().await;
    for slots in 1..4 {
        scenario.options.slots = NonZeroUsize::new(slots).unwrap();
        let report = scenario.run().await;
        assert_eq!((report.state, report.summary.total, report.summary.cached), (RunState::Completed, 4, 4));
        assert_eq!(scenario.take_story(), NOTHING_TO_DO);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_noticed_and_made_again() {
    let scenario = complete().await;
    let output = scenario.value("main", "b").await.unwrap().object.hash;
    let any_time = Timestamp::from_unix_ms(u64::MAX);
    assert_eq!(scenario.storage.objects().delete_many(&[output], any_time).await.unwrap(), 1);
    assert_eq!(scenario.run().await.summary.executed, 1);
    scenario.take_story();
    scenario.run().await;
    assert_eq!(scenario.take_story(), NOTHING_TO_DO);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_went_while_others_ran_is_noticed_too() {
    let tasks = diamond();
    let scenario = Scenario::new(&tasks).await;
    let output = Hash::of(b"of b");
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::bytes("of b"));
    let storage = scenario.storage.clone();
    scenario.runner.respond_with(task_hash(&tasks[3]), move |_| {
        let any_time = Timestamp::from_unix_ms(u64::MAX);
        let deleted = storage.objects().delete_many(&[output], any_time).now_or_never();
        assert_eq!(deleted.unwrap().unwrap(), 1);
        MockResponse::bytes("of d")
    });
    assert_eq!(scenario.run().await.state, RunState::Completed);
    assert_eq!(scenario.run().await.summary.executed, 1);
    assert!(scenario.storage.objects().stat(&output).await.unwrap().is_some());
    scenario.take_story();
    scenario.run().await;
    assert_eq!(scenario.take_story(), NOTHING_TO_DO);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_was_set_and_set_back_is_looked_at() {
    let scenario = complete().await;
    scenario.set("raw", "another").await;
    assert_eq!(scenario.run().await.summary.executed, 4);
    scenario.set("raw", "raw").await;
    scenario.take_story();
    scenario.run().await;
    assert_ne!(scenario.take_story(), NOTHING_TO_DO);
}

#[tokio::test(start_paused = true)]
async fn only_a_complete_run_of_everything_counts() {
    let mut scenario = complete().await;
    // A forced run that fails leaves the workspace as it is, but not complete.
    let tasks = diamond();
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::exit(1));
    scenario.options.force = Force::Matching(vec!["b".parse().unwrap()]);
    scenario.options.on_failure = OnFailure::KeepGoing;
    assert_eq!(scenario.run().await.state, RunState::Failed);
    scenario.options.force = Force::Nothing;
    assert_eq!(scenario.run().await.state, RunState::Failed, "its last execution has failed");
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::bytes("b at last"));
    scenario.options.targets = vec!["b".parse().unwrap()];
    assert_eq!(scenario.run().await.state, RunState::Completed);
    scenario.options.targets = Vec::new();
    assert_eq!(scenario.run().await.summary.executed, 1, "what depends on it was not among the targets");
    scenario.take_story();
    scenario.run().await;
    assert_eq!(scenario.take_story(), NOTHING_TO_DO);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_never_cached_always_runs() {
    let policy = TaskPolicy { cache: false, ..TaskPolicy::default() };
    let tasks = [TaskSketch { policy, ..TaskSketch::new("a", &["raw"]) }];
    let scenario = Scenario::new(&tasks).await;
    for _ in 0..3 {
        assert_eq!(scenario.run().await.summary.executed, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn another_package_is_another_matter() {
    let scenario = complete().await;
    scenario.deploy("main", &sketch(&[("a", &["raw"]), ("e", &["a"])])).await;
    assert_eq!(scenario.run().await.summary.executed, 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_inputs_are_followed_whose_files_look_otherwise() {
    let scenario = Scenario::new(&sketch(&[("a", &["x", "y", "z"])])).await;
    let (storage, clock, main) = (&*scenario.storage, &*scenario.clock, "main".parse().unwrap());
    let object = workspaces::find(storage, &main).await.unwrap().package;
    let package = packages::load(storage, object).await.unwrap();
    let lease = WorkspaceLease::acquire(storage, &main, &holder(7)).await.unwrap();
    let looks = |texts: [&str; 3]| {
        Looks::new(texts.map(|text| (!text.is_empty()).then(|| Hash::of(text.as_bytes()))).to_vec())
    };
    let value = async |input: &str, text: &'static str| Assignment {
        path: input.parse().unwrap(),
        kind: Kind::File,
        object: storage.objects().put_bytes(text).await.unwrap(),
    };
    let tracked = [value("x", "x1").await, value("y", "y1").await, value("z", "z1").await];
    let deploy = async |looks: &Looks| {
        let deployment =
            Deployment { object, package: &package, tracked: &tracked, looks: Some(looks), reset: false };
        workspaces::deploy(storage, clock, &lease, deployment).await.unwrap();
    };
    let held = async |input: &str| {
        let object = scenario.value("main", input).await.unwrap().object;
        storage.objects().get_bytes(&object.hash, 99).await.unwrap()
    };
    // One of them could have held something else and looked the same.
    deploy(&looks(["1", "1", ""])).await;
    let now = looks(["1", "2", "1"]);
    let found =
        async |looks: &Looks| workspaces::following(storage, &main, object.hash, looks).await.unwrap();
    let following = found(&now).await.unwrap();
    assert_eq!(following.changed, [1, 2]);
    let values = [value("y", "y2").await, value("z", "z1").await];
    let kept = workspaces::follow(storage, clock, &lease, &following, &values, &now).await.unwrap();
    assert_eq!(kept, Some(Vec::new()));
    assert_eq!([held("x").await, held("y").await, held("z").await], ["x1", "y2", "z1"]);
    assert_eq!(operations::head(storage, &main).await.unwrap(), 3);
    let following = found(&now).await.unwrap();
    assert_eq!(following.changed, [0; 0]);
    let kept = workspaces::follow(storage, clock, &lease, &following, &[], &now).await.unwrap();
    assert_eq!((kept, operations::head(storage, &main).await.unwrap()), (Some(Vec::new()), 3));

    // What cannot be read was looked at by nobody.
    let pieces = storage.refs().scan(Scan::under(&[&"looks", &"main"])).await.unwrap();
    let (name, bytes) = &pieces[0];
    for damaged in [RefChange::remove(name.clone()), RefChange::set(name.clone(), bytes.slice(..40))] {
        storage.refs().write(vec![damaged]).await.unwrap();
        assert!(found(&now).await.is_none());
    }
    storage.refs().write(vec![RefChange::set(name.clone(), bytes.clone())]).await.unwrap();

    // Another number of inputs, another package, another operation: all of it is deployed.
    assert!(found(&Looks::new(vec![None; 2])).await.is_none());
    assert!(workspaces::following(storage, &main, Hash::of(b"another"), &now).await.unwrap().is_none());
    scenario.set("x", "set").await;
    let kept = workspaces::follow(storage, clock, &lease, &following, &values, &now).await.unwrap();
    assert_eq!(kept, None, "somebody was quicker");
    assert!(found(&now).await.is_none());
    deploy(&now).await;
    let following = found(&looks(["2", "2", "1"])).await.unwrap();
    let values = [value("x", "x2").await];
    let kept = workspaces::follow(storage, clock, &lease, &following, &values, &now).await.unwrap();
    assert_eq!((kept, held("x").await), (Some(vec!["x".parse().unwrap()]), "set".into()));
    // One that is no input of the package.
    let kept = workspaces::follow(storage, clock, &lease, &following, &[value("b", "").await], &now).await;
    assert_eq!(kept.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_not_done_again_while_nothing_has_happened_since() {
    let scenario = complete().await;
    let main = "main".parse().unwrap();
    let storage = &*scenario.storage;
    let object = workspaces::find(storage, &main).await.unwrap().package;
    let package = packages::load(storage, object).await.unwrap();
    let looks = |text: &str| Looks::new(vec![Some(Hash::of(text.as_bytes())), Some(Hash::of(b"always"))]);
    let (same, others) = (&looks("so"), &looks("otherwise"));
    let kept = async |looks: &Looks| kept_if_settled(storage, &main, object, looks).await.unwrap();
    let deploy = async || {
        let lease = WorkspaceLease::acquire(storage, &main, &holder(7)).await.unwrap();
        let deployment =
            Deployment { object, package: &package, tracked: &[], looks: Some(same), reset: false };
        workspaces::deploy(storage, &*scenario.options.clock, &lease, deployment).await.unwrap();
    };
    assert_eq!(kept(same).await, None, "nobody has said how the files looked");
    deploy().await;
    assert_eq!(kept(same).await, Some(Vec::new()));
    assert_eq!(kept(others).await, None);
    scenario.set("raw", "another").await;
    assert_eq!(kept(same).await, None, "there is something to run");
    scenario.run().await;
    assert_eq!(kept(same).await, None, "the input is no longer what was deployed");
    deploy().await;
    assert_eq!(kept(same).await, Some(vec!["raw".parse().unwrap()]), "it keeps what was set");
    let other = e3_types::ObjectRef { hash: Hash::of(b"another"), ..object };
    assert_eq!(kept_if_settled(storage, &main, other, same).await.unwrap(), None);
    let any_time = Timestamp::from_unix_ms(u64::MAX);
    let output = scenario.value("main", "a").await.unwrap().object.hash;
    assert_eq!(storage.objects().delete_many(&[output], any_time).await.unwrap(), 1);
    assert_eq!(kept(same).await, None);
}
