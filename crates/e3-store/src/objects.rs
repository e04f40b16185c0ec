//! Objects as files: written aside and renamed, handed out as reflink, hard link or copy.

mod put;
pub(crate) mod small;
mod stage;
mod sweep;

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_core::{ByteStream, ObjectError, ObjectStamp, ObjectStore, Source, StageItem, Unavailable, parallel};
use e3_types::{Hash, ObjectRef, Timestamp};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use crate::{files::is_missing, integrity::Quarantine, owner::Owners, stamp::mark, writer::Told};

use put::Taken;
pub(crate) use put::copy_and_hash;
use small::{Listed, SmallObjects};

/// How much is read or hashed at once, in bytes.
const CHUNK: usize = 256 << 10;
/// What the name of the executable twin of an object ends in.
const EXECUTABLE_SUFFIX: &str = ".x";
/// So many objects, and so many bytes, are no reason to go to a thread that may block: that costs more than the work.
const FEW: usize = 32;
const LITTLE: u64 = 64 << 10;
/// How many sources are brought in before what becomes rows of them is written: at least so many, and more if they are small.
/// The more rows are written together, the more of them share a page.
const AT_ONCE: usize = 8192;
const MOST_AT_ONCE: usize = 65536;
/// About how many bytes of rows are written together.
const ROWS: usize = 8 << 20;

/// Objects as files under one folder.
#[derive(Debug)]
pub(crate) struct LocalObjects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    quarantine: Quarantine,
    owners: Arc<Owners>,
    small: SmallObjects,
    /// Numbers the files on their way in.
    drawn: AtomicU64,
    /// The file system of the store.
    device: OnceLock<u64>,
    /// Set when the file system has said that it cannot share blocks between files.
    no_reflinks: AtomicBool,
}

impl LocalObjects {
    pub(crate) fn new(
        folder: PathBuf,
        quarantine: PathBuf,
        owners: Arc<Owners>,
        small: SmallObjects,
    ) -> Self {
        Self(Arc::new(Inner {
            folder,
            quarantine: Quarantine(quarantine),
            owners,
            small,
            drawn: AtomicU64::new(0),
            device: OnceLock::new(),
            no_reflinks: AtomicBool::new(false),
        }))
    }

