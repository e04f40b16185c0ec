//! All objects there are, and what goes from among them.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use e3_core::ObjectError;
use e3_types::{Hash, ObjectRef, Timestamp};

use super::{Inner, failed, small::Listed};
use crate::{
    files::{is_missing, with_parent},
    integrity::hash_file,
};

impl Inner {
    pub(super) fn list(&self) -> Result<Listed, ObjectError> {
        let mut objects = Vec::new();
        for folder in entries(&self.folder)? {
            let Some(start) = folder.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                continue;
            };
            for path in entries(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Ok(hash) = format!("{start}{name}").parse() else { continue };
                objects.extend(self.file_size(&hash)?.map(|size| ObjectRef { hash, size }));
            }
        }
        let files: HashSet<Hash> = objects.iter().map(|object| object.hash).collect();
        let mut listed = self.small.list()?;
        listed.objects.retain(|object| !files.contains(&object.hash));
        listed.objects.append(&mut objects);
        Ok(listed)
    }

    pub(super) fn drop_altered_copies(&self) -> Result<u64, ObjectError> {
        let mut dropped = 0;
        for folder in entries(&self.folder)? {
            for path in
                entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "x"))
            {
                let (start, name) = (folder.file_name(), path.file_stem());
                let (Some(start), Some(name)) = (start, name) else { continue };
                let hash = format!("{}{}", start.to_string_lossy(), name.to_string_lossy()).parse::<Hash>();
                let found = hash_file(&path).map_err(|error| failed("reading", &path, error))?;
                if hash.is_ok_and(|hash| hash != found.hash) {
                    fs::remove_file(&path).map_err(|error| failed("removing", &path, error))?;
                    dropped += 1;
                }
            }
        }
        Ok(dropped)
    }

    /// Deletes the file of an object; false if it has none.
    pub(super) fn delete_file(&self, hash: &Hash) -> Result<bool, ObjectError> {
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if is_missing(&error) => Ok(false),
            other => other.map(|()| true).map_err(|error| failed("deleting", path, error)),
        };
        remove(&self.executable_path(hash))?;
        remove(&self.path(hash))
    }

    /// Whether an object has a file that was made, or staged, since a time: the time of the last link counts as use.
    pub(super) fn is_younger(&self, hash: &Hash, than: Timestamp) -> Result<bool, ObjectError> {
        let path = self.path(hash);
        let metadata = match fs::metadata(&path) {
            Err(error) if is_missing(&error) => return Ok(false),
            other => other.map_err(|error| failed("reading", &path, error))?,
        };
        let changed_ms = metadata.ctime() * 1000 + metadata.ctime_nsec() / 1_000_000;
        Ok(u64::try_from(changed_ms).unwrap_or(0) >= than.unix_ms())
    }

    /// Rows have gone: the folders where their files would be say so to whoever has a stamp of them.
    pub(super) fn tell_of_removal(&self, rows: &[Hash]) -> Result<(), ObjectError> {
        for hash in rows {
            let mut path = self.path(hash).into_os_string();
            path.push(".gone");
            let path = PathBuf::from(path);
            with_parent(&path, || File::create(&path))
                .and_then(|_| fs::remove_file(&path))
                .map_err(|error| failed("marking", &path, error))?;
        }
        Ok(())
    }

    /// Writes what an altered row holds to where altered files are.
    pub(super) fn keep_aside(&self, hash: &Hash, bytes: &[u8]) -> Result<(), ObjectError> {
        tracing::info!(object = %hash, "the row of an object was altered: it is put aside");
        let aside = self.quarantine.0.join(format!("{hash}-{}", Hash::of(bytes)));
        with_parent(&aside, || fs::write(&aside, bytes)).map_err(|error| failed("writing", &aside, error))
    }
}

/// The paths in a folder; none if it is not there.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    let read = match fs::read_dir(folder) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        other => other.map_err(|error| failed("listing", folder, error))?,
    };
    read.map(|entry| Ok(entry.map_err(|error| failed("listing", folder, error))?.path())).collect()
}
