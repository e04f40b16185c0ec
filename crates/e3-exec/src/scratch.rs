//! The folders in which tasks run. Each is used by one task at a time, and emptied, not made anew, for the next: making and
//! removing folders is among the most expensive things that a file system does.
//!
//! ```text
//! scratch/OWNER/N/work/          the working folder
//! scratch/OWNER/N/work/inputs/   what is staged under a name
//! scratch/OWNER/N/tmp/           TMPDIR
//! staged/TASK/                   the same for a task with very many inputs, with these left in it until it is executed again
//! ```

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use e3_core::Source;
use e3_types::Hash;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, futimens, openat, unlinkat},
    path::Arg,
};

/// The folders of one process.
#[derive(Debug)]
pub struct Scratches {
    folder: PathBuf,
    drawn: AtomicU64,
    #[expect(clippy::vec_box, reason = "each is handed out and given back many times, and not small")]
    free: Mutex<Vec<Box<Scratch>>>,
    /// Where those stay that are to be used by the same task again.
    staged: Option<PathBuf>,
}

/// A folder for one task.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    places: [Place; 4],
    /// It is not to be used again.
    is_retired: bool,
    /// What was staged for the last execution of its task may still be in it.
    has_inputs: bool,
    /// The task for whose next execution the inputs are left in it.
    stays_for: Option<Hash>,
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

/// What the system says of a folder.
#[derive(Debug)]
struct Found {
    look: Look,
    /// Many file systems count a link for each folder in it.
    links: u64,
    times: Times,
}

/// When something in a folder was last made or removed, and when anything of the folder was last changed.
type Times = [(i64, u32); 2];

