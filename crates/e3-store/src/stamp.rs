//! What the times of folders say: whether a file has been added to one of them or removed since.
//!
//! The clock of a file system ticks every few milliseconds, so that two changes may have the same time. But each sets both the
//! modification time and the change time of its folder to the same; so a folder in which they are the same is marked: its
//! modification time is moved by a nanosecond, and the next change is seen, in the same tick or not.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use e3_types::Hasher;
use rustix::{
    fs::{Timespec, Timestamps, UTIME_OMIT, futimens},
    io::Errno,
};

/// Another text after each change in one of the folders. `unique` is taken in where a change could be missed.
pub(crate) fn stamp(
    folders: &[PathBuf],
    unique: impl Fn() -> io::Result<PathBuf>,
) -> Result<String, (&Path, io::Error)> {
    let mut hasher = Hasher::new();
    for folder in folders {
        let times = mark(folder).map_err(|error| (folder.as_path(), error))?;
        if !times.is_marked() {
            let unique = unique().map_err(|error| (folder.as_path(), error))?;
            hasher.update(unique.as_os_str().as_encoded_bytes());
        }
        hasher.update(folder.as_os_str().as_encoded_bytes());
        for (seconds, nanoseconds) in [times.modified, times.changed] {
            hasher.update(&seconds.to_le_bytes());
            hasher.update(&nanoseconds.to_le_bytes());
        }
    }
    Ok(hasher.finish().to_string())
}

struct Times {
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Times {
    fn of(folder: &File) -> io::Result<Self> {
        let found = folder.metadata()?;
        let modified = (found.mtime(), found.mtime_nsec());
        Ok(Self { modified, changed: (found.ctime(), found.ctime_nsec()) })
    }

    fn is_marked(&self) -> bool {
        self.modified != self.changed
    }
}

/// Marks a folder, if it is not and may be; the times that it then has.
fn mark(path: &Path) -> io::Result<Times> {
    let folder = File::open(path)?;
    let times = Times::of(&folder)?;
    if times.is_marked() {
        return Ok(times);
    }
    let (seconds, nanoseconds) = times.modified;
    let modified = Timespec { tv_sec: seconds, tv_nsec: nanoseconds ^ 1 };
    let accessed = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    match futimens(&folder, &Timestamps { last_access: accessed, last_modification: modified }) {
        Ok(()) => Times::of(&folder),
        // It belongs to somebody else.
        Err(Errno::PERM | Errno::ACCESS | Errno::ROFS) => Ok(times),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_marked_once_and_every_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        let file = folder.path().join("file");
        let stamp = || stamp(&folders, || panic!("it can be marked")).unwrap();
        for _ in 0..500 {
            fs::write(&file, "").unwrap();
            let before = stamp();
            assert!(Times::of(&File::open(folder.path()).unwrap()).unwrap().is_marked());
            assert_eq!(stamp(), before);
            fs::remove_file(&file).unwrap();
            assert!(!Times::of(&File::open(folder.path()).unwrap()).unwrap().is_marked());
            assert_ne!(stamp(), before);
        }
    }
}
