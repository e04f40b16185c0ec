//! Checks of `TaskRunner`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use e3_core::{ExecutionKey, Gate, Released, TaskExecuteOptions, executions};
use e3_types::{ExecutionState, Failure, Timestamp};

use super::RunnerFixture;

fn forced() -> TaskExecuteOptions {
    TaskExecuteOptions { force: true, ..TaskExecuteOptions::default() }
}

/// The first call executes and records, the second one is answered by the first.
pub async fn success_is_recorded_and_cached(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, .. } = fixture;
    let first = runner.execute(&**storage, *succeeding, &[], TaskExecuteOptions::default()).await;
    let output = first.outcome.clone().unwrap();
    assert!(!first.cached);
    assert_eq!(storage.objects().stat_many(&[output.hash]).await.unwrap(), [Some(output.size)]);
    let record = executions::find(&**storage, first.execution.unwrap()).await.unwrap().unwrap();
    assert_eq!((record.state, record.outcome), (ExecutionState::Success, Some(Ok(output))));
    assert!(record.ended.is_some());

    let second = runner.execute(&**storage, *succeeding, &[], TaskExecuteOptions::default()).await;
    assert!(second.cached);
    assert_eq!((second.outcome, second.execution), (Ok(output), first.execution));
    assert_eq!((fixture.executions)(), 1);
}

/// Records that are left to the caller are not there until it writes them, and are complete then.
pub async fn deferred_records_are_the_callers_to_write(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, .. } = fixture;
    let options = TaskExecuteOptions { defer_records: true, ..TaskExecuteOptions::default() };
    let first = runner.execute(&**storage, *succeeding, &[], options).await;
    let key = ExecutionKey::new(*succeeding, &[]);
    assert_eq!(executions::results(&**storage, &[key]).await.unwrap(), [None]);
    first.uncommitted.clone().write(&**storage).await.unwrap();
    let result = executions::results(&**storage, &[key]).await.unwrap().remove(0).unwrap();
    assert_eq!((Some(result.execution), &result.outcome), (first.execution, &first.outcome));
    // Nothing is held any more.
    drop(first);
    assert!(runner.execute(&**storage, *succeeding, &[], TaskExecuteOptions::default()).await.cached);
}

/// Room is given back once at most, and not by what has failed: nothing may be started in its place before that is known.
pub async fn room_is_given_back_at_most_once_and_not_by_a_failure(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, failing, .. } = fixture;
    for (task, at_most) in [(*succeeding, 1), (*failing, 0)] {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let released: Released = Arc::new(move || count.fetch_add(1, Ordering::Relaxed) == 0);
        let options = TaskExecuteOptions { released: Some(released), ..forced() };
        let result = runner.execute(&**storage, task, &[], options).await;
        assert_eq!(result.outcome.is_ok(), at_most == 1);
        assert!(told.load(Ordering::Relaxed) <= at_most);
    }
}

/// What is asked for ahead of its time is executed when its gate is opened, and not before.
pub async fn nothing_is_executed_before_its_gate_is_open(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, .. } = fixture;
    let (gate, key) = (Gate::default(), ExecutionKey::new(*succeeding, &[]));
    let options = TaskExecuteOptions { gate: Some(gate.clone()), ..TaskExecuteOptions::default() };
    let open_later = async {
        // It has every chance to go too far.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!((fixture.executions)(), 0);
        assert_eq!(executions::latest(&**storage, &key).await.unwrap(), None);
        gate.open();
    };
    let (result, ()) = futures::join!(runner.execute(&**storage, *succeeding, &[], options), open_later);
    assert!(result.outcome.is_ok() && !result.cached);
    assert_eq!((fixture.executions)(), 1);
}

