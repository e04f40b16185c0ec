//! Objects as files for tasks: a hard link, shared blocks, or a copy.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::Ordering,
};

use e3_core::{Access, ObjectError, Source, StageItem};
use e3_types::Hash;

use super::{Inner, failed};
use crate::{
    files::is_missing,
    integrity::{EXECUTABLE, PLAIN, is_sealed, seal},
};

/// How often a file is linked that is being replaced by one like it.
const TRIES: usize = 16;

impl Inner {
    /// Puts an object in its place and returns its size.
    pub(super) fn stage(&self, item: &StageItem) -> Result<u64, ObjectError> {
        let size = self.size_to_stage(item)?;
        if !self.link(item, size)? {
            self.copy(item)?;
        }
        Ok(size)
    }

    pub(super) fn size_to_stage(&self, item: &StageItem) -> Result<u64, ObjectError> {
        let size = match self.file_size(&item.hash)? {
            None => self.make_file(&item.hash)?,
            found => found,
        };
        let size = size.ok_or(ObjectError::NotFound(item.hash))?;
        item.check_size(size)?;
        Ok(size)
    }

    /// Gives an object that is a row its file, and returns its size; none if there is no such row.
    fn make_file(&self, hash: &Hash) -> Result<Option<u64>, ObjectError> {
        let Some(bytes) = self.small.get(hash)? else { return Ok(None) };
        self.put(Source::Bytes(bytes)).map(|object| Some(object.size))
    }

    pub(super) fn copy(&self, item: &StageItem) -> Result<(), ObjectError> {
        let hash = item.hash;
        let path = self.path(&hash);
        let mut source = File::open(&path).map_err(|error| self.missing_or(hash, "opening", error))?;
        if item.again {
            remove_if_there(&item.to).map_err(|error| failed("replacing", &item.to, error))?;
        }
        let mode = match (item.access, item.executable) {
            (Access::ReadOnly, false) => PLAIN,
            (Access::ReadOnly, true) => EXECUTABLE,
            (Access::Private, false) => 0o644,
            (Access::Private, true) => 0o755,
        };
        self.copy_to(&mut source, &item.to, mode).map_err(|error| failed("staging", &item.to, error))
    }

    /// Links an object to its place; false if it is to be private, or the file system does not want to.
    pub(super) fn link(&self, item: &StageItem, size: u64) -> Result<bool, ObjectError> {
        if item.access == Access::Private {
            return Ok(false);
        }
        if item.again && !item.executable && self.is_linked(item)? {
            return Ok(true);
        }
        for _ in 0..TRIES {
            match self.link_now(item, size)? {
                Err(error) if item.again && error.kind() == io::ErrorKind::AlreadyExists => {
                    remove_if_there(&item.to).map_err(|error| failed("replacing", &item.to, error))?;
                }
                // Whoever puts the same object at the same time replaces its file, and one that has no name left cannot be
                // linked.
                Err(error) if is_missing(&error) && self.file_size(&item.hash)?.is_some() => {}
                Ok(()) => return Ok(true),
                Err(error)
                    // The last two where files of others must not be linked, or there are no links: a copy will do.
                    if matches!(
                        error.kind(),
                        io::ErrorKind::CrossesDevices
                            | io::ErrorKind::TooManyLinks
                            | io::ErrorKind::PermissionDenied
                            | io::ErrorKind::Unsupported
                    ) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(failed("staging", &item.to, error)),
            }
        }
        Ok(false)
    }

    /// Whether the object's own file is in the place already.
    fn is_linked(&self, item: &StageItem) -> Result<bool, ObjectError> {
        let look = |path: &Path| match fs::symlink_metadata(path) {
            Err(error) if is_missing(&error) => Ok(None),
            other => other
                .map(|file| Some((file.dev(), file.ino())))
                .map_err(|error| failed("reading", path, error)),
        };
        let there = look(&item.to)?;
        Ok(there.is_some() && there == look(&self.path(&item.hash))?)
    }

    fn link_now(&self, item: &StageItem, size: u64) -> Result<io::Result<()>, ObjectError> {
        let path = self.path(&item.hash);
        if !item.executable {
            return Ok(fs::hard_link(path, &item.to));
        }
        let executable = self.executable_path(&item.hash);
        let is_sound = |metadata: fs::Metadata| is_sealed(&metadata, EXECUTABLE) && metadata.len() == size;
        if !fs::metadata(&executable).is_ok_and(is_sound) {
            self.make_executable(&path, &executable)?;
        }
        Ok(fs::hard_link(&executable, &item.to))
    }

    /// Makes the second inode of an object, the one with the executable bit.
    fn make_executable(&self, path: &Path, executable: &Path) -> Result<(), ObjectError> {
        let aside = self.incoming_path().map_err(|error| failed("making", &self.folder, error))?;
        File::open(path)
            .and_then(|mut source| self.copy_to(&mut source, &aside, EXECUTABLE))
            .and_then(|()| fs::rename(&aside, executable))
            .map_err(|error| failed("making", executable, error))
    }

    /// A private copy with the modification time that all staged files have.
    fn copy_to(&self, source: &mut File, to: &Path, mode: u32) -> io::Result<()> {
        let mut file = File::create_new(to)?;
        if !self.reflink(source, &file) {
            io::copy(source, &mut file)?;
        }
        seal(&file, mode)
    }

    /// Makes `to` share the blocks of `from`; false if the file system cannot.
    pub(super) fn reflink(&self, from: &File, to: &File) -> bool {
        if self.no_reflinks.load(Ordering::Relaxed) {
            return false;
        }
        #[cfg(target_os = "linux")]
        let done = rustix::fs::ioctl_ficlone(to, from).is_ok();
        // APFS clones by name, not by open file; std's copy uses that, so nothing is lost but the sharing here.
        #[cfg(not(target_os = "linux"))]
        let done = false;
        if !done {
            // Also where only this pair cannot be shared: a copy is always right.
            self.no_reflinks.store(true, Ordering::Relaxed);
        }
        done
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}
