//! Plans: what they say is what a run then does.

use std::collections::{BTreeMap, BTreeSet};

use e3_core::StorageBackend;
use e3_core::{
    DataflowError, Decision, EntriesPlan, Force, MockResponse, OnFailure, Plan, PlanOptions, datasets,
    packages, plan, workspaces,
};
use e3_testkit::{Scenario, TaskSketch, task_hash};
use e3_types::{EventKind, RunReason, SkipReason};
use proptest::prelude::*;

use crate::{diamond, random};

async fn planned(scenario: &Scenario, force: Force) -> Plan {
    let main = "main".parse().unwrap();
    let record = workspaces::find(&*scenario.storage, &main).await.unwrap();
    let package = packages::load(&*scenario.storage, record.package).await.unwrap();
    let roots = datasets::read_roots(scenario.storage.refs(), &main).await.unwrap();
    let roots = roots.into_iter().map(|(path, value)| (path, value.object)).collect();
    let options = PlanOptions { targets: scenario.options.targets.clone(), force, ..PlanOptions::default() };
    plan(&*scenario.storage, &package, &roots, &options).await.unwrap()
}

/// Each task with the word for what is to become of it.
fn words(plan: &Plan) -> Vec<String> {
    let word = |decision: &Decision| match decision {
        Decision::Run { because } => format!("run {because:?}"),
        Decision::Cached { .. } => "cached".to_owned(),
        Decision::Depends { on } => {
            format!("depends on {}", on.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"))
        }
        Decision::Blocked { dataset } => format!("blocked by {dataset}"),
        Decision::Error { message } => format!("error {message}"),
    };
    plan.tasks.iter().map(|task| format!("{}: {}", task.task, word(&task.decision))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_the_run_then_does() {
    let tasks = diamond();
    let scenario = Scenario::new(&tasks).await;
    let first = planned(&scenario, Force::Nothing).await;
    assert_eq!(words(&first), ["a: run NoResult", "b: depends on a", "c: depends on a", "d: depends on b+c"]);
    assert!(scenario.runner.calls().is_empty(), "nothing is executed");
    scenario.runner.respond(task_hash(&tasks[1]), MockResponse::exit(1));
    scenario.run().await;
    let second = planned(&scenario, Force::Nothing).await;
    assert_eq!(words(&second), ["a: cached", "b: run LastFailed", "c: cached", "d: depends on b"]);
    let forced = planned(&scenario, Force::Matching(vec!["c".parse().unwrap()])).await;
    assert_eq!(words(&forced)[2], "c: run Forced");
    let c = scenario.value("main", "c").await.unwrap().object;
    let some_day = e3_types::Timestamp::from_unix_ms(u64::MAX);
    scenario.storage.objects().delete_many(&[c.hash], some_day).await.unwrap();
    assert_eq!(words(&planned(&scenario, Force::Nothing).await)[2], "c: run OutputMissing");
}

#[tokio::test(start_paused = true)]
async fn a_plan_knows_the_entries_of_a_folder_that_is_there_and_says_so_if_it_is_not() {
    let tasks = [
        TaskSketch { each: Some("photos"), ..TaskSketch::new("small", &["photos"]) },
        TaskSketch { each: Some("small"), ..TaskSketch::new("grey", &["small"]) },
    ];
    let scenario = Scenario::new(&tasks).await;
    scenario.set_folder("photos", &[("a", "1"), ("b", "2")]).await;
    scenario.run().await;
    scenario.set_folder("photos", &[("a", "1"), ("b", "3"), ("c", "2")]).await;
    let plan = planned(&scenario, Force::Nothing).await;
    let run = BTreeMap::from([("b".into(), RunReason::NoResult)]);
    assert_eq!(plan.tasks[0].entries, Some(EntriesPlan::Known { total: 3, run }));
    assert_eq!(plan.tasks[1].entries, Some(EntriesPlan::Unknown));
    assert_eq!(words(&plan), ["small: run NoResult", "grey: depends on small"]);
    assert_eq!(scenario.run().await.summary.executed, 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_cache_is_not_asked_about_runs_whatever_comes_before_it() {
    let tasks = diamond();
    let scenario = Scenario::new(&tasks).await;
    scenario.run().await;
    let plan = planned(&scenario, Force::Everything).await;
    assert_eq!(words(&plan), ["a: run Forced", "b: run Forced", "c: run Forced", "d: run Forced"]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_refuses_what_a_run_refuses() {
    let mut needy = TaskSketch::new("needy", &["raw"]);
    needy.policy.resources = BTreeMap::from([("license".parse().unwrap(), 2)]);
    let scenario = Scenario::new(&[needy]).await;
    let main = "main".parse().unwrap();
    let record = workspaces::find(&*scenario.storage, &main).await.unwrap();
    let package = packages::load(&*scenario.storage, record.package).await.unwrap();
    let limits = BTreeMap::from([("license".parse().unwrap(), 1)]);
    let options = PlanOptions { limits, ..PlanOptions::default() };
    let refused = plan(&*scenario.storage, &package, &BTreeMap::new(), &options).await.unwrap_err();
    assert!(matches!(refused, DataflowError::Unsatisfiable { needs: 2, limit: 1, .. }), "{refused}");
}

const NAMES: [&str; 7] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6"];
const ROOTS: [&str; 3] = ["r0", "r1", "unassigned_r2"];

/// Graphs: what each task reads, as numbers of inputs and earlier tasks; which inputs change between two runs; which tasks
/// always make the same; and which are forced the second time.
fn graphs() -> impl Strategy<Value = (Vec<BTreeSet<usize>>, Vec<bool>, Vec<bool>, Vec<bool>)> {
    let reads = prop::collection::btree_set(0_usize..ROOTS.len() + NAMES.len(), 0..4);
    (
        prop::collection::vec(reads, 1..NAMES.len()),
        prop::collection::vec(any::<bool>(), ROOTS.len()),
        prop::collection::vec(prop::bool::weighted(0.3), NAMES.len()),
        prop::collection::vec(prop::bool::weighted(0.3), NAMES.len()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever has been run before and whatever has changed: `run` is executed, `cached` is not, `blocked` is blocked;
    /// `depends` is executed or not, and nothing else happens.
    #[test]
    fn plan_and_run_agree((reads, changed, constant, forced) in graphs()) {
        let tasks = random(&reads, &ROOTS, &NAMES);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut scenario = Scenario::new(&tasks).await;
            scenario.options.on_failure = OnFailure::KeepGoing;
            for (task, constant) in tasks.iter().zip(&constant) {
                if *constant {
                    scenario.runner.respond(task_hash(task), MockResponse::bytes(format!("{} always", task.name)));
                }
            }
            scenario.run().await;
            for (root, _) in ROOTS.iter().zip(&changed).filter(|(_, changed)| **changed) {
                if tasks.iter().any(|task| task.inputs.contains(root)) {
                    scenario.set(root, "another value").await;
                }
            }
            scenario.take_events();
            let forced: Vec<_> = tasks.iter().zip(&forced).filter(|(_, forced)| **forced).collect();
            let force = match &forced[..] {
                [] => Force::Nothing,
                some => Force::Matching(some.iter().map(|(task, _)| task.name.parse().unwrap()).collect()),
            };
            scenario.options.force = force.clone();
            let plan = planned(&scenario, force).await;
            scenario.run().await;
            let (mut did, mut stood) = (BTreeMap::new(), 0);
            for event in scenario.take_events() {
                match event.kind {
                    EventKind::RunStarted { standing, .. } => stood = standing,
                    EventKind::TaskStarted { task, .. } => {
                        did.insert(task, "run");
                    }
                    EventKind::TaskCompleted { task, cached: true, .. } => {
                        did.insert(task, "cached");
                    }
                    EventKind::TaskSkipped { task, because: SkipReason::Unassigned { .. } } => {
                        did.insert(task, "blocked");
                    }
                    _ => {}
                }
            }
            assert_eq!(plan.tasks.len() as u64, did.len() as u64 + stood);
            for task in &plan.tasks {
                // What the run has not asked about has not changed.
                let did = did.get(&task.task).copied().unwrap_or("cached");
                let agrees = match &task.decision {
                    Decision::Run { .. } => did == "run",
                    Decision::Cached { .. } => did == "cached",
                    Decision::Blocked { .. } => did == "blocked",
                    Decision::Depends { on } => !on.is_empty() && (did == "run" || did == "cached"),
                    Decision::Error { .. } => false,
                };
                assert!(agrees, "{task:?}, but {did}: {plan:?}");
            }
        });
    }
}
