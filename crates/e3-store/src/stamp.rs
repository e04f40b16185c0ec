//! What the times of folders say: whether a file has been added to one of them or removed since.
//!
//! The clock of a file system ticks every few milliseconds, so that two changes may have the same time. But each sets both the
//! modification time and the change time of its folder to the same; so a folder in which they are the same is marked: its
//! nanoseconds of its modification time are made unlike any others, and the next change is seen, in the same tick or not.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use e3_types::{Hash, Hasher};
use rustix::{
    fs::{Timespec, Timestamps, UTIME_OMIT, futimens},
    io::Errno,
};

use crate::files::is_missing;

/// Another number after each change in a folder. `unique` makes a path that has not been there before.
pub(crate) fn mark(folder: &Path, unique: impl Fn() -> io::Result<PathBuf>) -> io::Result<u64> {
    let mut hasher = Hasher::new();
    let mut times = match Times::of(folder) {
        Err(error) if is_missing(&error) => return Ok(0),
        other => other?,
    };
    if !times.is_marked() {
        let unique = Hash::of(unique()?.as_os_str().as_encoded_bytes());
        if set_modified(folder, times.marked(unique))? {
            times = Times::of(folder)?;
        }
        if !times.is_marked() {
            // It belongs to somebody else, or has changed just now: what it looks like proves nothing.
            hasher.update(unique.as_bytes());
        }
    }
    for (seconds, nanoseconds) in [times.modified, times.changed] {
        hasher.update(&seconds.to_le_bytes());
        hasher.update(&nanoseconds.to_le_bytes());
    }
    Ok(first_number(hasher.finish()))
}

/// The first eight bytes of a hash.
fn first_number(hash: Hash) -> u64 {
    hash.as_bytes().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
}

struct Times {
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Times {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = fs::metadata(folder)?;
        let modified = (found.mtime(), found.mtime_nsec());
        Ok(Self { modified, changed: (found.ctime(), found.ctime_nsec()) })
    }

    fn is_marked(&self) -> bool {
        self.modified != self.changed
    }

    /// The modification time that marks a folder: a chance of one in a billion to be one that was there before.
    fn marked(&self, unique: Hash) -> Timespec {
        let nanoseconds = i64::try_from(first_number(unique) % 1_000_000_000).expect("it is below a billion");
        Timespec { tv_sec: self.modified.0, tv_nsec: nanoseconds }
    }
}

/// Marks a folder; false if that is not allowed.
fn set_modified(folder: &Path, modified: Timespec) -> io::Result<bool> {
    let accessed = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: accessed, last_modification: modified };
    let set = File::open(folder).and_then(|folder| Ok(futimens(folder, &times)?));
    let is_not_allowed = |error: &io::Error| {
        Errno::from_io_error(error)
            .is_some_and(|error| matches!(error, Errno::PERM | Errno::ACCESS | Errno::ROFS))
    };
    match set {
        Err(error) if is_not_allowed(&error) => Ok(false),
        other => other.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;

    #[test]
    fn a_folder_is_marked_once_and_every_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let drawn = AtomicU64::new(0);
        let unique = || Ok(PathBuf::from(drawn.fetch_add(1, Ordering::Relaxed).to_string()));
        let stamp = || mark(folder.path(), unique).unwrap();
        for _ in 0..500 {
            fs::write(&file, "").unwrap();
            let before = stamp();
            assert!(Times::of(folder.path()).unwrap().is_marked());
            assert_eq!(stamp(), before);
            fs::remove_file(&file).unwrap();
            assert!(!Times::of(folder.path()).unwrap().is_marked());
            assert_ne!(stamp(), before);
        }
    }

    #[test]
    fn two_changes_in_one_tick_are_marked_differently() {
        // As a clock that ticks says it.
        let times = Times { modified: (5, 4_000_000), changed: (5, 4_000_000) };
        let marks: HashSet<i64> =
            (0..1000_u32).map(|number| times.marked(Hash::of(&number.to_le_bytes())).tv_nsec).collect();
        assert_eq!(marks.len(), 1000);
        assert!(marks.iter().all(|mark| (0..1_000_000_000).contains(mark)));
    }
}
