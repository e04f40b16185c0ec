//! The folders in which tasks run. Each is used by one task at a time, and emptied, not made anew, for the next: making and
//! removing folders is among the most expensive things that a file system does.
//!
//! ```text
//! scratch/OWNER/N/work/          the working folder
//! scratch/OWNER/N/work/inputs/   what is staged under a name
//! scratch/OWNER/N/tmp/           TMPDIR
//! ```

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use e3_core::Source;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, futimens, openat, unlinkat,
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
    places: [Place; 4],
    /// It is not to be used again.
    is_retired: bool,
}

/// One of the folders of a scratch folder: itself, and those that are made in it.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Held open: a short way to what is in it.
    folder: Dir,
    /// How it looked when it was made: a task may do anything to it.
    look: Look,
    /// When it was last changed, while nothing of a task was in it.
    rest: Times,
    /// Whether it is like that still: set by `examine`.
    is_at_rest: bool,
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

/// What the system says of a folder beside its look.
#[derive(Debug)]
struct Found {
    /// Many file systems count a link for each folder in it.
    links: u64,
    times: Times,
}

/// When something in a folder was last made or removed, and when anything of the folder was last changed.
type Times = [(i64, u32); 2];

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
    pub(crate) fn give_back(&self, mut scratch: Scratch) -> io::Result<()> {
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

/// The names of the places, in the order of `Scratch::places`.
const NAMES: [&str; 4] = ["", "work", "work/inputs", "tmp"];
/// What is in each while nothing of a task is in it.
const KEPT: [&[&str]; 4] = [&["work", "tmp"], &["inputs"], &[], &[]];
/// Which are changed by what is done for every task, so that there is no use in asking whether they were.
const ALWAYS_CHANGED: [bool; 4] = [false, true, true, false];

impl Scratch {
    fn make(path: PathBuf) -> io::Result<Self> {
        let paths = NAMES.map(|name| if name.is_empty() { path.clone() } else { path.join(name) });
        paths.iter().try_for_each(fs::create_dir)?;
        let [scratch, work, inputs, temporary] = paths.map(Place::open);
        let mut places = [scratch?, work?, inputs?, temporary?];
        places.iter_mut().try_for_each(Place::rest)?;
        Ok(Self { path, places, is_retired: false })
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
        self.places[1].path.clone()
    }

    /// The folder for temporary files.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.places[3].path.clone()
    }

    /// Looks at what the task has left of it: it is retired if its folders are not as they were made. Returns whether there are
    /// no other folders in it, as far as the file system tells.
    pub(crate) fn examine(&mut self) -> bool {
        let links = self.places.each_mut().map(Place::examine);
        self.is_retired |= links.contains(&None);
        links == [4, 3, 2, 2].map(Some)
    }

    fn empty(&mut self) -> io::Result<()> {
        for (place, (kept, always)) in self.places.iter_mut().zip(KEPT.into_iter().zip(ALWAYS_CHANGED)) {
            if !std::mem::take(&mut place.is_at_rest) {
                place.empty(kept)?;
                if !always {
                    place.rest()?;
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

/// What is at rest was last changed in 1980: whoever changes it now does not restore that by accident.
const AT_REST: Timespec = Timespec { tv_sec: Source::MODIFIED_SECONDS.cast_signed(), tv_nsec: 0 };

impl Place {
    fn open(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(CWD, &path, flags, Mode::empty())?;
        let (look, found) = look(&path, folder.as_fd())?;
        let folder = Dir::new(folder)?;
        Ok(Self { path, folder, look, rest: found.times, is_at_rest: false })
    }

    /// Remembers it with nothing of a task in it.
    fn rest(&mut self) -> io::Result<()> {
        futimens(self.folder.fd()?, &Timestamps { last_access: AT_REST, last_modification: AT_REST })?;
        self.rest = look(&self.path, self.folder.fd()?)?.1.times;
        Ok(())
    }

    /// How many links there are to it; none if it is not as it was made, whatever is in it.
    fn examine(&mut self) -> Option<u64> {
        let (look, found) = self.folder.fd().ok().and_then(|folder| look(&self.path, folder).ok())?;
        self.is_at_rest = found.times == self.rest;
        (look == self.look).then_some(found.links)
    }

    /// Removes everything but `kept`.
    fn empty(&mut self, kept: &[&str]) -> io::Result<()> {
        self.folder.rewind();
        let mut others = Vec::new();
        while let Some(entry) = self.folder.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !kept.iter().any(|kept| kept.as_bytes() == name) {
                others.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        for (name, kind) in others {
            let path = || self.path.join(OsStr::from_bytes(name.as_bytes()));
            let is_folder = match kind {
                FileType::Directory => true,
                FileType::Unknown => fs::symlink_metadata(path())?.is_dir(),
                _ => false,
            };
            if is_folder {
                remove_tree(&path())?;
            } else {
                unlinkat(self.folder.fd()?, &*name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// How the folder at a path looks that should be the one that is open.
#[cfg(target_os = "linux")]
fn look(path: &Path, folder: BorrowedFd<'_>) -> io::Result<(Look, Found)> {
    use rustix::fs::{StatxFlags, flistxattr, statx};
    let attributes = match flistxattr(folder, &mut [0_u8; 256][..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        // More than any folder has that was just made.
        Err(rustix::io::Errno::RANGE) => usize::MAX,
        other => other?,
    };
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    let more = (attributes, found.stx_attributes.bits());
    let times = [found.stx_mtime, found.stx_ctime].map(|time| (time.tv_sec, time.tv_nsec));
    let look = Look { inode: found.stx_ino, mode: u32::from(found.stx_mode), more };
    Ok((look, Found { links: u64::from(found.stx_nlink), times }))
}

#[cfg(not(target_os = "linux"))]
fn look(path: &Path, _: BorrowedFd<'_>) -> io::Result<(Look, Found)> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::symlink_metadata(path)?;
    let time = |seconds, nanoseconds: i64| (seconds, u32::try_from(nanoseconds).unwrap_or(0));
    let times = [time(found.mtime(), found.mtime_nsec()), time(found.ctime(), found.ctime_nsec())];
    let look = Look { inode: found.ino(), mode: found.mode(), more: (0, 0) };
    Ok((look, Found { links: found.nlink(), times }))
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
