//! All objects there are, and what goes from among them.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use e3_core::ObjectError;
use e3_types::{Hash, ObjectRef, Timestamp};

use super::{Inner, failed};
use crate::{
    files::{is_missing, with_parent},
    integrity::hash_file,
};

impl Inner {
    pub(super) fn list(&self) -> Result<Vec<ObjectRef>, ObjectError> {
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
        objects.extend(self.small.list()?.into_iter().filter(|object| !files.contains(&object.hash)));
        Ok(objects)
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

    /// The time of the last link counts as use: an object that was staged since is spared.
    pub(super) fn delete(&self, hash: &Hash, older_than: Timestamp) -> Result<bool, ObjectError> {
        let path = self.path(hash);
        if !fs::exists(&path).map_err(|error| failed("reading", &path, error))?
            || self.is_younger(hash, older_than)?
        {
            return Ok(false);
        }
        for path in [self.executable_path(hash), path] {
            match fs::remove_file(&path) {
                Err(error) if !is_missing(&error) => return Err(failed("deleting", &path, error)),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Whether an object has a file that was made, or staged, since a time.
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

    /// Whether the row of an object holds something else; that is put aside then, and the row is to go.
    pub(super) fn judge_row(&self, hash: &Hash) -> Result<bool, ObjectError> {
        let Some(bytes) = self.small.get(hash)? else { return Ok(false) };
        let found = Hash::of(&bytes);
        if found == *hash {
            return Ok(false);
        }
        tracing::info!(object = %hash, "the row of an object was altered: it is put aside");
        let aside = self.quarantine.0.join(format!("{hash}-{found}"));
        with_parent(&aside, || fs::write(&aside, &bytes))
            .map_err(|error| failed("writing", &aside, error))?;
        Ok(true)
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
