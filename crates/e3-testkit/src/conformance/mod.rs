//! The conformance suites. What they check is what the docs of the seams promise, and nothing else.

pub mod leases;
pub mod logs;
pub mod objects;
pub mod refs;
pub mod runner;

use std::sync::Arc;

use e3_core::{StorageBackend, TaskRunner};
use e3_types::Hash;
use tempfile::TempDir;

/// A storage to be checked.
pub struct Fixture {
    /// The storage.
    pub storage: Arc<dyn StorageBackend>,
    /// Another handle to the same repository, as another process would have; the same one where there is no other.
    pub other: Arc<dyn StorageBackend>,
    /// A folder on the file system of the storage, removed at the end with all that the storage put there.
    pub folder: TempDir,
}

/// A runner to be checked, with tasks of which the suite knows what they do.
pub struct RunnerFixture {
    /// The runner.
    pub runner: Arc<dyn TaskRunner>,
    /// The storage.
    pub storage: Arc<dyn StorageBackend>,
    /// A task without inputs that succeeds.
    pub succeeding: Hash,
    /// A task without inputs that exits with code 3.
    pub failing: Hash,
    /// A task without inputs that runs until it is cancelled.
    pub endless: Hash,
    /// How often a task was really executed so far.
    pub executions: Box<dyn Fn() -> usize + Send + Sync>,
    /// What has to live as long as the fixture.
    pub folder: TempDir,
}