impl Scratches {
    /// Folders in `folder`, which must be there; best on the file system of the objects.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, drawn: AtomicU64::new(0), free: Mutex::default(), staged: None }
    }

    /// The same, with a place for those of tasks with very many inputs. It must be on the same file system.
    #[must_use]
    pub fn with_staged(mut self, staged: PathBuf) -> Self {
        self.staged = Some(staged);
        self
    }

    /// The folder in which all of them are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn draw(&self) -> PathBuf {
        self.folder.join(self.drawn.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// An empty one.
    pub(crate) fn take(&self) -> io::Result<Box<Scratch>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.map_or_else(|| Scratch::make(self.draw()).map(Box::new), Ok)
    }

    /// The one in which a task with so many inputs has left them, if there is one; else an empty one.
    pub(crate) fn take_for(&self, task: Hash, inputs: usize) -> io::Result<Box<Scratch>> {
        let Some(staged) = self.staged.as_ref().filter(|_| inputs >= MANY) else { return self.take() };
        let path = self.draw();
        match fs::rename(staged.join(task.to_string()), &path) {
            Ok(()) => match Scratch::open(path.clone()) {
                Ok(scratch) => return Ok(Box::new(Scratch { has_inputs: true, ..scratch })),
                Err(error) => {
                    tracing::info!(%error, %task, "what was staged for a task cannot be used");
                    if let Err(error) = remove_anything(&path) {
                        // It goes with the other folders of this process.
                        tracing::info!(%error, %task, "nor can it be removed");
                    }
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::info!(%error, %task, "what was staged for a task cannot be used"),
        }
        self.take()
    }

    /// Whether inputs of this number are left where they were staged.
    pub(crate) fn leaves(&self, inputs: usize) -> bool {
        self.staged.is_some() && inputs >= MANY
    }

    /// Leaves one for the next execution of a task, with the inputs in it.
    fn leave(&self, scratch: &mut Scratch, task: Hash) -> io::Result<()> {
        let staged = self.staged.as_ref().ok_or(io::ErrorKind::NotFound)?;
        scratch.empty([false, false, true, false])?;
        fs::create_dir_all(staged)?;
        fs::rename(&scratch.path, staged.join(task.to_string()))?;
        // The others may be of tasks that there are no more.
        let mut all = Vec::new();
        for entry in fs::read_dir(staged)? {
            let path = entry?.path();
            // Another process may take it, or remove it, at any time.
            if let Some(found) = unless_missing(fs::symlink_metadata(&path))? {
                all.push(((found.ctime(), found.ctime_nsec()), path));
            }
        }
        all.sort_unstable();
        let spare = all.len().saturating_sub(MOST_STAGED);
        all.into_iter().take(spare).try_for_each(|(_, path)| unless_missing(remove_anything(&path)).map(drop))
    }

    /// Empties one for the next task, after it was examined. One that is retired, or cannot be emptied, is removed.
    pub(crate) fn give_back(&self, mut scratch: Box<Scratch>) -> io::Result<()> {
        if let Some(task) = scratch.stays_for.filter(|_| !scratch.is_retired) {
            match self.leave(&mut scratch, task) {
                Err(error) if fs::exists(&scratch.path)? => {
                    // Another execution of the same task was quicker.
                    tracing::debug!(%error, %task, "what was staged is not left there");
                    return scratch.remove();
                }
                other => return other,
            }
        }
        if !scratch.is_retired && scratch.empty([false; 4]).is_ok() {
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

/// So many inputs are worth being left where they were staged: a link is made and removed in 25 us, and looked at in 3.
pub(crate) const MANY: usize = 1000;
/// For so many tasks at most.
const MOST_STAGED: usize = 8;

/// The names of the places, in the order of `Scratch::places`.
const NAMES: [&str; 4] = ["", "work", "work/inputs", "tmp"];
/// Which of them each is in, and what it is called there.
const WAYS: [Option<(usize, &str)>; 4] = [None, Some((0, "work")), Some((1, "inputs")), Some((0, "tmp"))];
/// What is in each while nothing of a task is in it.
const KEPT: [&[&str]; 4] = [&["work", "tmp"], &["inputs"], &[], &[]];
/// Which are changed by what is done for every task, so that there is no use in asking whether they were.
const ALWAYS_CHANGED: [bool; 4] = [false, true, true, false];
/// The place of the inputs.
const INPUTS: usize = 2;

impl Scratch {
    fn make(path: PathBuf) -> io::Result<Self> {
        Self::paths(&path).iter().try_for_each(fs::create_dir)?;
        Self::open(path)
    }

    fn open(path: PathBuf) -> io::Result<Self> {
        let [scratch, work, inputs, temporary] = Self::paths(&path).map(Place::open);
        let mut places = [scratch?, work?, inputs?, temporary?];
        places.iter_mut().try_for_each(Place::rest)?;
        Ok(Self { path, places, is_retired: false, has_inputs: false, stays_for: None })
    }

    fn paths(path: &Path) -> [PathBuf; 4] {
        NAMES.map(|name| if name.is_empty() { path.to_owned() } else { path.join(name) })
    }

    /// Whether inputs may be in it already.
    pub(crate) fn has_inputs(&self) -> bool {
        self.has_inputs
    }

    /// Has its inputs left in it for the next execution of a task.
    pub(crate) fn stay_for(&mut self, task: Hash) {
        self.stays_for = Some(task);
    }

    /// Removes what is among the inputs beside files of these names.
    pub(crate) fn keep_inputs(&mut self, names: &HashSet<&str>) -> io::Result<()> {
        self.places[INPUTS].empty(|name, kind| {
            kind == FileType::RegularFile && str::from_utf8(name).is_ok_and(|name| names.contains(name))
        })
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
        // By the short way: those before it are found to be what they were as well.
        let found = std::array::from_fn::<_, 4, _>(|number| {
            let place = &self.places[number];
            match WAYS[number] {
                None => place.look(CWD, &place.path),
                Some((parent, name)) => place.look(self.places[parent].folder.fd().ok()?, name),
            }
        });
        let mut links = [None; 4];
        for ((place, found), links) in self.places.iter_mut().zip(found).zip(&mut links) {
            *links = found.and_then(|found| place.examine(&found));
        }
        self.is_retired |= links.contains(&None);
        links == [4, 3, 2, 2].map(Some)
    }

    /// Removes what a task has left, but in those of the places that are to be left as they are.
    fn empty(&mut self, left: [bool; 4]) -> io::Result<()> {
        for (number, place) in self.places.iter_mut().enumerate().filter(|(number, _)| !left[*number]) {
            if !std::mem::take(&mut place.is_at_rest) {
                place.empty(|name, _| KEPT[number].iter().any(|kept| kept.as_bytes() == name))?;
                if !ALWAYS_CHANGED[number] {
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

/// How many entries there are in a folder that a task has used, most of the time, and how long their names are together.
const USUAL_ENTRIES: usize = 8;
const USUAL_NAMES: usize = 128;

/// What is at rest was last changed in 1980: whoever changes it now does not restore that by accident.
const AT_REST: Timespec = Timespec { tv_sec: Source::MODIFIED_SECONDS.cast_signed(), tv_nsec: 0 };

impl Place {
    fn open(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(CWD, &path, flags, Mode::empty())?;
        let Found { look, times, .. } = find(CWD, &path, folder.as_fd())?;
        let folder = Dir::new(folder)?;
        Ok(Self { path, folder, look, rest: times, is_at_rest: false })
    }

    /// Remembers it with nothing of a task in it.
    fn rest(&mut self) -> io::Result<()> {
        futimens(self.folder.fd()?, &Timestamps { last_access: AT_REST, last_modification: AT_REST })?;
        self.rest = find(CWD, &self.path, self.folder.fd()?)?.times;
        Ok(())
    }

    /// What is found in its place.
    fn look(&self, parent: BorrowedFd<'_>, name: impl Arg) -> Option<Found> {
        find(parent, name, self.folder.fd().ok()?).ok()
    }

    /// How many links there are to it; none if it is not as it was made, whatever is in it.
    fn examine(&mut self, found: &Found) -> Option<u64> {
        self.is_at_rest = found.times == self.rest;
        (found.look == self.look).then_some(found.links)
    }

    /// Removes everything but what is kept.
    fn empty(&mut self, is_kept: impl Fn(&[u8], FileType) -> bool) -> io::Result<()> {
        self.folder.rewind();
        // Their names in one piece: there are some in every folder of every task.
        let (mut names, mut others) = (Vec::new(), Vec::new());
        while let Some(entry) = self.folder.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !is_kept(name, entry.file_type()) {
                if others.is_empty() {
                    names.reserve(USUAL_NAMES);
                    others.reserve(USUAL_ENTRIES);
                }
                let start = names.len();
                names.extend_from_slice(name);
                others.push((start..names.len(), entry.file_type()));
            }
        }
        for (name, kind) in others {
            let name = &names[name];
            let path = || self.path.join(OsStr::from_bytes(name));
            let is_folder = match kind {
                FileType::Directory => true,
                FileType::Unknown => fs::symlink_metadata(path())?.is_dir(),
                _ => false,
            };
            if is_folder {
                remove_tree(&path())?;
            } else {
                unlinkat(self.folder.fd()?, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// What there is of a name in a folder, which should be the one that is open.
#[cfg(target_os = "linux")]
fn find(parent: BorrowedFd<'_>, name: impl Arg, folder: BorrowedFd<'_>) -> io::Result<Found> {
    use rustix::fs::{StatxFlags, flistxattr, statx};
    let attributes = match flistxattr(folder, &mut [0_u8; 256][..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        // More than any folder has that was just made.
        Err(rustix::io::Errno::RANGE) => usize::MAX,
        other => other?,
    };
    let found = statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    let more = (attributes, found.stx_attributes.bits());
    let times = [found.stx_mtime, found.stx_ctime].map(|time| (time.tv_sec, time.tv_nsec));
    let look = Look { inode: found.stx_ino, mode: u32::from(found.stx_mode), more };
    Ok(Found { look, links: u64::from(found.stx_nlink), times })
}

#[cfg(not(target_os = "linux"))]
fn find(parent: BorrowedFd<'_>, name: impl Arg, _: BorrowedFd<'_>) -> io::Result<Found> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let time = |seconds: i64, nanoseconds: i64| (seconds, u32::try_from(nanoseconds).unwrap_or(0));
    let times = [time(found.st_mtime, found.st_mtime_nsec), time(found.st_ctime, found.st_ctime_nsec)];
    let look = Look { inode: found.st_ino, mode: u32::from(found.st_mode), more: (0, 0) };
    Ok(Found { look, links: u64::from(found.st_nlink), times })
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

/// Removes what is there, whatever it is.
fn remove_anything(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { remove_tree(path) } else { fs::remove_file(path) }
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
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
mod tests;
