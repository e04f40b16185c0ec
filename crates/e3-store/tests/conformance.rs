//! `LocalStorage` passes the suites of the seams; the other handle is another connection to the same folder.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use e3_core::SystemClock;
use e3_store::LocalStorage;
use e3_testkit::Fixture;

async fn local() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    let storage = Arc::new(LocalStorage::create(&root, &SystemClock).unwrap());
    let other = Arc::new(LocalStorage::open(&root, &SystemClock).unwrap());
    Fixture { storage, other, folder }
}

e3_testkit::storage_conformance!(local);
