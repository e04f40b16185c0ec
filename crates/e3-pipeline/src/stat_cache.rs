//! The stat cache: what a file contained when it last looked as it looks now, so that it need not be read again.
//!
//! A file counts as unchanged if size, mtime, ctime, inode and device are what they were. The ctime is what tells an
//! edit that restored the mtime (`cp -p`, `rsync -t`, `touch -r`): no program can set it.
//!
//! Timestamps have a granularity, so a file that was written just before it was read may be written again without
//! looking different: it is *racy*. As in git's index, such an entry is not believed. It is kept with a mark, and the
//! file is read again next time. (<https://git-scm.com/docs/racy-git>)
//!
//! What is learnt is added to the end of the file (`journal.rs`), so that a change of one file of many costs no more than that.

mod journal;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use e3_types::{ObjectRef, Timestamp};

use crate::look::Look;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    look: Look,
    object: ObjectRef,
    racy: bool,
}

/// What is known of source files, by absolute path.
#[derive(Debug)]
pub struct StatCache {
    /// Where it is kept; none if it is not.
    path: Option<PathBuf>,
    /// What the file says, if it has been read.
    entries: HashMap<String, Entry>,
    is_read: bool,
    /// What it does not say yet.
    news: Vec<(String, Entry)>,
    /// Whether the file says much that does not count any more, or cannot be added to.
    is_stale: bool,
}

impl StatCache {
    /// One that knows nothing and keeps nothing.
    pub(crate) fn none() -> Self {
        Self { path: None, ..Self::at(Path::new("")) }
    }

    /// The cache in the file `path`, which is read when that pays.
    pub fn at(path: &Path) -> Self {
        let path = Some(path.to_owned());
        Self { path, entries: HashMap::new(), is_read: false, news: Vec::new(), is_stale: false }
    }

    /// How large the file is, in bytes, if it has not been read: what it costs to ask it.
    pub(crate) fn price(&self) -> u64 {
        let unread = self.path.as_ref().filter(|_| !self.is_read);
        unread.and_then(|path| Some(fs::metadata(path).ok()?.len())).unwrap_or(0)
    }