    /// Does what is known to take some microseconds here, and everything else where it may block.
    async fn work<T: Send + 'static>(
        &self,
        is_quick: bool,
        work: impl FnOnce(&Inner) -> Result<T, ObjectError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        if is_quick { work(&self.0) } else { self.blocking(work).await }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ObjectError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|error| Unavailable::new("working on objects", error))?
    }

    /// What the file system says of the folders of the objects, one for each first byte of a hash: whoever adds or removes one
    /// changes it.
    pub(crate) async fn stamp(&self) -> Result<ObjectStamp, ObjectError> {
        self.blocking(|inner| {
            let mark = |first: u8| {
                let folder = inner.folder.join(format!("{first:02x}"));
                mark(&folder, || inner.incoming_path()).map_err(|error| failed("reading", &folder, error))
            };
            Ok(ObjectStamp::new(parallel::for_each((0..=255).collect(), mark)?))
        })
        .await
    }

    pub(crate) async fn put_aside(&self, hashes: Vec<Hash>) -> Result<(), ObjectError> {
        self.blocking(move |inner| {
            for hash in hashes {
                let path = inner.path(&hash);
                let judged = inner.quarantine.judge(&hash, &path, || inner.incoming_path());
                judged.map_err(|error| failed("reading", &path, error))?;
            }
            Ok(())
        })
        .await
    }

    /// Removes rows, and lets whoever has a stamp know.
    async fn forget_rows(&self, rows: Vec<(Hash, Option<Bytes>)>) -> Result<(), ObjectError> {
        if rows.is_empty() {
            return Ok(());
        }
        let hashes: Vec<Hash> = rows.iter().map(|(hash, _)| *hash).collect();
        self.0.small.forget(rows).await?;
        self.blocking(move |inner| inner.tell_of_removal(&hashes)).await
    }

    pub(crate) async fn drop_altered_copies(&self) -> Result<u64, ObjectError> {
        self.blocking(Inner::drop_altered_copies).await
    }

    /// Brings in many: while the rows of one group are written, the next one is read.
    async fn put_all(&self, mut sources: Vec<Source>) -> Result<Vec<ObjectRef>, ObjectError> {
        let mut objects = Vec::with_capacity(sources.len());
        let mut written: Option<Told> = None;
        let mut at_once = AT_ONCE;
        while !sources.is_empty() {
            let rest = sources.split_off(sources.len().min(at_once));
            let group = std::mem::replace(&mut sources, rest);
            let taken = self.blocking(|inner| parallel::for_each(group, |source| inner.take(source))).await?;
            let mut rows = Vec::new();
            for taken in taken {
                objects.push(match taken {
                    Taken::Kept(object) => object,
                    Taken::Small(object, bytes) => {
                        rows.push((object.hash, bytes));
                        object
                    }
                });
            }
            let bytes: usize = rows.iter().map(|(_, bytes)| bytes.len()).sum();
            at_once = rows.len().saturating_mul(ROWS).checked_div(bytes).unwrap_or(0);
            at_once = at_once.clamp(AT_ONCE, MOST_AT_ONCE);
            // In order: neighbours share a page.
            rows.sort_unstable_by_key(|(hash, _)| *hash);
            if let Some(told) = written.take() {
                told.wait().await?;
            }
            if !rows.is_empty() {
                written = Some(self.0.small.put(rows).await?);
            }
        }
        if let Some(told) = written {
            told.wait().await?;
        }
        Ok(objects)
    }

    /// Writes a stream into a file of its own.
    async fn collect(&self, mut pieces: ByteStream) -> Result<PathBuf, ObjectError> {
        let (mut file, path) = self.blocking(Inner::incoming_file).await?;
        while let Some(piece) = pieces.try_next().await? {
            let at = path.clone();
            file = self
                .blocking(move |_| {
                    file.write_all(&piece).map_err(|error| failed("writing", &at, error))?;
                    Ok(file)
                })
                .await?;
        }
        Ok(path)
    }
}

#[async_trait]
impl ObjectStore for LocalObjects {
    async fn put_many(&self, sources: Vec<Source>) -> Result<Vec<ObjectRef>, ObjectError> {
        let mut ready = Vec::with_capacity(sources.len());
        for source in sources {
            ready.push(match source {
                Source::Stream(pieces) => Source::Adopt(self.collect(pieces).await?),
                other => other,
            });
        }
        let is_quick = is_quick(&ready);
        if is_quick {
            return ready.into_iter().map(|source| self.0.put(source)).collect();
        }
        if ready.len() <= FEW {
            return self.blocking(|inner| parallel::for_each(ready, |source| inner.put(source))).await;
        }
        self.put_all(ready).await
    }

