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
    /// Looks at the bytes of a file that is to be an object, whatever its seal says, and returns its size. One that is something else
    /// is put aside. `fresh` makes a path for a new file.
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
        let size = old.metadata()?.len();
        let copied = File::create_new(&fresh)
            .and_then(|mut new| copy_and_hash(&mut old, size, &mut new).map(|found| (found, new)));
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

/// What the system says of a file, as far as its seal goes.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) size: u64,
    modified: (i64, i64),
    mode: u32,
}

impl Look {
    /// Whether the file has not been written to since `seal`, nor made ready for it, and has the mode that it got then.
    pub(crate) fn is_sealed(&self, mode: u32) -> bool {
        self.modified == (Source::MODIFIED_SECONDS.cast_signed(), 0) && self.mode == mode
    }
}

#[cfg(target_os = "linux")]
impl From<&rustix::fs::Statx> for Look {
    fn from(found: &rustix::fs::Statx) -> Self {
        let modified = (found.stx_mtime.tv_sec, i64::from(found.stx_mtime.tv_nsec));
        Self { size: found.stx_size, modified, mode: u32::from(found.stx_mode) & 0o7777 }
    }
}

impl From<&fs::Metadata> for Look {
    fn from(found: &fs::Metadata) -> Self {
        let modified = (found.mtime(), found.mtime_nsec());
        Self { size: found.len(), modified, mode: found.mode() & 0o7777 }
    }
}

/// What object the bytes of a file are.
pub(crate) fn hash_file(path: &Path) -> io::Result<ObjectRef> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    copy_and_hash(&mut file, size, &mut io::sink())
}
