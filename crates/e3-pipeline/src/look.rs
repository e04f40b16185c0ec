//! `Look`: how a file looks without being read.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use e3_types::{Hasher, Timestamp};

/// Timestamps come from the kernel's tick (at most 10 ms) and are compared with the clock: both rounded up.
const FINE_MS: u64 = 50;
/// File systems without fractions of a second have at worst FAT's two seconds.
pub(crate) const COARSE_MS: u64 = 2000;

/// How a file looks without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) size: u64,
    pub(crate) mtime: (i64, i64),
    pub(crate) ctime: (i64, i64),
    pub(crate) inode: u64,
    pub(crate) device: u64,
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
    pub(crate) fn is_racy(&self, read: Timestamp) -> bool {
        let granularity = if self.ctime.1 == 0 && self.mtime.1 == 0 { COARSE_MS } else { FINE_MS };
        let ms =
            |(seconds, nanos): (i64, i64)| u64::try_from(seconds * 1000 + nanos / 1_000_000).unwrap_or(0);
        ms(self.mtime.max(self.ctime)) + granularity >= read.unix_ms()
    }
}

/// Looks at many files. Neighbours are often in the same folder, which is held open: a short way to each of them.
#[derive(Default)]
pub(crate) struct Looker {
    #[cfg(target_os = "linux")]
    folder: Option<(PathBuf, std::os::fd::OwnedFd)>,
}

impl Looker {
    /// How a file looks, or the one that a symbolic link leads to; none if it is something else.
    pub(crate) fn look(&mut self, path: &Path) -> io::Result<Option<Look>> {
        let (look, is_file) = self.look_at(path, true)?;
        Ok(is_file.then_some(look))
    }

    /// How what is there looks, a symbolic link as such.
    pub(crate) fn look_at_itself(&mut self, path: &Path) -> io::Result<Look> {
        Ok(self.look_at(path, false)?.0)
    }

    #[cfg(target_os = "linux")]
    fn look_at(&mut self, path: &Path, follow: bool) -> io::Result<(Look, bool)> {
        use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, openat, statx};
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return fs::metadata(path).map(|found| (Look::of(&found), found.is_file()));
        };
        if self.folder.as_ref().is_none_or(|(path, _)| path.as_os_str() != parent.as_os_str()) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.folder = Some((parent.to_owned(), openat(CWD, parent, flags, Mode::empty())?));
        }
        let (_, folder) = self.folder.as_ref().expect("it was opened above");
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = statx(folder, name, flags, StatxFlags::BASIC_STATS)?;
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, i64::from(time.tv_nsec));
        let mode = u32::from(found.stx_mode);
        let look = Look {
            size: found.stx_size,
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
            inode: found.stx_ino,
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            executable: mode & 0o111 != 0,
        };
        Ok((look, FileType::from_raw_mode(mode) == FileType::RegularFile))
    }

    #[cfg(not(target_os = "linux"))]
    fn look_at(&mut self, path: &Path, follow: bool) -> io::Result<(Look, bool)> {
        let found = if follow { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
        Ok((Look::of(&found), found.is_file()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_looker_sees_what_the_standard_library_sees() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("a/deep")).unwrap();
        for (path, text) in [("a/one", "1"), ("a/deep/two", "22"), ("three", "333")] {
            fs::write(at(path), text).unwrap();
        }
        fs::set_permissions(at("a/one"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("one", at("a/link")).unwrap();
        symlink("nowhere", at("a/dangling")).unwrap();
        let mut looker = Looker::default();
        for path in ["a/one", "a/link", "a/deep/two", "three", "a/one", "a/deep", "/"] {
            let path = at(path);
            let (followed, itself) = (fs::metadata(&path).unwrap(), fs::symlink_metadata(&path).unwrap());
            let expected = followed.is_file().then(|| Look::of(&followed));
            assert_eq!(looker.look(&path).unwrap(), expected, "{}", path.display());
            if path.file_name().is_some() {
                assert_eq!(looker.look_at_itself(&path).unwrap(), Look::of(&itself), "{}", path.display());
            }
        }
        for path in ["a/dangling", "a/none", "none/one", "a/one/below"] {
            let (path, expected) = (at(path), fs::metadata(at(path)).unwrap_err());
            assert_eq!(looker.look(&path).unwrap_err().kind(), expected.kind(), "{}", path.display());
        }
    }
}