    async fn get(&self, hash: &Hash, range: Range<u64>) -> Result<ByteStream, ObjectError> {
        let hash = *hash;
        let opened = self.work(true, move |inner| {
            let path = inner.path(&hash);
            // The file first, if there is one: a task may have altered it, which its row would hide.
            let Some(size) = inner.file_size(&hash)? else {
                let bytes = inner.small.get(&hash)?.ok_or(ObjectError::NotFound(hash))?;
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let (start, end) = (place(range.start), place(range.end));
                return Ok(Opened::Row(bytes.slice(start..end.max(start))));
            };
            let mut file = File::open(&path).map_err(|error| inner.missing_or(hash, "opening", error))?;
            file.seek(SeekFrom::Start(range.start)).map_err(|error| failed("reading", &path, error))?;
            let left = size.min(range.end).saturating_sub(range.start);
            Ok(Opened::File { file: file.take(range.end.saturating_sub(range.start)), path, left })
        });
        let (mut file, path, left) = match opened.await? {
            Opened::Row(bytes) => return Ok(stream::iter([Ok(bytes)]).boxed()),
            Opened::File { file, path, left } => (file, path, left),
        };
        if left <= LITTLE {
            let mut whole = Vec::new();
            file.read_to_end(&mut whole).map_err(|error| failed("reading", &path, error))?;
            return Ok(stream::iter([Ok(Bytes::from(whole))]).boxed());
        }
        let pieces = stream::try_unfold((file, path), |(mut file, path)| async {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = Vec::new();
                let read = (&mut file).take(CHUNK as u64).read_to_end(&mut piece);
                read.map(|_| (Bytes::from(piece), file))
                    .map_err(|error| (error, path.clone()))
                    .map(|done| (done, path))
            });
            match read.await.map_err(|error| Unavailable::new("reading an object", error))? {
                Ok(((piece, _), _)) if piece.is_empty() => Ok(None),
                Ok(((piece, file), path)) => Ok(Some((piece, (file, path)))),
                Err((error, path)) => Err(failed("reading", &path, error)),
            }
        });
        Ok(pieces.boxed())
    }

    async fn stage_many(&self, items: &[StageItem]) -> Result<Vec<u64>, ObjectError> {
        let mut sizes = Vec::with_capacity(items.len());
        if items.len() <= FEW {
            for item in items {
                let size = self.0.size_to_stage(item)?;
                let is_quick = size <= LITTLE;
                if item.executable && !is_quick {
                    break;
                }
                if !self.0.link(item, size)? {
                    if !is_quick {
                        break;
                    }
                    self.0.copy(item)?;
                }
                sizes.push(size);
            }
        }
        let left = items[sizes.len()..].to_vec();
        if !left.is_empty() {
            let staged = self.blocking(|inner| parallel::for_each(left, |item| inner.stage(&item)));
            sizes.extend(staged.await?);
        }
        Ok(sizes)
    }

    async fn stat_many(&self, hashes: &[Hash]) -> Result<Vec<Option<u64>>, ObjectError> {
        let hashes = hashes.to_vec();
        if hashes.len() <= FEW {
            return hashes.iter().map(|hash| self.0.size(hash)).collect();
        }
        self.blocking(move |inner| inner.sizes(&hashes)).await
    }

    async fn list(&self) -> Result<BoxStream<'static, Result<ObjectRef, ObjectError>>, ObjectError> {
        let Listed { objects, altered } = self.blocking(Inner::list).await?;
        let rows = altered.iter().map(|(hash, bytes)| (*hash, Some(bytes.clone()))).collect();
        let keep =
            move |inner: &Inner| altered.iter().try_for_each(|(hash, bytes)| inner.keep_aside(hash, bytes));
        self.blocking(keep).await?;
        self.forget_rows(rows).await?;
        Ok(stream::iter(objects.into_iter().map(Ok)).boxed())
    }

    async fn delete_many(&self, hashes: &[Hash], older_than: Timestamp) -> Result<u64, ObjectError> {
        let hashes = hashes.to_vec();
        let deleted = self.blocking(move |inner| {
            let rows = inner.small.are_older(&hashes, older_than)?;
            let (mut gone, mut old_rows) = (HashSet::new(), Vec::new());
            for hash in hashes {
                // The younger of the two speaks for both.
                let row = rows.get(&hash);
                if row == Some(&false) || inner.is_younger(&hash, older_than)? {
                    continue;
                }
                let had_file = inner.delete_file(&hash)?;
                if (had_file || row.is_some()) && gone.insert(hash) && row.is_some() {
                    old_rows.push((hash, None));
                }
            }
            Ok((gone.len() as u64, old_rows))
        });
        let (deleted, old_rows) = deleted.await?;
        self.forget_rows(old_rows).await?;
        Ok(deleted)
    }
}

/// An object that is about to be read.
enum Opened {
    Row(Bytes),
    File { file: io::Take<File>, path: PathBuf, left: u64 },
}