/// What is cancelled before its gate is open leaves nothing, and can be asked for again.
pub async fn what_is_cancelled_before_its_gate_is_open_was_never_there(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, .. } = fixture;
    for polite in [true, false] {
        let options = TaskExecuteOptions { gate: Some(Gate::default()), ..TaskExecuteOptions::default() };
        let cancellation = options.cancellation.clone();
        let cancel = async {
            tokio::task::yield_now().await;
            if polite { cancellation.stop.cancel() } else { cancellation.kill.cancel() }
        };
        let (result, ()) = futures::join!(runner.execute(&**storage, *succeeding, &[], options), cancel);
        assert_eq!((result.outcome, result.execution), (Err(Failure::Cancelled), None));
    }
    assert_eq!((fixture.executions)(), 0);
    let key = ExecutionKey::new(*succeeding, &[]);
    assert_eq!(executions::latest(&**storage, &key).await.unwrap(), None);
    assert!(
        runner.execute(&**storage, *succeeding, &[], TaskExecuteOptions::default()).await.outcome.is_ok()
    );
}

/// With `force` a known result is made again.
pub async fn force_executes_again(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, .. } = fixture;
    let first = runner.execute(&**storage, *succeeding, &[], forced()).await;
    let second = runner.execute(&**storage, *succeeding, &[], forced()).await;
    assert!(!first.cached && !second.cached);
    assert_ne!(first.execution, second.execution);
    assert_eq!((fixture.executions)(), 2);
}

/// A task that fails gives its exit code, is recorded, and is tried again by the next call.
pub async fn a_failure_is_a_result_and_not_cached(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, failing, .. } = fixture;
    for _ in 0..2 {
        let result = runner.execute(&**storage, *failing, &[], TaskExecuteOptions::default()).await;
        assert_eq!(result.outcome, Err(Failure::Exit { code: 3 }));
        assert!(!result.cached);
        let record = executions::find(&**storage, result.execution.unwrap()).await.unwrap().unwrap();
        assert_eq!(record.state, ExecutionState::Failed);
    }
    assert_eq!((fixture.executions)(), 2);
}

/// Calls for one key at the same time: one executes, the others take its result.
pub async fn one_key_is_executed_once_at_a_time(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, .. } = fixture;
    let call = || runner.execute(&**storage, *succeeding, &[], TaskExecuteOptions::default());
    let results = futures::future::join_all((0..4).map(|_| call())).await;
    assert_eq!(results.iter().filter(|result| !result.cached).count(), 1);
    assert!(results.iter().all(|result| result.outcome == results[0].outcome && result.outcome.is_ok()));
    assert_eq!((fixture.executions)(), 1);
}

/// A cancelled execution ends, is recorded as such, and says nothing about its key.
pub async fn cancellation_ends_it_and_leaves_no_verdict(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, endless, .. } = fixture;
    for polite in [true, false] {
        let options = TaskExecuteOptions::default();
        let cancellation = options.cancellation.clone();
        let key = ExecutionKey::new(*endless, &[]);
        let before = executions::latest(&**storage, &key).await.unwrap();
        let stop_when_running = async {
            while executions::latest(&**storage, &key).await.unwrap() == before {
                tokio::task::yield_now().await;
            }
            if polite { cancellation.stop.cancel() } else { cancellation.kill.cancel() }
        };
        let (result, ()) =
            futures::join!(runner.execute(&**storage, *endless, &[], options), stop_when_running);
        assert_eq!(result.outcome, Err(Failure::Cancelled));
        let record = executions::find(&**storage, result.execution.unwrap()).await.unwrap().unwrap();
        assert_eq!(record.state, ExecutionState::Cancelled);
        assert_eq!(executions::results(&**storage, &[key]).await.unwrap(), [None]);
    }
}

/// A result whose object is gone is not a result.
pub async fn a_missing_output_is_made_again(fixture: &RunnerFixture) {
    let RunnerFixture { runner, storage, succeeding, .. } = fixture;
    let first = runner.execute(&**storage, *succeeding, &[], TaskExecuteOptions::default()).await;
    let output = first.outcome.unwrap();
    let some_day = Timestamp::from_unix_ms(u64::MAX);
    assert_eq!(storage.objects().delete_many(&[output.hash], some_day).await.unwrap(), 1);
    let second = runner.execute(&**storage, *succeeding, &[], TaskExecuteOptions::default()).await;
    assert!(!second.cached);
    assert_eq!(second.outcome, Ok(output));
    assert_eq!(storage.objects().stat_many(&[output.hash]).await.unwrap(), [Some(output.size)]);
}
