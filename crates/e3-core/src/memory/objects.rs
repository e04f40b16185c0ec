//! `MemoryObjects`: objects in a map.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Mutex,
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use e3_types::{Hash, ObjectRef, Timestamp};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use super::lock;
use crate::{
    Access, ByteStream, Clock, ObjectError, ObjectStamp, ObjectStore, Source, StageItem, SystemClock,
    Unavailable,
};

/// Objects in a map, by hash, with the time when each was put.
#[derive(Debug, Default)]
pub struct MemoryObjects(Mutex<HashMap<Hash, (Bytes, Timestamp)>>);

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn put_many(&self, sources: Vec<Source>) -> Result<Vec<ObjectRef>, ObjectError> {
        let mut refs = Vec::with_capacity(sources.len());
        for source in sources {
            let bytes = match source {
                Source::Bytes(bytes) => bytes,
                Source::Stream(mut pieces) => {
                    let mut whole = BytesMut::new();
                    while let Some(piece) = pieces.try_next().await? {
                        whole.extend_from_slice(&piece);
                    }
                    whole.freeze()
                }
                Source::Copy(path) => read(&path)?,
                Source::Adopt(path) => {
                    let bytes = read(&path)?;
                    fs::remove_file(&path).map_err(|error| unavailable("removing", &path, error))?;
                    bytes
                }
            };
            let object = ObjectRef::of(&bytes);
            lock(&self.0).entry(object.hash).or_insert((bytes, SystemClock.now()));
            refs.push(object);
        }
        Ok(refs)
    }

    async fn get(&self, hash: &Hash, range: Range<u64>) -> Result<ByteStream, ObjectError> {
        let bytes = self.bytes(hash)?;
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        Ok(stream::iter([Ok(bytes.slice(start..end))]).boxed())
    }

    async fn stage_many(&self, items: &[StageItem]) -> Result<Vec<u64>, ObjectError> {
        let mut sizes = Vec::with_capacity(items.len());
        for item in items {
            let bytes = self.bytes(&item.hash)?;
            let size = bytes.len() as u64;
            item.check_size(size)?;
            stage(item, &bytes).map_err(|error| unavailable("staging", &item.to, error))?;
            sizes.push(size);
        }
        Ok(sizes)
    }

    async fn stat_many(&self, hashes: &[Hash]) -> Result<Vec<Option<u64>>, ObjectError> {
        let objects = lock(&self.0);
        Ok(hashes.iter().map(|hash| objects.get(hash).map(|(bytes, _)| bytes.len() as u64)).collect())
    }

    async fn list(&self) -> Result<BoxStream<'static, Result<ObjectRef, ObjectError>>, ObjectError> {
        let all: Vec<_> = lock(&self.0)
            .iter()
            .map(|(hash, (bytes, _))| Ok(ObjectRef { hash: *hash, size: bytes.len() as u64 }))
            .collect();
        Ok(stream::iter(all).boxed())
    }

    async fn delete_many(&self, hashes: &[Hash], older_than: Timestamp) -> Result<u64, ObjectError> {
        let mut objects = lock(&self.0);
        let before = objects.len();
        for hash in hashes {
            if objects.get(hash).is_some_and(|(_, put)| *put < older_than) {
                objects.remove(hash);
            }
        }
        Ok((before - objects.len()) as u64)
    }
}

impl MemoryObjects {
    /// Which objects there are.
    /// A mark for each first byte of a hash: the objects that begin so, mixed.
    pub(super) fn stamp(&self) -> ObjectStamp {
        let mut marks = vec![0; 256];
        for hash in lock(&self.0).keys() {
            let [first, _, _, _, rest @ ..] = hash.as_bytes();
            let mixed = rest.iter().take(8).fold(0_u64, |mixed, byte| mixed << 8 | u64::from(*byte));
            marks[usize::from(*first)] ^= mixed;
        }
        ObjectStamp::new(marks)
    }

    fn bytes(&self, hash: &Hash) -> Result<Bytes, ObjectError> {
        lock(&self.0).get(hash).map(|(bytes, _)| bytes.clone()).ok_or(ObjectError::NotFound(*hash))
    }
}

fn read(path: &Path) -> Result<Bytes, ObjectError> {
    fs::read(path).map(Bytes::from).map_err(|error| unavailable("reading", path, error))
}

fn stage(item: &StageItem, bytes: &[u8]) -> std::io::Result<()> {
    let mode = match (item.access, item.executable) {
        (Access::ReadOnly, false) => 0o444,
        (Access::ReadOnly, true) => 0o555,
        (Access::Private, false) => 0o644,
        (Access::Private, true) => 0o755,
    };
    if item.again && fs::symlink_metadata(&item.to).is_ok() {
        fs::remove_file(&item.to)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&item.to)?;
    file.write_all(bytes)?;
    file.set_modified(UNIX_EPOCH + Duration::from_secs(Source::MODIFIED_SECONDS))
}

fn unavailable(doing: &str, path: &Path, error: std::io::Error) -> ObjectError {
    Unavailable::new(format!("{doing} `{}`", path.display()), error).into()
}
