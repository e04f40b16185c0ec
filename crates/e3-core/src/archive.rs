//! Archives: a package with all its objects in one file, to be kept or passed on.
//!
//! The format is a zip file whose entries are stored, not compressed, with one fixed time, in one fixed order: first
//! `manifest.json` (RFC 8785), which announces every other entry with its hash and size, then `objects/HASH` for each.
//! So the same package makes the same bytes everywhere, and an archive is checked while it is read from front to back.
//!
//! An import reads the archive twice. The first time it only checks: names, order, sizes, hashes, and that what is
//! there is what the package needs. The store is touched the second time, so a bad archive leaves nothing behind.

use std::io::{self, Read, Seek, Write};

use bytes::Bytes;
use e3_types::{ErrorClass, Hash, Hasher, ObjectRef, Package, PackageName, PackageVersion, to_canonical};
use futures::{SinkExt, StreamExt, TryStreamExt, channel::mpsc};
use serde::{Deserialize, Serialize};
use zip::{CompressionMethod, DateTime, ZipWriter, read::read_zipfile_from_stream, write::SimpleFileOptions};

use crate::{
    MemoryStorage, ObjectError, ObjectStoreExt, PackageError, Source, StorageBackend, StorageError, packages,
};

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// The largest manifest that is read, in bytes.
const LARGEST_MANIFEST: u64 = 256 << 20;
/// How many bytes of package, task and `dir` objects are held in memory while an archive is checked.
const LARGEST_STRUCTURE: u64 = 1 << 30;
/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// What an archive announces.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    name: PackageName,
    version: PackageVersion,
    package: ObjectRef,
    tasks: Vec<ObjectRef>,
    dirs: Vec<ObjectRef>,
    files: Vec<ObjectRef>,
}

/// What every manifest has, of whatever format.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Manifest {
    /// All objects in the order of their entries; the flag says whether an object is structure, not data.
    fn objects(&self) -> impl Iterator<Item = (ObjectRef, bool)> {
        let structure = std::iter::once(&self.package).chain(&self.tasks).chain(&self.dirs);
        structure.map(|object| (*object, true)).chain(self.files.iter().map(|object| (*object, false)))
    }
}

/// What goes wrong with archives.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not an archive of e3, or not an honest one. Nothing was imported.
    #[error("not a package archive that can be used: {0}")]
    Refused(String),
    /// The archive was written by a newer e3.
    #[error("the archive has format {found}, but this e3 knows formats up to {FORMAT}: use a newer e3")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// The package in the archive cannot be used.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The archive cannot be read or written.
    #[error("reading or writing the archive: {0}")]
    Io(#[from] io::Error),
    /// Of the storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ArchiveError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(_) | Self::Newer { .. } => ErrorClass::User,
            Self::Package(error) => error.class(),
            Self::Io(_) => ErrorClass::Environment,
            Self::Storage(error) => error.class(),
        }
    }
}

impl From<ObjectError> for ArchiveError {
    fn from(error: ObjectError) -> Self {
        Self::Storage(error.into())
    }
}

/// Writes the package object `object` and all that it needs.
pub async fn export(
    storage: &dyn StorageBackend,
    object: ObjectRef,
    to: &mut (impl Write + Seek + Send),
) -> Result<(), ArchiveError> {
    let package = packages::load(storage, object).await?;
    let packages::Contents { tasks, dirs, files } = packages::contents(storage, &package).await?;
    let Package { name, version, .. } = package;
    let manifest = Manifest { format: FORMAT, name, version, package: object, tasks, dirs, files };
    let json = to_canonical(&manifest).expect("a manifest is names, hashes and sizes");

    let mut zip = ZipWriter::new(to);
    let entry = |size: u64| {
        SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::DEFAULT)
            .unix_permissions(0o444)
            .large_file(size >= u64::from(u32::MAX))
    };
    zip.start_file(MANIFEST, entry(json.len() as u64)).map_err(of_zip)?;
    zip.write_all(&json)?;
    for (object, _) in manifest.objects() {
        zip.start_file(entry_name(object.hash), entry(object.size)).map_err(of_zip)?;
        let mut pieces = storage.objects().get_stream(&object.hash).await?;
        let mut hasher = Hasher::new();
        while let Some(piece) = pieces.try_next().await? {
            hasher.update(&piece);
            zip.write_all(&piece)?;
        }
        if hasher.finish() != object.hash {
            let message = "its bytes do not have its hash".to_owned();
            return Err(ObjectError::Corrupt { hash: object.hash, message }.into());
        }
    }
    zip.finish().map_err(of_zip)?.flush()?;
    Ok(())
}

