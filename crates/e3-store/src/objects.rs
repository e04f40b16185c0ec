//! Objects as files: written aside and renamed, handed out as reflink, hard link or copy.

mod stage;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_core::{ByteStream, ObjectError, ObjectStore, Source, StageItem, Unavailable, parallel};
use e3_types::{Hash, Hasher, ObjectRef, Timestamp};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use crate::{
    files::{is_missing, with_parent},
    integrity::{PLAIN, Quarantine, hash_file, is_sealed, open_in_any_mode, seal},
    owner::Owners,
    stamp::stamp,
};

/// How much is read or hashed at once, in bytes.
const CHUNK: usize = 256 << 10;
/// So many objects, and so many bytes, are no reason to go to a thread that may block: that costs more than the work.
const FEW: usize = 32;
const LITTLE: u64 = 64 << 10;

/// Objects as files under one folder.
#[derive(Debug)]
pub(crate) struct LocalObjects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    quarantine: Quarantine,
    owners: Arc<Owners>,
    /// Numbers the files on their way in.
    drawn: AtomicU64,
    /// The file system of the store.
    device: OnceLock<u64>,
    /// Set when the file system has said that it cannot share blocks between files.
    no_reflinks: AtomicBool,
}

impl LocalObjects {
    pub(crate) fn new(folder: PathBuf, quarantine: PathBuf, owners: Arc<Owners>) -> Self {
        Self(Arc::new(Inner {
            folder,
            quarantine: Quarantine(quarantine),
            owners,
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

    /// What the file system says of the folders of the objects: whoever adds or removes one changes it.
    pub(crate) async fn stamp(&self) -> Result<String, ObjectError> {
        self.blocking(|inner| {
            let mut folders = entries(&inner.folder)?;
            folders.sort_unstable();
            let stamp = stamp(&folders, || inner.incoming_path());
            stamp.map_err(|(folder, error)| failed("reading", folder, error))
        })
        .await
    }

    pub(crate) async fn put_aside(&self, hashes: Vec<Hash>) -> Result<(), ObjectError> {
        self.blocking(move |inner| {
            for hash in &hashes {
                let path = inner.path(hash);
                let judged = inner.quarantine.judge(hash, &path, || inner.incoming_path());
                judged.map_err(|error| failed("reading", &path, error))?;
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn drop_altered_copies(&self) -> Result<u64, ObjectError> {
        self.blocking(Inner::drop_altered_copies).await
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
        self.blocking(move |inner| parallel::for_each(ready, |source| inner.put(source))).await
    }

    async fn get(&self, hash: &Hash, range: Range<u64>) -> Result<ByteStream, ObjectError> {
        let hash = *hash;
        let opened = self.work(true, move |inner| {
            let path = inner.path(&hash);
            let size = inner.size(&hash)?.ok_or(ObjectError::NotFound(hash))?;
            let mut file = File::open(&path).map_err(|error| inner.missing_or(hash, "opening", error))?;
            file.seek(SeekFrom::Start(range.start)).map_err(|error| failed("reading", &path, error))?;
            let left = size.min(range.end).saturating_sub(range.start);
            Ok((file.take(range.end.saturating_sub(range.start)), path, left))
        });
        let (mut file, path, left) = opened.await?;
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
        self.blocking(move |inner| parallel::for_each(hashes, |hash| inner.size(&hash))).await
    }

    async fn list(&self) -> Result<BoxStream<'static, Result<ObjectRef, ObjectError>>, ObjectError> {
        let objects = self.blocking(Inner::list).await?;
        Ok(stream::iter(objects.into_iter().map(Ok)).boxed())
    }

    async fn delete_many(&self, hashes: &[Hash], older_than: Timestamp) -> Result<u64, ObjectError> {
        let hashes = hashes.to_vec();
        self.blocking(move |inner| {
            let mut deleted = 0;
            for hash in &hashes {
                deleted += u64::from(inner.delete(hash, older_than)?);
            }
            Ok(deleted)
        })
        .await
    }
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
        let digits = hash.to_string();
        self.folder.join(&digits[..2]).join(&digits[2..])
    }

    fn executable_path(&self, hash: &Hash) -> PathBuf {
        let mut path = self.path(hash).into_os_string();
        path.push(".x");
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

    fn put(&self, source: Source) -> Result<ObjectRef, ObjectError> {
        match source {
            Source::Bytes(bytes) => {
                let object = ObjectRef::of(&bytes);
                if self.size(&object.hash)? == Some(object.size) {
                    return Ok(object);
                }
                self.put_new(|file, path| {
                    file.write_all(&bytes).map_err(|error| failed("writing", path, error))?;
                    Ok(object)
                })
            }
            Source::Copy(from) => self.put_copy(&from),
            Source::Adopt(from) => {
                let mut file = open_in_any_mode(&from).map_err(|error| failed("reading", &from, error))?;
                let metadata = file.metadata().map_err(|error| failed("reading", &from, error))?;
                // A file with another name could be changed under that name: its bytes come in, not the file.
                if metadata.nlink() == 1 && self.same_file_system(&metadata) {
                    // Sealed first: who still writes to it while it is hashed breaks the seal.
                    seal(&file, PLAIN).map_err(|error| failed("sealing", &from, error))?;
                    let object = copy_and_hash(&mut file, &mut io::sink());
                    let object = object.map_err(|error| failed("reading", &from, error))?;
                    let after = file.metadata().map_err(|error| failed("reading", &from, error))?;
                    if !is_sealed(&after, PLAIN) || after.len() != object.size {
                        let busy = io::Error::other(
                            "it is still being written to, by something that the task left running",
                        );
                        return Err(failed("storing", &from, busy));
                    }
                    self.keep(&from, object)?;
                    return Ok(object);
                }
                // It may be another name of an object that was staged: then nothing has to be written.
                let known = if metadata.nlink() > 1 {
                    let object = copy_and_hash(&mut file, &mut io::sink());
                    let object = object.map_err(|error| failed("reading", &from, error))?;
                    (self.size(&object.hash)? == Some(object.size)).then_some(object)
                } else {
                    None
                };
                let object = known.map_or_else(|| self.put_copy(&from), Ok)?;
                fs::remove_file(&from).map_err(|error| failed("removing", &from, error))?;
                Ok(object)
            }
            Source::Stream(_) => {
                Err(Unavailable::new("putting an object", "streams are collected before").into())
            }
        }
    }

    /// Whether a file can be moved into the store.
    fn same_file_system(&self, metadata: &fs::Metadata) -> bool {
        let device = || fs::metadata(self.owners.incoming()?).map(|own| own.dev());
        let own = match self.device.get() {
            Some(own) => Ok(*own),
            None => device().map(|own| *self.device.get_or_init(|| own)),
        };
        own.is_ok_and(|own| own == metadata.dev())
    }

    fn put_copy(&self, from: &Path) -> Result<ObjectRef, ObjectError> {
        let mut source = File::open(from).map_err(|error| failed("reading", from, error))?;
        self.put_new(|file, path| {
            if self.reflink(&source, file) {
                return hash_file(path).map_err(|error| failed("reading", path, error));
            }
            copy_and_hash(&mut source, file).map_err(|error| failed("copying", from, error))
        })
    }

    /// Fills a new file and makes an object of it.
    fn put_new(
        &self,
        fill: impl FnOnce(&mut File, &Path) -> Result<ObjectRef, ObjectError>,
    ) -> Result<ObjectRef, ObjectError> {
        let (mut file, path) = self.incoming_file()?;
        let kept = fill(&mut file, &path).and_then(|object| {
            seal(&file, PLAIN).map_err(|error| failed("sealing", &path, error))?;
            self.keep(&path, object).map(|()| object)
        });
        if kept.is_err() {
            // The first error is the one to report; the file goes with this process's folder at the latest.
            drop(fs::remove_file(&path));
        }
        kept
    }

    /// Moves a finished, sealed file to its place. If the object is there already, the file is removed.
    fn keep(&self, from: &Path, object: ObjectRef) -> Result<(), ObjectError> {
        let to = self.path(&object.hash);
        if self.size(&object.hash)? == Some(object.size) {
            return fs::remove_file(from).map_err(|error| failed("removing", from, error));
        }
        with_parent(&to, || fs::rename(from, &to)).map_err(|error| failed("storing", &to, error))
    }

    /// The size of an object; none if it is not there, or is not what it was.
    fn size(&self, hash: &Hash) -> Result<Option<u64>, ObjectError> {
        let path = self.path(hash);
        self.quarantine
            .sound_size(hash, &path, || self.incoming_path())
            .map_err(|error| failed("reading", &path, error))
    }

    fn list(&self) -> Result<Vec<ObjectRef>, ObjectError> {
        let mut objects = Vec::new();
        for folder in entries(&self.folder)? {
            let Some(start) = folder.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                continue;
            };
            for path in entries(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Ok(hash) = format!("{start}{name}").parse() else { continue };
                objects.extend(self.size(&hash)?.map(|size| ObjectRef { hash, size }));
            }
        }
        Ok(objects)
    }

    fn drop_altered_copies(&self) -> Result<u64, ObjectError> {
        let mut dropped = 0;
        for folder in entries(&self.folder)? {
            for path in
                entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "x"))
            {
                let (start, name) = (folder.file_name(), path.file_stem());
                let (Some(start), Some(name)) = (start, name) else { continue };
                let hash = format!("{}{}", start.to_string_lossy(), name.to_string_lossy()).parse::<Hash>();
                let found = hash_file(&path).map_err(|error| failed("reading", &path, error))?;
                if hash.is_ok_and(|hash| hash != found.hash) {
                    fs::remove_file(&path).map_err(|error| failed("removing", &path, error))?;
                    dropped += 1;
                }
            }
        }
        Ok(dropped)
    }

    /// The time of the last link counts as use: an object that was staged since is spared.
    fn delete(&self, hash: &Hash, older_than: Timestamp) -> Result<bool, ObjectError> {
        let path = self.path(hash);
        let metadata = match fs::metadata(&path) {
            Err(error) if is_missing(&error) => return Ok(false),
            other => other.map_err(|error| failed("reading", &path, error))?,
        };
        let changed_ms = metadata.ctime() * 1000 + metadata.ctime_nsec() / 1_000_000;
        if u64::try_from(changed_ms).unwrap_or(0) >= older_than.unix_ms() {
            return Ok(false);
        }
        for path in [self.executable_path(hash), path] {
            match fs::remove_file(&path) {
                Err(error) if !is_missing(&error) => return Err(failed("deleting", &path, error)),
                _ => {}
            }
        }
        Ok(true)
    }
}

/// The paths in a folder; none if it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    let read = match fs::read_dir(folder) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        other => other.map_err(|error| failed("listing", folder, error))?,
    };
    read.map(|entry| Ok(entry.map_err(|error| failed("listing", folder, error))?.path())).collect()
}

/// Copies all bytes and says what object they are.
pub(crate) fn copy_and_hash(from: &mut File, to: &mut impl Write) -> io::Result<ObjectRef> {
    let mut hasher = Hasher::new();
    let mut size = 0;
    // No larger than the file: most are small, and a fresh buffer is cleared first.
    let expected = usize::try_from(from.metadata()?.len()).unwrap_or(CHUNK);
    let mut buffer = vec![0; expected.clamp(1, CHUNK - 1) + 1];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(ObjectRef { hash: hasher.finish(), size });
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        size += read as u64;
    }
}

fn failed(doing: &str, path: &Path, error: io::Error) -> ObjectError {
    Unavailable::new(format!("{doing} `{}`", path.display()), error).into()
}
