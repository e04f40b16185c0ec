//! `StorageBackend`: the bundle of stores that makes one repository.

use async_trait::async_trait;
use e3_types::ErrorClass;

use super::{
    LeaseError, LeaseStore, LogError, LogStore, ObjectError, ObjectStamp, ObjectStore, RefError, RefStore,
};

/// One repository.
#[async_trait]
pub trait StorageBackend: Send + Sync {
    /// Immutable bytes by hash.
    fn objects(&self) -> &dyn ObjectStore;

    /// Mutable names.
    fn refs(&self) -> &dyn RefStore;

    /// What executions print.
    fn logs(&self) -> &dyn LogStore;

    /// Who is at work on what.
    fn leases(&self) -> &dyn LeaseStore;

    /// What tells later whether objects have been removed since.
    async fn object_stamp(&self) -> Result<ObjectStamp, StorageError>;

    /// Returns when everything that was acknowledged before the call would survive a power cut.
    ///
    /// Writes are acknowledged when they are visible and survive the death of the process; this barrier is asked for
    /// once, before a run reports that it is complete.
    async fn sync(&self) -> Result<(), StorageError>;
}

/// The store cannot answer: what was being done, and what the system said.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct Unavailable {
    /// What was being done, with the path or name in question.
    pub doing: String,
    /// What the system said.
    pub source: Box<dyn std::error::Error + Send + Sync>,
    /// Whether the same request may succeed later without anybody's help.
    pub retryable: bool,
}

impl Unavailable {
    /// A failure that somebody has to mend (permission, full disk, no such folder).
    pub fn new(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { doing: doing.into(), source: source.into(), retryable: false }
    }
}

/// An error of any of the stores.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Of the object store.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Of the ref store.
    #[error(transparent)]
    Ref(#[from] RefError),
    /// Of the log store.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Of the lease store.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Of the storage as a whole.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl StorageError {
    /// Whether it says that an object is not there, or not what it was.
    pub fn is_of_a_lost_object(&self) -> bool {
        matches!(self, Self::Object(ObjectError::NotFound(_) | ObjectError::Corrupt { .. }))
    }

    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Object(error) => error.class(),
            Self::Ref(error) => error.class(),
            Self::Log(_) | Self::Lease(_) | Self::Unavailable(_) => ErrorClass::Environment,
        }
    }
}
