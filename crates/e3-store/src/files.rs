//! Small operations on files that the standard library leaves to its users.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::integrity::Look;

/// A folder that is held open: to what is in it, names in it are a shorter way than whole paths.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    handle: OnceLock<OwnedFd>,
}

impl Folder {
    /// It need not be there yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, handle: OnceLock::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For system calls on names in it.
    pub(crate) fn handle(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle.as_fd());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, &self.path, flags, Mode::empty())?;
        // Another thread may have been quicker.
        Ok(self.handle.get_or_init(|| opened).as_fd())
    }

    /// Opens a file in it for reading.
    pub(crate) fn open(&self, name: &[u8]) -> io::Result<File> {
        Ok(openat(self.handle()?, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// Looks at a file in it.
    #[cfg(target_os = "linux")]
    pub(crate) fn look(&self, name: &[u8]) -> io::Result<Look> {
        use rustix::fs::{AtFlags, StatxFlags, statx};
        let found = statx(self.handle()?, name, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
        Ok(Look::from(&found))
    }

    /// Looks at a file in it.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn look(&self, name: &[u8]) -> io::Result<Look> {
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name);
        Ok(Look::from(&fs::metadata(self.path.join(name))?))
    }
}

/// Whether the error says that there is no such file.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Creates the folders above `path`, then tries again: they are missing only the first time.
pub(crate) fn with_parent<T>(path: &Path, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match attempt() {
        Err(error) if is_missing(&error) => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            attempt()
        }
        other => other,
    }
}

/// Removes a folder with all that is in it, also where a task has taken away the permission to do so. That nothing is
/// there is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock_folders(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn unlock_folders(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock_folders(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_permissions_is_removed_too() {
        let outer = tempfile::tempdir().unwrap();
        let tree = outer.path().join("tree");
        fs::create_dir_all(tree.join("closed/inner")).unwrap();
        fs::write(tree.join("closed/inner/file"), "x").unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        remove_tree(&tree).unwrap();
    }
}
