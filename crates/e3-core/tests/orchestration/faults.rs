//! Runs on a storage on which calls fail, before or after they have done their work, and come late.

use std::{collections::BTreeSet, sync::Arc};

use e3_core::{OnFailure, StorageBackend, dataflow_execute, executions, verify::verify};
use e3_testkit::{Faults, FaultyStorage, Scenario};
use e3_types::{EventKind, ExecutionId, ExecutionState, RunState};
use proptest::prelude::*;

use crate::stories::{respond, sketches};

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever fails: a run ends or says what failed, what it has shown as finished is there and is not executed again, and
    /// when the storage works again the workspace comes to what an undisturbed one comes to.
    #[test]
    fn nothing_that_was_reported_is_lost_and_nothing_wrong_is_kept(
        reads in prop::collection::vec(prop::collection::btree_set(0_usize..8, 1..4), 1..6),
        seed: u64,
        failures in 1_u64..200,
        delay_ms in prop_oneof![Just(0_u64), Just(3000)],
    ) {
        let tasks = sketches(&reads);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut scenario = Scenario::new(&tasks).await;
            respond(&scenario);
            scenario.options.on_failure = OnFailure::KeepGoing;
            let sound = Arc::clone(&scenario.storage) as Arc<dyn StorageBackend>;
            let mut reported: BTreeSet<ExecutionId> = BTreeSet::new();
            for round in 0..4 {
                let faults = Faults { seed: seed.wrapping_add(round), failures, delay_ms };
                let faulty = Arc::new(FaultyStorage::new(Arc::clone(&sound), faults));
                let workspace = "main".parse().unwrap();
                // An error is an answer; a wrong result would not be.
                drop(dataflow_execute(faulty, &workspace, scenario.options.clone()).await);
                for event in scenario.take_events() {
                    if let EventKind::TaskCompleted { execution: Some(execution), cached, .. } = event.kind {
                        assert!(cached || reported.insert(execution), "executed once");
                        let record = executions::find(&*sound, execution).await.unwrap().unwrap();
                        assert_eq!(record.state, ExecutionState::Success);
                    }
                }
            }
            scenario.runner.clear_calls();
            let report = scenario.run().await;
            assert_eq!(report.state, RunState::Completed);
            let called: BTreeSet<_> = scenario.called(&tasks).into_iter().collect();
            for execution in reported {
                let record = executions::find(&*sound, execution).await.unwrap().unwrap();
                let (_, name) = record.label.split_once('/').unwrap();
                assert!(!called.contains(name), "`{name}` was reported as finished, and is executed again");
            }
            let found = verify(&*sound).await.unwrap();
            assert!(found.is_sound(), "{found:?}");
            let fresh = Scenario::new(&tasks).await;
            respond(&fresh);
            fresh.run().await;
            for task in &tasks {
                let (here, there) = (scenario.value("main", task.name).await, fresh.value("main", task.name).await);
                assert_eq!(here.unwrap().object, there.unwrap().object, "{}", task.name);
            }
        });
    }
}