/// Checks an archive, takes its objects into the store and makes its package known.
pub async fn import(
    storage: &dyn StorageBackend,
    from: &mut (impl Read + Seek + Send),
) -> Result<(Package, ObjectRef), ArchiveError> {
    let (manifest, package) = check(from).await?;
    from.rewind()?;
    let mut reader = Entries::new(from);
    reader.manifest()?;
    for (object, _) in manifest.objects() {
        put(storage, &mut reader, object).await?;
    }
    packages::publish(storage, &package, manifest.package, false).await?;
    Ok((package, manifest.package))
}

/// Reads a whole archive and refuses it unless everything about it is as it should be.
async fn check(from: &mut (impl Read + Send)) -> Result<(Manifest, Package), ArchiveError> {
    let mut reader = Entries::new(from);
    let manifest = reader.manifest()?;
    let sizes = manifest.objects().filter(|(_, structure)| *structure).map(|(object, _)| object.size);
    let structure = sizes.fold(0, u64::saturating_add);
    if structure > LARGEST_STRUCTURE {
        return Err(ArchiveError::Refused(format!("it announces {structure} bytes of structure")));
    }
    let memory = MemoryStorage::default();
    for (object, structure) in manifest.objects() {
        let mut kept = Vec::new();
        reader.object(object, |piece| {
            if structure {
                kept.extend_from_slice(piece);
            }
        })?;
        if structure {
            memory.objects().put_bytes(kept).await?;
        }
    }
    reader.end()?;

    let package = packages::load(&memory, manifest.package).await.map_err(of_content)?;
    if (&package.name, &package.version) != (&manifest.name, &manifest.version) {
        return Err(ArchiveError::Refused("its manifest and its package have different names".to_owned()));
    }
    packages::check(&memory, &package).await.map_err(of_content)?;
    let needed = packages::contents(&memory, &package).await.map_err(of_content)?;
    let announced = packages::Contents {
        tasks: manifest.tasks.clone(),
        dirs: manifest.dirs.clone(),
        files: manifest.files.clone(),
    };
    if needed != announced {
        return Err(ArchiveError::Refused("its objects are not those that its package needs".to_owned()));
    }
    Ok((manifest, package))
}

/// Feeds an entry to the store, piece by piece.
async fn put<R: Read + Send>(
    storage: &dyn StorageBackend,
    reader: &mut Entries<'_, R>,
    object: ObjectRef,
) -> Result<(), ArchiveError> {
    let (mut sender, receiver) = mpsc::channel::<Result<Bytes, ObjectError>>(4);
    let feed = async move {
        let mut entry = reader.open(object)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = entry.read(&mut buffer).map_err(of_read)?;
            // The store says what is wrong if it does not listen any more.
            if read == 0 || sender.send(Ok(Bytes::copy_from_slice(&buffer[..read]))).await.is_err() {
                return Ok::<_, ArchiveError>(());
            }
        }
    };
    let (fed, stored) = futures::join!(feed, storage.objects().put(Source::Stream(receiver.boxed())));
    fed?;
    let stored = stored?;
    if stored != object {
        return Err(ArchiveError::Refused(format!("it changed while it was read: object {}", object.hash)));
    }
    Ok(())
}

/// The entries of an archive, from front to back.
struct Entries<'a, R>(&'a mut R);

impl<'a, R: Read> Entries<'a, R> {
    fn new(from: &'a mut R) -> Self {
        Self(from)
    }

