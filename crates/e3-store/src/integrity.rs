//! Whether the file of an object is still the object.
//!
//! Objects are sealed: read-only, with one fixed modification time. A task that writes to a file that shares its storage with
//! an object breaks the seal, and is noticed whenever somebody next looks. Then the bytes decide: an object that only
//! lost its seal becomes a new file with the same bytes, any other file is put aside, where it is nobody's object and nothing
//! is lost. The old file never gets its seal back: whoever else looks at it has to see that it was touched.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use e3_core::Source;
use e3_types::{Hash, ObjectRef};

use crate::{
    files::{is_missing, with_parent},
    objects::copy_and_hash,
};

/// The mode of an object, and that of its executable twin.
pub(crate) const PLAIN: u32 = 0o444;
pub(crate) const EXECUTABLE: u32 = 0o555;

/// Where altered files are put.
#[derive(Debug)]
pub(crate) struct Quarantine(pub(crate) PathBuf);

impl Quarantine {
    /// The size of an object that is to be at `path`, if it is there and whole. A file that is something else is put aside.
    /// `fresh` makes a path for a new file.
    pub(crate) fn sound_size(
        &self,
        hash: &Hash,
        path: &Path,
        fresh: impl FnOnce() -> io::Result<PathBuf>,
    ) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(metadata) if is_sealed(&metadata, PLAIN) => Ok(Some(metadata.len())),
            Ok(_) => self.judge(hash, path, fresh),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks at the bytes of a file, whatever its seal says.
    pub(crate) fn judge(
        &self,
        hash: &Hash,
        path: &Path,
        fresh: impl FnOnce() -> io::Result<PathBuf>,
    ) -> io::Result<Option<u64>> {
        let mut old = match open_in_any_mode(path) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        let fresh = fresh()?;
        let copied = File::create_new(&fresh)
            .and_then(|mut new| copy_and_hash(&mut old, &mut new).map(|found| (found, new)));
        let found = match copied {
            Ok((found, new)) if found.hash == *hash => {
                return seal(&new, PLAIN).and_then(|()| fs::rename(&fresh, path)).map(|()| Some(found.size));
            }
            other => {
                // It goes with the folder of this process, at the latest.
                drop(fs::remove_file(&fresh));
                other?.0
            }
        };
        tracing::info!(object = %hash, "the file of an object was altered: it is put aside");
        let aside = self.0.join(format!("{hash}-{}", found.hash));
        match with_parent(&aside, || fs::rename(path, &aside)) {
            // Somebody else has put it aside.
            Err(error) if is_missing(&error) => Ok(None),
            other => other.map(|()| None),
        }
    }
}

/// Sets the mode and the modification time that e3's files have. Nothing may be written to the file afterwards.
pub(crate) fn seal(file: &File, mode: u32) -> io::Result<()> {
    file.set_modified(UNIX_EPOCH + Duration::from_secs(Source::MODIFIED_SECONDS))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Opens a file for reading that a task may have made one which even its owner may not read.
pub(crate) fn open_in_any_mode(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o400))?;
            File::open(path)
        }
        other => other,
    }
}

/// Whether a file has not been written to since `seal`, nor made ready for it, and has the mode that it got then.
pub(crate) fn is_sealed(metadata: &fs::Metadata, mode: u32) -> bool {
    let time = (metadata.mtime(), metadata.mtime_nsec());
    time == (Source::MODIFIED_SECONDS.cast_signed(), 0) && metadata.mode() & 0o7777 == mode
}

/// What object the bytes of a file are.
pub(crate) fn hash_file(path: &Path) -> io::Result<ObjectRef> {
    copy_and_hash(&mut File::open(path)?, &mut io::sink())
}