    /// Reads the file, unless that was done. Without one, or with one that cannot be used, nothing is known: files are read.
    pub(crate) fn read(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| !self.is_read) else { return };
        self.is_read = true;
        let mut written = 0_usize;
        let whole = journal::read(path, |path, entry| {
            written += 1;
            self.entries.insert(path.to_owned(), entry);
        });
        let outdated = written - self.entries.len();
        self.is_stale = outdated > self.entries.len();
        if let Err(error) = whole
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "some of the stat cache cannot be read");
            self.is_stale = true;
        }
    }

    /// Writes down what was learnt: at the end of the file; or all anew, if much of that does not count any more.
    pub fn save(mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let news = self.news.iter().map(|(path, entry)| (path, entry));
        if self.is_stale {
            for (path, _) in &self.news {
                self.entries.remove(path);
            }
            journal::write(path, self.entries.iter().chain(news))
        } else if !self.news.is_empty() {
            journal::add(path, news)
        } else {
            Ok(())
        }
    }

    /// Of how many files the file says something, if it has been read.
    pub(crate) fn known(&self) -> usize {
        self.entries.len()
    }

    /// The object that the file was when it last looked so, before the cache was opened; `None` if it has to be read.
    pub(crate) fn find(&self, path: &Path, look: &Look) -> Option<ObjectRef> {
        let entry = self.entries.get(path.to_str()?)?;
        (entry.look == *look && !entry.racy).then_some(entry.object)
    }

    /// Makes room for what so many files were, and for no more.
    pub(crate) fn expect(&mut self, files: usize) {
        self.news.reserve_exact(files);
    }

    /// Remembers what a file was. `read` is the time just before it was looked at and read. Returns whether the file would look
    /// otherwise if it were changed now.
    pub(crate) fn remember(&mut self, path: &Path, look: Look, object: ObjectRef, read: Timestamp) -> bool {
        let racy = look.is_racy(read);
        if let Some(path) = path.to_str() {
            self.news.push((path.to_owned(), Entry { look, object, racy }));
        }
        !racy
    }

    /// What it costs to read a file of that size and to learn what it holds, in bytes: about so much is added to the file.
    pub(crate) fn price_to_learn(size: u64) -> u64 {
        size + journal::USUAL as u64
    }

    /// Keeps only the entries of files for which `is_tracked` says so.
    pub(crate) fn retain(&mut self, is_tracked: impl Fn(&str) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|path, _| is_tracked(path));
        self.is_stale |= self.entries.len() != before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::COARSE_MS;

    fn look(path: &Path) -> Look {
        Look::of(&fs::metadata(path).unwrap())
    }

    /// As another process finds it.
    fn reopened(cache: StatCache) -> StatCache {
        let path = cache.path.clone().unwrap();
        cache.save().unwrap();
        let mut cache = StatCache::at(&path);
        cache.read();
        cache
    }

    fn long_after(look: &Look) -> Timestamp {
        Timestamp::from_unix_ms(u64::try_from(look.ctime.0).unwrap() * 1000 + 60_000)
    }

    #[test]
    fn an_unchanged_file_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (file, saved) = (folder.path().join("file"), folder.path().join("deep/cache"));
        fs::write(&file, "one").unwrap();
        let mut cache = StatCache::at(&saved);
        let seen = look(&file);
        assert_eq!(cache.find(&file, &seen), None);
        cache.remember(&file, seen, ObjectRef::of(b"one"), long_after(&seen));
        cache.save().unwrap();
        let mut cache = StatCache::at(&saved);
        assert_eq!(cache.find(&file, &look(&file)), None, "it has not been read");
        cache.read();
        assert_eq!(cache.find(&file, &look(&file)), Some(ObjectRef::of(b"one")));
    }

    #[test]
    fn an_edit_that_keeps_size_and_mtime_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let (seen, mtime) = (look(&file), fs::metadata(&file).unwrap().modified().unwrap());
        let mut cache = StatCache::at(&folder.path().join("cache"));
        cache.remember(&file, seen, ObjectRef::of(b"one"), long_after(&seen));
        let cache = reopened(cache);
        assert_eq!(cache.find(&file, &seen), Some(ObjectRef::of(b"one")));
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
        let mut cache = StatCache::at(&folder.path().join("cache"));
        let object = ObjectRef::of(b"one");
        assert!(!cache.remember(&file, seen, object, Timestamp::from_unix_ms(written_ms + 10)));
        let mut cache = reopened(cache);
        assert_eq!(cache.find(&file, &seen), None);
        let long_after = Timestamp::from_unix_ms(written_ms + COARSE_MS + 1);
        assert!(cache.remember(&file, seen, object, long_after));
        assert_eq!(reopened(cache).find(&file, &seen), Some(object));
    }

    #[test]
    fn a_cache_that_cannot_be_read_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("cache");
        for bytes in [&b"not json"[..], br#"{"version":99,"content":{}}"#, b"\xff\xfe", b"{}"] {
            fs::write(&saved, bytes).unwrap();
            let mut cache = StatCache::at(&saved);
            cache.read();
            assert!(cache.entries.is_empty());
            // What is learnt now is not lost on it.
            let (file, seen) = (folder.path().join("cache"), look(&saved));
            cache.remember(&file, seen, ObjectRef::of(b"one"), long_after(&seen));
            cache.save().unwrap();
            let mut cache = StatCache::at(&saved);
            cache.read();
            assert_eq!(cache.find(&file, &seen), Some(ObjectRef::of(b"one")));
        }
    }

    #[test]
    fn what_is_not_whole_is_written_again_with_all_that_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("cache");
        let paths: Vec<PathBuf> = (0..3).map(|number| folder.path().join(format!("{number}"))).collect();
        let object = ObjectRef::of(b"one");
        let opened = || {
            let mut cache = StatCache::at(&saved);
            cache.read();
            cache
        };
        let known = || {
            let cache = opened();
            paths.iter().filter(|path| cache.find(path, &look(path)) == Some(object)).count()
        };
        for path in &paths {
            fs::write(path, "one").unwrap();
            let mut cache = opened();
            cache.remember(path, look(path), object, long_after(&look(path)));
            cache.save().unwrap();
        }
        assert_eq!(known(), 3);
        let whole = fs::read(&saved).unwrap();
        fs::write(&saved, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(known(), 2);
        let mut cache = opened();
        cache.remember(&paths[2], look(&paths[2]), object, long_after(&look(&paths[2])));
        cache.save().unwrap();
        assert_eq!(known(), 3);
    }

    #[test]
    fn what_is_learnt_is_added_until_most_of_the_file_is_outdated() {
        let folder = tempfile::tempdir().unwrap();
        let (file, saved) = (folder.path().join("file"), folder.path().join("cache"));
        fs::write(&file, "one").unwrap();
        let seen = look(&file);
        let size = || fs::metadata(&saved).unwrap().len();
        let mut sizes = Vec::new();
        for round in 0..3_u8 {
            // One that has not read the file can tell it something all the same.
            let mut cache = StatCache::at(&saved);
            cache.remember(&file, seen, ObjectRef::of(&[round]), long_after(&seen));
            cache.save().unwrap();
            sizes.push(size());
        }
        assert!(sizes.is_sorted_by(|one, other| one < other), "{sizes:?}");
        let mut cache = StatCache::at(&saved);
        assert_eq!(cache.price(), sizes[2]);
        cache.read();
        assert_eq!((cache.find(&file, &seen), cache.price()), (Some(ObjectRef::of(&[2])), 0));
        cache.save().unwrap();
        assert_eq!(size(), sizes[0], "it is written anew");
    }
}
