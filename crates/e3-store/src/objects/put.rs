//! Objects on their way in: written aside, sealed, and renamed to their place.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use bytes::Bytes;
use e3_core::{ObjectError, Source, Unavailable};
use e3_types::{Hasher, ObjectRef};
#[cfg(target_os = "linux")]
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::{CHUNK, Inner, failed, small::small_bytes};
use crate::{
    files::{is_missing, with_parent},
    integrity::{PLAIN, hash_file, is_sealed, open_in_any_mode, seal},
};

/// A source that has been read.
pub(super) enum Taken {
    Kept(ObjectRef),
    /// It is to become a row.
    Small(ObjectRef, Bytes),
}

impl Inner {
    pub(super) fn put(&self, source: Source) -> Result<ObjectRef, ObjectError> {
        match source {
            Source::Bytes(bytes) => {
                let object = ObjectRef::of(&bytes);
                if self.file_size(&object.hash)? == Some(object.size) {
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
                    (self.file_size(&object.hash)? == Some(object.size)).then_some(object)
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
        match with_parent(&to, || rename_to_new(from, &to)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(|error| failed("storing", &to, error)),
        }
        if self.file_size(&object.hash)? == Some(object.size) {
            return fs::remove_file(from).map_err(|error| failed("removing", from, error));
        }
        with_parent(&to, || fs::rename(from, &to)).map_err(|error| failed("storing", &to, error))
    }

    /// Brings a source in, one of many.
    pub(super) fn take(&self, source: Source) -> Result<Taken, ObjectError> {
        let small = small_bytes(&source).map_err(|error| match &source {
            Source::Copy(path) => failed("reading", path, error),
            _ => Unavailable::new("reading an object", error).into(),
        });
        match small? {
            Some(bytes) => Ok(Taken::Small(ObjectRef::of(&bytes), bytes)),
            None => self.put(source).map(Taken::Kept),
        }
    }
}

/// Renames a file, unless there is one of that name. Where the system cannot say so at once, it is looked at before.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // This file system does not know how.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return Ok(other?),
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if is_missing(&error) => fs::rename(from, to),
        Err(error) => Err(error),
    }
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
