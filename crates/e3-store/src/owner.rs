//! Owners: one for each process that is at work in the repository.
//!
//! An owner is alive as long as it holds the lock on its file. The kernel takes the lock away when the process ends,
//! however it ends, so nobody has to guess from process ids, which are used again and mean nothing in a container.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use e3_types::OwnerId;

use crate::files::{is_missing, remove_tree};

/// The folders of owners in a repository, and this process's own lock once it has one.
#[derive(Debug)]
pub(crate) struct Owners {
    root: PathBuf,
    own: OwnerId,
    lock: Mutex<Option<File>>,
    /// The folder for objects on their way in, once it is there.
    incoming: OnceLock<PathBuf>,
}

impl Owners {
    pub(crate) fn new(root: &Path, own: OwnerId) -> Self {
        Self { root: root.to_owned(), own, lock: Mutex::new(None), incoming: OnceLock::new() }
    }

    pub(crate) fn own(&self) -> OwnerId {
        self.own
    }

    /// Makes this process known, and removes most of what dead ones have left. Does nothing the second time.
    pub(crate) fn register(&self) -> io::Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lock.is_some() {
            return Ok(());
        }
        for folder in ["owners", "tmp", "scratch"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        // Locked under a name that nobody looks at, so that the owner is never seen without its lock.
        let hidden = self.root.join("owners").join(format!(".{}", self.own));
        let file = File::create(&hidden)?;
        file.lock()?;
        fs::rename(&hidden, self.lock_path(self.own))?;
        *lock = Some(file);
        self.sweep()
    }

    /// The folder for objects on their way in.
    pub(crate) fn incoming(&self) -> io::Result<&Path> {
        if let Some(known) = self.incoming.get() {
            return Ok(known);
        }
        let folder = self.folder("tmp")?;
        Ok(self.incoming.get_or_init(|| folder))
    }

    /// The folder for tasks to run in.
    pub(crate) fn scratch(&self) -> io::Result<PathBuf> {
        self.folder("scratch")
    }

    fn folder(&self, kind: &str) -> io::Result<PathBuf> {
        self.register()?;
        let path = self.root.join(kind).join(self.own.to_string());
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(path),
        }
    }

    /// Whether an owner's process is still there.
    pub(crate) fn is_alive(&self, owner: OwnerId) -> io::Result<bool> {
        let file = match File::open(self.lock_path(owner)) {
            Err(error) if is_missing(&error) => return Ok(false),
            other => other?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock_path(&self, owner: OwnerId) -> PathBuf {
        self.root.join("owners").join(format!("{owner}.lock"))
    }

    /// Removes the scratch folders of owners that are dead. `end` is called for each before: there may be processes in it.
    /// Returns those that could not be removed.
    pub(crate) fn clear_abandoned(
        &self,
        end: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<Vec<(PathBuf, io::Error)>> {
        self.register()?;
        let mut left = Vec::new();
        for (owner, path) in owners_in(&self.root.join("scratch"))? {
            if !self.is_alive(owner)? {
                let cleared = end(&path).and_then(|()| remove_tree(&path));
                left.extend(cleared.err().map(|error| (path, error)));
            }
        }
        Ok(left)
    }

    /// Removes what dead owners have left but for their scratch folders: see `clear_abandoned`.
    fn sweep(&self) -> io::Result<()> {
        for (owner, path) in owners_in(&self.root.join("tmp"))? {
            if !self.is_alive(owner)? {
                remove_tree(&path)?;
            }
        }
        for (owner, path) in owners_in(&self.root.join("owners"))? {
            if !self.is_alive(owner)? {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        let lock = self.lock.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lock.take().is_none() {
            return;
        }
        let own = self.own.to_string();
        let removed = ["tmp", "scratch"]
            .into_iter()
            .try_for_each(|folder| remove_empty(&self.root.join(folder).join(&own)))
            .and_then(|()| remove_if_there(&self.lock_path(self.own).with_extension("json")))
            .and_then(|()| remove_if_there(&self.lock_path(self.own)));
        if let Err(error) = removed {
            // The next process that registers removes it.
            tracing::debug!(%error, "leaving the folders of this process to the next one");
        }
    }
}

/// The entries of a folder whose names are owner ids, with or without an ending.
fn owners_in(folder: &Path) -> io::Result<Vec<(OwnerId, PathBuf)>> {
    let mut owners = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(owner) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()) {
            owners.push((owner, path));
        }
    }
    Ok(owners)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

/// Removes a folder of this process. A scratch folder that was kept on request stays, and with it its parent.
fn remove_empty(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(number: u8) -> OwnerId {
        OwnerId::from_parts(1_700_000_000_000, [number; 10])
    }

    #[test]
    fn an_owner_lives_as_long_as_its_lock_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let first = Owners::new(root.path(), owner(1));
        let second = Owners::new(root.path(), owner(2));
        assert!(!second.is_alive(owner(1)).unwrap());
        first.incoming().unwrap();
        assert!(second.is_alive(owner(1)).unwrap());
        assert!(first.is_alive(owner(1)).unwrap(), "an owner sees itself");
        drop(first);
        assert!(!second.is_alive(owner(1)).unwrap());
        assert!(fs::read_dir(root.path().join("tmp")).unwrap().next().is_none());
        assert!(fs::read_dir(root.path().join("owners")).unwrap().next().is_none());
    }

    #[test]
    fn what_dead_owners_left_is_removed_and_the_living_are_spared() {
        let root = tempfile::tempdir().unwrap();
        let dead = Owners::new(root.path(), owner(1));
        let left = dead.scratch().unwrap().join("task");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("file"), "x").unwrap();
        let living = Owners::new(root.path(), owner(2));
        let kept = living.scratch().unwrap();
        assert!(left.exists());
        // A process that is killed drops its lock and nothing else.
        *dead.lock.lock().unwrap() = None;
        let third = Owners::new(root.path(), owner(3));
        let ended = std::cell::RefCell::new(Vec::new());
        let end = |folder: &Path| {
            ended.borrow_mut().push(folder.to_owned());
            Ok(())
        };
        third.clear_abandoned(end).unwrap();
        assert_eq!(ended.into_inner(), [left.parent().unwrap()]);
        assert!(!left.exists());
        assert!(!dead.lock_path(owner(1)).exists());
        assert!(kept.exists());
    }
}