    fn manifest(&mut self) -> Result<Manifest, ArchiveError> {
        let entry = read_zipfile_from_stream(&mut *self.0).map_err(of_zip)?;
        let mut entry = entry.ok_or_else(|| ArchiveError::Refused("it is empty".to_owned()))?;
        if entry.name().map_err(of_zip)? != MANIFEST {
            return Err(ArchiveError::Refused(format!("its first entry is not {MANIFEST}")));
        }
        let mut bytes = Vec::new();
        (&mut entry).take(LARGEST_MANIFEST + 1).read_to_end(&mut bytes).map_err(of_read)?;
        if bytes.len() as u64 > LARGEST_MANIFEST {
            return Err(ArchiveError::Refused(format!(
                "its {MANIFEST} is larger than {LARGEST_MANIFEST} bytes"
            )));
        }
        let refuse =
            |error: &dyn std::fmt::Display| ArchiveError::Refused(format!("its {MANIFEST}: {error}"));
        let Head { format } = serde_json::from_slice(&bytes).map_err(|error| refuse(&error))?;
        if format > FORMAT {
            return Err(ArchiveError::Newer { found: format });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| refuse(&error))?;
        let canonical = to_canonical(&manifest).map_err(|error| refuse(&error))?;
        if canonical != bytes {
            return Err(refuse(&"it is not in canonical form (RFC 8785)"));
        }
        Ok(manifest)
    }

    /// The next entry, which must be this object.
    fn open(&mut self, object: ObjectRef) -> Result<impl Read + use<'_, R>, ArchiveError> {
        let entry = read_zipfile_from_stream(&mut *self.0).map_err(of_zip)?;
        let entry = entry.ok_or_else(|| {
            ArchiveError::Refused(format!("the announced object {} is missing", object.hash))
        })?;
        let (found, expected) = (name_of(&entry)?, entry_name(object.hash));
        if found != expected {
            return Err(ArchiveError::Refused(format!(
                "the entry `{found}` stands where `{expected}` was announced"
            )));
        }
        let sizes = (entry.size(), entry.compressed_size());
        if sizes != (object.size, object.size) || entry.compression() != CompressionMethod::Stored {
            let (found, expected) = (entry.size(), object.size);
            let message = format!("object {} has {found} bytes where {expected} were announced", object.hash);
            return Err(ArchiveError::Refused(message));
        }
        Ok(entry)
    }

    /// Reads the next entry, which must be this object, and hands its bytes over.
    fn object(&mut self, object: ObjectRef, mut piece: impl FnMut(&[u8])) -> Result<(), ArchiveError> {
        let mut entry = self.open(object)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = entry.read(&mut buffer).map_err(of_read)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            piece(&buffer[..read]);
        }
        if hasher.finish() != object.hash {
            return Err(ArchiveError::Refused(format!(
                "the bytes of object {} do not have that hash",
                object.hash
            )));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        match read_zipfile_from_stream(&mut *self.0).map_err(of_zip)? {
            None => Ok(()),
            Some(entry) => {
                Err(ArchiveError::Refused(format!("the entry `{}` was not announced", name_of(&entry)?)))
            }
        }
    }
}

fn name_of<R: Read>(entry: &zip::read::ZipFile<'_, R>) -> Result<String, ArchiveError> {
    Ok(entry.name().map_err(of_zip)?.escape_debug().to_string())
}

fn entry_name(hash: Hash) -> String {
    format!("objects/{hash}")
}

fn of_zip(error: zip::result::ZipError) -> ArchiveError {
    match error {
        zip::result::ZipError::Io(error) => of_read(error),
        other => ArchiveError::Refused(other.to_string()),
    }
}

/// The end of the file in the middle, and a wrong checksum, come as errors of reading.
fn of_read(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Refused("it ends in the middle".to_owned()),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            ArchiveError::Refused(error.to_string())
        }
        _ => ArchiveError::Io(error),
    }
}

/// What cannot be found in an archive is the archive's fault, not the storage's.
fn of_content(error: PackageError) -> ArchiveError {
    match error {
        PackageError::Storage(error) => ArchiveError::Refused(error.to_string()),
        other => ArchiveError::Package(other),
    }
}
