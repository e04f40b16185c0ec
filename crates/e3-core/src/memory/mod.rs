//! In-memory storage: for tests, for embedding, and as the simplest statement of what the seams mean.

mod leases;
mod logs;
mod objects;
mod refs;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

pub use self::{leases::MemoryLeases, logs::MemoryLogs, objects::MemoryObjects, refs::MemoryRefs};
use crate::{LeaseStore, LogStore, ObjectStamp, ObjectStore, RefStore, StorageBackend, StorageError};

/// A repository that lives as long as this value.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    objects: MemoryObjects,
    refs: MemoryRefs,
    logs: MemoryLogs,
    leases: MemoryLeases,
}

#[async_trait]
impl StorageBackend for MemoryStorage {
    fn objects(&self) -> &dyn ObjectStore {
        &self.objects
    }

    fn refs(&self) -> &dyn RefStore {
        &self.refs
    }

    fn logs(&self) -> &dyn LogStore {
        &self.logs
    }

    fn leases(&self) -> &dyn LeaseStore {
        &self.leases
    }

    async fn object_stamp(&self) -> Result<ObjectStamp, StorageError> {
        Ok(self.objects.stamp())
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Locks a map that is whole between any two statements, so a panic of another holder has not harmed it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
