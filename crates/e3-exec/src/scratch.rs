//! The folders in which tasks run. Each is used by one task at a time, and emptied, not made anew, for the next: making and
//! removing folders is among the most expensive things that a file system does.
//!
//! ```text
//! scratch/OWNER/N/work/          the working folder
//! scratch/OWNER/N/work/inputs/   what is staged under a name
//! scratch/OWNER/N/tmp/           TMPDIR
//! ```

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The folders of one process.
#[derive(Debug)]
pub struct Scratches {
    folder: PathBuf,
    drawn: AtomicU64,
    free: Mutex<Vec<Scratch>>,
}

/// A folder for one task.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// How its folders looked when they were made: a task may do anything to them.
    looks: [Look; 4],
    /// It is not to be used again.
    is_retired: bool,
}

/// A folder as it was made.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    inode: u64,
    mode: u32,
    /// What cannot be seen from its mode: extended attributes, access control lists among them, and flags such as
    /// "immutable", where the system has them.
    more: (usize, u64),
}

impl Scratches {
    /// Folders in `folder`, which must be there; best on the file system of the objects.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, drawn: AtomicU64::new(0), free: Mutex::default() }
    }

    /// The folder in which all of them are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// An empty one.
    pub(crate) fn take(&self) -> io::Result<Scratch> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.map_or_else(
            || Scratch::make(self.folder.join(self.drawn.fetch_add(1, Ordering::Relaxed).to_string())),
            Ok,
        )
    }

    /// Empties one for the next task, after it was examined. One that is retired, or cannot be emptied, is removed.
    pub(crate) fn give_back(&self, scratch: Scratch) -> io::Result<()> {
        if !scratch.is_retired && scratch.empty().is_ok() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
            return Ok(());
        }
        scratch.remove()
    }
}

impl Drop for Scratches {
    fn drop(&mut self) {
        for scratch in self.free.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Err(error) = scratch.remove() {
                // It goes with the next start.
                tracing::info!(%error, folder = %self.folder.display(), "a scratch folder was left behind");
            }
        }
    }
}

impl Scratch {
    fn make(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        let [_, work, inputs, temporary] = Self::folders(&path);
        for folder in [&work, &inputs, &temporary] {
            fs::create_dir(folder)?;
        }
        let looks = [look(&path)?.0, look(&work)?.0, look(&inputs)?.0, look(&temporary)?.0];
        Ok(Self { looks, path, is_retired: false })
    }

    fn folders(path: &Path) -> [PathBuf; 4] {
        [path.to_owned(), path.join("work"), path.join("work/inputs"), path.join("tmp")]
    }

    /// Says whether it must not be used again: something of the task may still be at work in it.
    pub(crate) fn retire(&mut self, is_retired: bool) {
        self.is_retired = is_retired;
    }

    /// All of it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The working folder.
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// The folder for temporary files.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Looks at what the task has left of it: it is retired if its folders are not as they were made. Returns whether there are
    /// no other folders in it, as far as the file system tells: many count a link to a folder for each that is in it.
    pub(crate) fn examine(&mut self) -> bool {
        let now = Self::folders(&self.path).map(|folder| look(&folder));
        let links = now.each_ref().map(|found| found.as_ref().map_or(0, |(_, links)| *links));
        let is_as_made =
            now.iter().zip(&self.looks).all(|(now, before)| now.as_ref().is_ok_and(|(now, _)| now == before));
        self.is_retired |= !is_as_made;
        links == [4, 3, 2, 2]
    }

    fn empty(&self) -> io::Result<()> {
        let folders = Self::folders(&self.path);
        for folder in &folders {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if !entry.file_type()?.is_dir() {
                    fs::remove_file(entry.path())?;
                } else if !folders.contains(&entry.path()) {
                    remove_tree(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Moves it away, to be looked at.
    pub(crate) fn keep(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)
    }

    pub(crate) fn remove(self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// How a folder looks, and how many links it has.
#[cfg(target_os = "linux")]
fn look(folder: &Path) -> io::Result<(Look, u64)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, llistxattr, statx};
    let attributes = match llistxattr(folder, &mut [0_u8; 256][..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        // More than any folder has that was just made.
        Err(rustix::io::Errno::RANGE) => usize::MAX,
        other => other?,
    };
    let found = statx(CWD, folder, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    let more = (attributes, found.stx_attributes.bits());
    Ok((Look { inode: found.stx_ino, mode: u32::from(found.stx_mode), more }, u64::from(found.stx_nlink)))
}

#[cfg(not(target_os = "linux"))]
fn look(folder: &Path) -> io::Result<(Look, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::symlink_metadata(folder)?;
    Ok((Look { inode: found.ino(), mode: found.mode(), more: (0, 0) }, found.nlink()))
}

/// Removes a folder, also one in which the task has taken permissions away.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_folders(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn scratches() -> (tempfile::TempDir, Scratches) {
        let folder = tempfile::tempdir().unwrap();
        let scratches = Scratches::new(folder.path().to_owned());
        (folder, scratches)
    }

    #[test]
    fn a_folder_is_used_again_and_is_empty_then() {
        let (folder, scratches) = scratches();
        let first = scratches.take().unwrap();
        let path = first.path().to_owned();
        fs::write(first.work().join("inputs/a"), "x").unwrap();
        fs::create_dir_all(first.work().join("deep/inputs")).unwrap();
        fs::write(first.work().join("deep/inputs/b"), "x").unwrap();
        fs::write(first.temporary().join("c"), "x").unwrap();
        symlink("/", first.temporary().join("inputs")).unwrap();
        scratches.give_back(first).unwrap();
        let second = scratches.take().unwrap();
        assert_eq!(second.path(), path);
        let entries = |path: &Path| fs::read_dir(path).unwrap().count();
        let counts =
            [entries(&second.work()), entries(&second.work().join("inputs")), entries(&second.temporary())];
        assert_eq!(counts, [1, 0, 0]);
        assert_ne!(scratches.take().unwrap().path(), path, "it is in use");
        scratches.give_back(second).unwrap();
        drop(scratches);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what was not given back stays");
    }

    #[test]
    fn one_that_a_task_has_rebuilt_is_not_used_again() {
        let spoil: [fn(&mut Scratch); 5] = [
            |scratch| scratch.retire(true),
            |scratch| {
                let name = "user.left";
                rustix::fs::setxattr(scratch.work(), name, b"x", rustix::fs::XattrFlags::empty()).unwrap();
            },
            |scratch| fs::remove_dir(scratch.work().join("inputs")).unwrap(),
            |scratch| fs::set_permissions(scratch.temporary(), fs::Permissions::from_mode(0o500)).unwrap(),
            |scratch| {
                fs::remove_dir(scratch.temporary()).unwrap();
                symlink("/tmp", scratch.temporary()).unwrap();
            },
        ];
        for (number, spoil) in spoil.into_iter().enumerate() {
            let (_folder, scratches) = scratches();
            let mut scratch = scratches.take().unwrap();
            let path = scratch.path().to_owned();
            spoil(&mut scratch);
            scratch.examine();
            scratches.give_back(scratch).unwrap();
            assert!(!path.exists(), "{number}");
            assert_ne!(scratches.take().unwrap().path(), path);
        }
    }
}
