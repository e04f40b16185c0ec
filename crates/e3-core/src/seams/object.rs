//! `ObjectStore`: immutable bytes, named by their hash.

use std::{ops::Range, path::PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use e3_types::{ErrorClass, Hash, ObjectRef, Timestamp};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use super::Unavailable;

/// Bytes that arrive in pieces.
pub type ByteStream = BoxStream<'static, Result<Bytes, ObjectError>>;

/// Immutable bytes, named by their SHA-256.
///
/// * Atomicity: an object is there whole or not at all; no reader ever sees a part of one.
/// * Idempotence: putting bytes that are there already changes nothing and succeeds.
/// * Concurrency: any number of callers, in any number of processes.
/// * A dropped future leaves no object that is not whole; it may leave some of a batch, which is harmless.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Puts every source into the store and returns their references in the same order.
    async fn put_many(&self, sources: Vec<Source>) -> Result<Vec<ObjectRef>, ObjectError>;

    /// The bytes of an object within `range`, as far as it reaches.
    async fn get(&self, hash: &Hash, range: Range<u64>) -> Result<ByteStream, ObjectError>;

    /// Materialises objects as files. The folders must be there, the files must not.
    ///
    /// All files get one fixed modification time (`Source::MODIFIED_SECONDS`), whatever the object is. Returns their sizes in
    /// bytes.
    async fn stage_many(&self, items: &[StageItem]) -> Result<Vec<u64>, ObjectError>;

    /// The size of each object in bytes, `None` where it is not there.
    async fn stat_many(&self, hashes: &[Hash]) -> Result<Vec<Option<u64>>, ObjectError>;

    /// All objects, in no particular order.
    async fn list(&self) -> Result<BoxStream<'static, Result<ObjectRef, ObjectError>>, ObjectError>;

    /// Deletes those of the objects that were put before `older_than`; returns how many it deleted. One that has been
    /// staged since may be spared.
    async fn delete_many(&self, hashes: &[Hash], older_than: Timestamp) -> Result<u64, ObjectError>;
}

/// Where the bytes of a new object come from.
pub enum Source {
    /// From memory.
    Bytes(Bytes),
    /// From a stream.
    Stream(ByteStream),
    /// From a file that nobody else uses: it is moved into the store where that is possible, and is gone afterwards
    /// in any case. If the call fails, the file may or may not be there.
    Adopt(PathBuf),
    /// From a file that stays as it is.
    Copy(PathBuf),
}

impl Source {
    /// The modification time of every object and every staged file, in seconds since the epoch: 1980-01-01T00:00:00Z,
    /// the earliest that all common archive formats can hold. A staged file with another one has been written to.
    pub const MODIFIED_SECONDS: u64 = 315_532_800;
}

/// One file to materialise.
#[derive(Debug, Clone)]
pub struct StageItem {
    /// What.
    pub hash: Hash,
    /// Its size, where that is recorded: an object of another one is refused.
    pub size: Option<u64>,
    /// Where.
    pub to: PathBuf,
    /// For whom.
    pub access: Access,
    /// Whether the file is executable.
    pub executable: bool,
    /// Whether there may be a file already: it is left if it is what would be put there anyway, else replaced.
    pub again: bool,
}

impl StageItem {
    /// Refuses an object that has another size than was recorded.
    pub fn check_size(&self, found: u64) -> Result<(), ObjectError> {
        match self.size {
            Some(size) if size != found => {
                let message = format!("it has {found} bytes where {size} were recorded");
                Err(ObjectError::Corrupt { hash: self.hash, message })
            }
            _ => Ok(()),
        }
    }
}

/// What the user of a staged file may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it. The file may share its storage with the object; it is read-only.
    ReadOnly,
    /// Change it: a private file.
    Private,
}

/// What goes wrong with objects.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("object {0} is not in the store")]
    NotFound(Hash),
    /// The object is not what its name says.
    #[error("object {hash} is corrupt: {message}")]
    Corrupt {
        /// The object.
        hash: Hash,
        /// What was found.
        message: String,
    },
    /// The object is larger than the caller can use.
    #[error("object {hash} has {size} bytes: more than the {limit} bytes that are read into memory at once")]
    TooLarge {
        /// The object.
        hash: Hash,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// The store cannot answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl ObjectError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) | Self::Corrupt { .. } => ErrorClass::Corrupt,
            Self::TooLarge { .. } => ErrorClass::User,
            Self::Unavailable(_) => ErrorClass::Environment,
        }
    }
}

/// Conveniences over `ObjectStore`.
#[async_trait]
pub trait ObjectStoreExt: ObjectStore {
    /// Puts one source.
    async fn put(&self, source: Source) -> Result<ObjectRef, ObjectError> {
        let refs = self.put_many(vec![source]).await?;
        Ok(*refs.first().expect("put_many returns one reference for each source"))
    }

    /// Puts bytes from memory.
    async fn put_bytes(&self, bytes: impl Into<Bytes> + Send) -> Result<ObjectRef, ObjectError> {
        self.put(Source::Bytes(bytes.into())).await
    }

    /// The size of an object in bytes, if it is there.
    async fn stat(&self, hash: &Hash) -> Result<Option<u64>, ObjectError> {
        Ok(self.stat_many(&[*hash]).await?.pop().flatten())
    }

    /// A whole object of at most `limit` bytes.
    async fn get_bytes(&self, hash: &Hash, limit: u64) -> Result<Bytes, ObjectError> {
        let mut pieces = self.get(hash, 0..limit.saturating_add(1)).await?;
        let first = pieces.try_next().await?.unwrap_or_default();
        let Some(second) = pieces.try_next().await? else {
            return if first.len() as u64 > limit {
                Err(too_large(self, hash, limit).await?)
            } else {
                Ok(first)
            };
        };
        // No more than is needed: it may be large.
        let size = self.stat(hash).await?.unwrap_or_default().min(limit);
        let mut whole = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        if whole.len() as u64 > limit { Err(too_large(self, hash, limit).await?) } else { Ok(whole.freeze()) }
    }

    /// A whole object as a stream.
    async fn get_stream(&self, hash: &Hash) -> Result<ByteStream, ObjectError> {
        Ok(self.get(hash, 0..u64::MAX).await?.boxed())
    }
}

impl<T: ObjectStore + ?Sized> ObjectStoreExt for T {}

/// The error of an object that is larger than `limit`.
async fn too_large<Store: ObjectStore + ?Sized>(
    store: &Store,
    hash: &Hash,
    limit: u64,
) -> Result<ObjectError, ObjectError> {
    let size = store.stat(hash).await?.unwrap_or(limit);
    Ok(ObjectError::TooLarge { hash: *hash, size, limit })
}