/// Whether putting these takes some microseconds.
fn is_quick(sources: &[Source]) -> bool {
    let size = |source: &Source| match source {
        Source::Bytes(bytes) => Some(bytes.len() as u64),
        Source::Adopt(path) | Source::Copy(path) => fs::symlink_metadata(path).ok().map(|found| found.len()),
        Source::Stream(_) => None,
    };
    sources.len() <= FEW && sources.iter().map(size).sum::<Option<u64>>().is_some_and(|size| size <= LITTLE)
}

impl Inner {
    fn path(&self, hash: &Hash) -> PathBuf {
        let digits = hash.hex();
        let parts = [&digits[..2], &digits[2..]].map(OsStr::from_bytes);
        // Made in one piece: this is done a dozen times for a task.
        let size = self.folder.as_os_str().len() + digits.len() + parts.len();
        let mut path = PathBuf::with_capacity(size + EXECUTABLE_SUFFIX.len());
        path.push(&self.folder);
        path.extend(parts);
        path
    }

    fn executable_path(&self, hash: &Hash) -> PathBuf {
        let mut path = self.path(hash).into_os_string();
        path.push(EXECUTABLE_SUFFIX);
        path.into()
    }

    fn missing_or(&self, hash: Hash, doing: &str, error: io::Error) -> ObjectError {
        if is_missing(&error) { ObjectError::NotFound(hash) } else { failed(doing, &self.path(&hash), error) }
    }

    /// A path that nobody else uses, in the folder of files on their way in.
    fn incoming_path(&self) -> io::Result<PathBuf> {
        Ok(self.owners.incoming()?.join(self.drawn.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    /// A new file there.
    fn incoming_file(&self) -> Result<(File, PathBuf), ObjectError> {
        let path = self.incoming_path().map_err(|error| failed("making", &self.folder, error))?;
        let file = File::create_new(&path).map_err(|error| failed("making", &path, error))?;
        Ok((file, path))
    }

    /// The size of an object; none if it is not there, or is not what it was.
    fn size(&self, hash: &Hash) -> Result<Option<u64>, ObjectError> {
        match self.file_size(hash)? {
            None => Ok(self.small.sizes(&[*hash])?[0]),
            found => Ok(found),
        }
    }

    /// The sizes of many: most are of one kind, that of the first of them, and what is not is asked about once more.
    fn sizes(&self, hashes: &[Hash]) -> Result<Vec<Option<u64>>, ObjectError> {
        let first = hashes.iter().take(FEW).map(|hash| self.file_size(hash));
        let first: Vec<Option<u64>> = first.collect::<Result<_, _>>()?;
        let are_files = first.iter().flatten().count() * 2 > first.len();
        let in_files = |some: Vec<Hash>| parallel::for_each(some, |hash| self.file_size(&hash));
        let in_rows = |some: Vec<Hash>| self.small.sizes(&some).map_err(ObjectError::from);
        let ask = |files: bool, some: Vec<Hash>| if files { in_files(some) } else { in_rows(some) };
        let mut sizes = ask(are_files, hashes.to_vec())?;
        let missing: Vec<usize> = (0..sizes.len()).filter(|place| sizes[*place].is_none()).collect();
        let others = ask(!are_files, missing.iter().map(|place| hashes[*place]).collect())?;
        for (place, size) in missing.into_iter().zip(others) {
            sizes[place] = size;
        }
        Ok(sizes)
    }

    /// The size of an object that has a file.
    fn file_size(&self, hash: &Hash) -> Result<Option<u64>, ObjectError> {
        let path = self.path(hash);
        self.quarantine
            .sound_size(hash, &path, || self.incoming_path())
            .map_err(|error| failed("reading", &path, error))
    }
}

fn failed(doing: &str, path: &Path, error: io::Error) -> ObjectError {
    Unavailable::new(format!("{doing} `{}`", path.display()), error).into()
}
