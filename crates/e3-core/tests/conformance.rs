//! The in-memory storage and the mock runner pass the suites of their seams.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use e3_core::{Clock, MemoryStorage, MockResponse, MockTaskRunner, StorageBackend, SystemClock};
use e3_testkit::{Fixture, RunnerFixture};
use e3_types::Hash;

async fn memory() -> Fixture {
    let storage: Arc<dyn StorageBackend> = Arc::new(MemoryStorage::default());
    Fixture { other: Arc::clone(&storage), storage, folder: tempfile::tempdir().unwrap() }
}

async fn mock() -> RunnerFixture {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let runner = Arc::new(MockTaskRunner::new(clock));
    let [succeeding, failing, endless] =
        ["succeeding", "failing", "endless"].map(|name| Hash::of(name.as_bytes()));
    let executed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = |response: MockResponse| {
        let executed = Arc::clone(&executed);
        move |_: &_| {
            executed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            response.clone()
        }
    };
    runner.respond_with(succeeding, count(MockResponse::bytes("output").after(Duration::from_millis(20))));
    runner.respond_with(failing, count(MockResponse::exit(3)));
    runner.respond_with(endless, count(MockResponse::bytes("never").after(Duration::from_secs(100_000))));
    RunnerFixture {
        runner,
        storage: Arc::new(MemoryStorage::default()),
        succeeding,
        failing,
        endless,
        executions: Box::new(move || executed.load(std::sync::atomic::Ordering::Relaxed)),
        folder: tempfile::tempdir().unwrap(),
    }
}

mod memory_storage {
    use super::memory;
    e3_testkit::storage_conformance!(memory);
}

mod mock_runner {
    use super::mock;
    e3_testkit::runner_conformance!(mock);
}
