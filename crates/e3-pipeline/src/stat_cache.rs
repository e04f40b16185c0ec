//! The stat cache: what a file contained when it last looked as it looks now, so that it need not be read again.
//!
//! A file counts as unchanged if size, mtime, ctime, inode and device are what they were. The ctime is what tells an
//! edit that restored the mtime (`cp -p`, `rsync -t`, `touch -r`): no program can set it.
//!
//! Timestamps have a granularity, so a file that was written just before it was read may be written again without
//! looking different: it is *racy*. As in git's index, such an entry is not believed. It is kept with a mark, and the
//! file is read again next time. (<https://git-scm.com/docs/racy-git>)

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use e3_types::{Hasher, ObjectRef, Timestamp};
use serde::{Deserialize, Serialize};

use crate::kept;

/// How the entries are written down. A file of another version is not read: its content can be found out again.
const VERSION: u32 = 2;

/// Timestamps come from the kernel's tick (at most 10 ms) and are compared with the clock: both rounded up.
const FINE_MS: u64 = 50;
/// File systems without fractions of a second have at worst FAT's two seconds.
const COARSE_MS: u64 = 2000;

/// How a file looks without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    inode: u64,
    device: u64,
    pub(crate) executable: bool,
}

impl Look {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            size: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
            executable: metadata.permissions().mode() & 0o111 != 0,
        }
    }

    /// Takes it into a fingerprint.
    pub(crate) fn tell(&self, hasher: &mut Hasher) {
        let Self { size, mtime, ctime, inode, device, executable } = *self;
        for number in [size, inode, device, u64::from(executable)] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [mtime.0, mtime.1, ctime.0, ctime.1] {
            hasher.update(&number.to_le_bytes());
        }
    }

    /// Whether a change after `read` could go unnoticed because its timestamps would be the same.
    fn is_racy(&self, read: Timestamp) -> bool {
        let granularity = if self.ctime.1 == 0 && self.mtime.1 == 0 { COARSE_MS } else { FINE_MS };
        let ms =
            |(seconds, nanos): (i64, i64)| u64::try_from(seconds * 1000 + nanos / 1_000_000).unwrap_or(0);
        ms(self.mtime.max(self.ctime)) + granularity >= read.unix_ms()
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Entry {
    look: Look,
    object: ObjectRef,
    racy: bool,
}

/// What is known of source files, by absolute path.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    entries: HashMap<String, Entry>,
    changed: bool,
}

impl StatCache {
    /// A cache that knows nothing and is not to be saved.
    pub(crate) fn empty() -> Self {
        Self { path: PathBuf::new(), entries: HashMap::new(), changed: false }
    }

    /// The cache in the file `path`. Without one, or with one that cannot be used, it is empty: files are read.
    pub fn load(path: &Path) -> Self {
        let entries = kept::load(path, VERSION).unwrap_or_default();
        Self { path: path.to_owned(), entries, changed: false }
    }

    /// Writes the cache back if anything has changed.
    pub fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        kept::save(&self.path, VERSION, &self.entries)?;
        self.changed = false;
        Ok(())
    }

    /// The object that the file was when it last looked so; `None` if it has to be read.
    pub(crate) fn find(&self, path: &Path, look: &Look) -> Option<ObjectRef> {
        let entry = self.entries.get(path.to_str()?)?;
        (entry.look == *look && !entry.racy).then_some(entry.object)
    }

    /// Remembers what a file was. `read` is the time just before it was looked at and read.
    pub(crate) fn remember(&mut self, path: &Path, look: Look, object: ObjectRef, read: Timestamp) {
        if let Some(path) = path.to_str() {
            self.entries.insert(path.to_owned(), Entry { look, object, racy: look.is_racy(read) });
            self.changed = true;
        }
    }

    /// Keeps only the entries of files for which `is_tracked` says so.
    pub(crate) fn retain(&mut self, is_tracked: impl Fn(&str) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|path, _| is_tracked(path));
        self.changed |= self.entries.len() != before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &Path) -> Look {
        Look::of(&fs::metadata(path).unwrap())
    }

    fn long_after(look: &Look) -> Timestamp {
        Timestamp::from_unix_ms(u64::try_from(look.ctime.0).unwrap() * 1000 + 60_000)
    }

    #[test]
    fn an_unchanged_file_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (file, saved) = (folder.path().join("file"), folder.path().join("deep/cache"));
        fs::write(&file, "one").unwrap();
        let mut cache = StatCache::load(&saved);
        let seen = look(&file);
        assert_eq!(cache.find(&file, &seen), None);
        cache.remember(&file, seen, ObjectRef::of(b"one"), long_after(&seen));
        cache.save().unwrap();
        let cache = StatCache::load(&saved);
        assert_eq!(cache.find(&file, &look(&file)), Some(ObjectRef::of(b"one")));
    }

    #[test]
    fn an_edit_that_keeps_size_and_mtime_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let (seen, mtime) = (look(&file), fs::metadata(&file).unwrap().modified().unwrap());
        let mut cache = StatCache::load(&folder.path().join("cache"));
        cache.remember(&file, seen, ObjectRef::of(b"one"), long_after(&seen));
        // As `cp -p` and `rsync -t` do: another file with the old time, put in place of the first.
        let other = folder.path().join("other");
        fs::write(&other, "two").unwrap();
        fs::File::open(&other).unwrap().set_modified(mtime).unwrap();
        fs::rename(&other, &file).unwrap();
        let now = look(&file);
        assert_eq!((now.size, now.mtime), (seen.size, seen.mtime), "the edit is stealthy");
        assert_eq!(cache.find(&file, &now), None);
    }

    #[test]
    fn a_file_that_was_written_just_before_it_was_read_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let seen = look(&file);
        let written_ms = u64::try_from(seen.ctime.0 * 1000 + seen.ctime.1 / 1_000_000).unwrap();
        let mut cache = StatCache::load(&folder.path().join("cache"));
        cache.remember(&file, seen, ObjectRef::of(b"one"), Timestamp::from_unix_ms(written_ms + 10));
        assert_eq!(cache.find(&file, &seen), None);
        cache.remember(
            &file,
            seen,
            ObjectRef::of(b"one"),
            Timestamp::from_unix_ms(written_ms + COARSE_MS + 1),
        );
        assert_eq!(cache.find(&file, &seen), Some(ObjectRef::of(b"one")));
    }

    #[test]
    fn a_cache_that_cannot_be_read_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("cache");
        for bytes in [&b"not json"[..], br#"{"version":99,"content":{}}"#, b"\xff\xfe", b"{}"] {
            fs::write(&saved, bytes).unwrap();
            assert!(StatCache::load(&saved).entries.is_empty());
        }
    }
}
