//! `FaultyStorage`: a storage on which things go wrong, by seed.
//!
//! Each call draws what happens to it: nothing, a wait (so that calls made at once happen in another order), a failure before
//! anything is done, a failure after it was done (the caller is not told that it worked), or, for a batch of objects, a
//! failure in the middle. What is done is done by the storage inside, whose own promises hold: a write of refs is
//! still all or nothing.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_core::{
    Acquired, ByteStream, Holder, LeaseError, LeaseMode, LeaseStore, LogError, LogStore, LogStream,
    ObjectError, ObjectStamp, ObjectStore, RefChange, RefError, RefName, RefStore, Scan, Source, StageItem,
    StorageBackend, StorageError, Unavailable,
};
use e3_types::{ExecutionId, Hash, ObjectRef, Timestamp, WorkspaceName};
use futures::stream::BoxStream;

/// How often what goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Another seed, another story.
    pub seed: u64,
    /// Of a thousand calls, how many fail.
    pub failures: u64,
    /// The longest wait before a call is carried out, in milliseconds.
    pub delay_ms: u64,
}

/// A storage on which things go wrong.
pub struct FaultyStorage {
    inner: Arc<dyn StorageBackend>,
    faults: Faults,
    drawn: AtomicU64,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nothing,
    FailsBefore,
    FailsAfter,
}

impl FaultyStorage {
    /// Things go wrong with `inner` as `faults` says.
    pub fn new(inner: Arc<dyn StorageBackend>, faults: Faults) -> Self {
        Self { inner, faults, drawn: AtomicU64::new(0) }
    }

    /// The next number: `SplitMix64` (Steele, Lea, Flood 2014).
    fn draw(&self) -> u64 {
        let step = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut mixed = self.faults.seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    async fn fate(&self) -> Fate {
        let number = self.draw();
        if self.faults.delay_ms > 0 && number & 0x300 == 0 {
            tokio::time::sleep(Duration::from_millis(self.draw() % self.faults.delay_ms)).await;
        }
        match (self.draw() % 1000 < self.faults.failures, number & 1) {
            (false, _) => Fate::Nothing,
            (true, 0) => Fate::FailsBefore,
            (true, _) => Fate::FailsAfter,
        }
    }
}

fn failure() -> Unavailable {
    Unavailable::new("a fault was injected", io::Error::from(io::ErrorKind::StorageFull))
}

/// Carries a call out as its fate wants it.
macro_rules! fated {
    ($self:ident, $call:expr) => {
        match $self.fate().await {
            Fate::Nothing => $call,
            Fate::FailsBefore => Err(failure().into()),
            Fate::FailsAfter => {
                drop($call);
                Err(failure().into())
            }
        }
    };
}

#[async_trait]
impl StorageBackend for FaultyStorage {
    fn objects(&self) -> &dyn ObjectStore {
        self
    }

    fn refs(&self) -> &dyn RefStore {
        self
    }

    fn logs(&self) -> &dyn LogStore {
        self
    }

    fn leases(&self) -> &dyn LeaseStore {
        self
    }

    async fn object_stamp(&self) -> Result<ObjectStamp, StorageError> {
        fated!(self, self.inner.object_stamp().await)
    }

    async fn sync(&self) -> Result<(), StorageError> {
        fated!(self, self.inner.sync().await)
    }
}

#[async_trait]
impl ObjectStore for FaultyStorage {
    async fn put_many(&self, mut sources: Vec<Source>) -> Result<Vec<ObjectRef>, ObjectError> {
        match self.fate().await {
            Fate::Nothing => self.inner.objects().put_many(sources).await,
            Fate::FailsBefore => Err(failure().into()),
            Fate::FailsAfter => {
                // A batch is torn somewhere.
                let kept = usize::try_from(self.draw()).unwrap_or(0) % (sources.len() + 1);
                sources.truncate(kept);
                drop(self.inner.objects().put_many(sources).await);
                Err(failure().into())
            }
        }
    }

    async fn get(&self, hash: &Hash, range: Range<u64>) -> Result<ByteStream, ObjectError> {
        fated!(self, self.inner.objects().get(hash, range).await)
    }

    async fn stage_many(&self, items: &[StageItem]) -> Result<Vec<u64>, ObjectError> {
        fated!(self, self.inner.objects().stage_many(items).await)
    }

    async fn stat_many(&self, hashes: &[Hash]) -> Result<Vec<Option<u64>>, ObjectError> {
        fated!(self, self.inner.objects().stat_many(hashes).await)
    }

    async fn list(&self) -> Result<BoxStream<'static, Result<ObjectRef, ObjectError>>, ObjectError> {
        fated!(self, self.inner.objects().list().await)
    }

    async fn delete_many(&self, hashes: &[Hash], older_than: Timestamp) -> Result<u64, ObjectError> {
        fated!(self, self.inner.objects().delete_many(hashes, older_than).await)
    }
}

#[async_trait]
impl RefStore for FaultyStorage {
    async fn read(&self, names: &[RefName]) -> Result<Vec<Option<Bytes>>, RefError> {
        fated!(self, self.inner.refs().read(names).await)
    }

    async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError> {
        fated!(self, self.inner.refs().write(changes).await)
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<(RefName, Bytes)>, RefError> {
        fated!(self, self.inner.refs().scan(scan).await)
    }

    async fn change_counter(&self, workspace: &WorkspaceName) -> Result<u64, RefError> {
        fated!(self, self.inner.refs().change_counter(workspace).await)
    }

    async fn changed(&self, workspace: &WorkspaceName, seen: u64) -> Result<u64, RefError> {
        fated!(self, self.inner.refs().changed(workspace, seen).await)
    }
}

#[async_trait]
impl LogStore for FaultyStorage {
    async fn append(&self, execution: ExecutionId, stream: LogStream, bytes: &[u8]) -> Result<(), LogError> {
        fated!(self, self.inner.logs().append(execution, stream, bytes).await)
    }

    async fn read(
        &self,
        execution: ExecutionId,
        stream: LogStream,
        range: Range<u64>,
    ) -> Result<Bytes, LogError> {
        fated!(self, self.inner.logs().read(execution, stream, range).await)
    }

    async fn size(&self, execution: ExecutionId, stream: LogStream) -> Result<u64, LogError> {
        fated!(self, self.inner.logs().size(execution, stream).await)
    }

    async fn delete_many(&self, executions: &[ExecutionId]) -> Result<(), LogError> {
        fated!(self, self.inner.logs().delete_many(executions).await)
    }
}

#[async_trait]
impl LeaseStore for FaultyStorage {
    async fn acquire(
        &self,
        resource: &str,
        mode: LeaseMode,
        holder: &Holder,
    ) -> Result<Acquired, LeaseError> {
        fated!(self, self.inner.leases().acquire(resource, mode, holder).await)
    }

    async fn inspect(&self, resource: &str) -> Result<Vec<Holder>, LeaseError> {
        fated!(self, self.inner.leases().inspect(resource).await)
    }
}
