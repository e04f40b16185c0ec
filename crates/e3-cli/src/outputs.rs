//! `[outputs]`: results put into the project folder.
//!
//! What e3 has written there it remembers, with a fingerprint of how it looked afterwards. A file that looks otherwise
//! is somebody's work and is not overwritten unless that is asked for.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use e3_core::{Access, DatasetRef, RefChange, RefName, StorageBackend, TreeBuilder, datasets};
use e3_exec::materialise;
use e3_pipeline::OutputLink;
use e3_store::LocalStorage;
use e3_types::{DatasetPath, FileEntry, Hash, Hasher, Kind, ObjectRef};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::{
    context::Context,
    error::{CliError, Exit, Result},
};

/// What was written to a place of the project.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    object: ObjectRef,
    link: bool,
    looks: Hash,
}

/// Puts the outputs in place; returns those that had to be written.
pub(crate) async fn place(
    context: &Context,
    storage: &LocalStorage,
    project: &Path,
    links: &BTreeMap<String, OutputLink>,
    force: bool,
) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for (path, OutputLink { from, kind, link }) in links {
        let dataset = DatasetPath::from(from);
        let refs = storage.refs();
        // A run of some targets makes some of the outputs: those that are there now. An input may be one, too.
        let value = match datasets::read_output(refs, &context.workspace, &dataset).await? {
            Some(value) => Some(value),
            None => datasets::read_root(refs, &context.workspace, &dataset).await?,
        };
        let Some(value) = value else { continue };
        let output = Output { context, storage, path, to: project.join(path), kind: *kind, link: *link };
        if output.place(&value, force).await? {
            done.push(path.clone());
        }
    }
    Ok(done)
}

struct Output<'a> {
    context: &'a Context,
    storage: &'a LocalStorage,
    path: &'a str,
    to: PathBuf,
    kind: Kind,
    link: bool,
}

impl Output<'_> {
    /// Puts one output in place; false if it is there already.
    async fn place(&self, value: &DatasetRef, force: bool) -> Result<bool> {
        let looks = fingerprint(&self.to).map_err(|error| self.failed("looking at", error))?;
        let name = self.record_name();
        let before = self.storage.refs().read(std::slice::from_ref(&name)).await?.pop().flatten();
        let before: Option<Written> = before.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let ours = looks.is_some() && before.as_ref().map(|written| written.looks) == looks;
        if ours && before.as_ref().is_some_and(|now| now.object == value.object && now.link == self.link) {
            return Ok(false);
        }
        let known: Vec<Hash> =
            before.iter().map(|written| written.object.hash).chain([value.object.hash]).collect();
        if looks.is_some() && !ours && !force && !self.holds_one_of(&known)? {
            let message = format!(
                "`{}` is there and e3 did not write it, or it was edited since: it is left as it is. Move it away, or \
                 overwrite it with --force-outputs",
                self.path
            );
            return Err(CliError::new(Exit::Conflict, message));
        }
        self.write(value).await?;
        let looks = fingerprint(&self.to)
            .and_then(|looks| looks.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|error| self.failed("looking at", error))?;
        let written = Written { object: value.object, link: self.link, looks };
        let text = serde_json::to_vec(&written).map_err(|error| self.failed("recording", error.into()))?;
        self.storage.refs().write(vec![RefChange::set(name, text)]).await?;
        Ok(true)
    }

    /// Writes aside, then renames: readers of the old output are never left with half of the new one.
    async fn write(&self, value: &DatasetRef) -> Result<()> {
        let parent = self.to.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|error| self.failed("making the folder of", error))?;
        let aside = tempfile::Builder::new()
            .prefix(".e3-")
            .tempdir_in(parent)
            .map_err(|error| self.failed("writing", error))?;
        let fresh = aside.path().join("new");
        let access = if self.link { Access::ReadOnly } else { Access::Private };
        let files = materialise(self.storage, self.kind, value.object, &fresh, access).await?;
        if !self.link {
            // A file of one's own has the time when it was made, as any other file of the project.
            let now =
                SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(self.context.clock.now().unix_ms());
            for file in files {
                fs::File::options()
                    .write(true)
                    .open(&file.path)
                    .and_then(|opened| opened.set_modified(now))
                    .map_err(|error| self.failed("writing", error))?;
            }
        }
        let replace = || {
            if fs::symlink_metadata(&self.to).is_ok_and(|old| old.is_dir() || self.kind == Kind::Dir) {
                fs::rename(&self.to, aside.path().join("old"))?;
            }
            fs::rename(&fresh, &self.to)
        };
        replace().map_err(|error| self.failed("writing", error))
    }

    /// Whether what is there is what e3 has written before, or would write now: it may have been stopped before it could
    /// remember that.
    fn holds_one_of(&self, known: &[Hash]) -> Result<bool> {
        let metadata = fs::symlink_metadata(&self.to).map_err(|error| self.failed("looking at", error))?;
        let found = match (metadata.file_type(), self.kind) {
            (kind, Kind::Dir) if kind.is_dir() => folder_object(&self.to),
            (kind, Kind::File | Kind::Json) if kind.is_file() => file_object(&self.to).map(Some),
            _ => return Ok(false),
        };
        let found = found.map_err(|error| self.failed("reading", error))?;
        Ok(found.is_some_and(|object| known.contains(&object.hash)))
    }

    fn record_name(&self) -> RefName {
        RefName::new(&[&"outputs", &Hash::of(self.to.as_os_str().as_encoded_bytes())])
    }

    fn failed(&self, doing: &str, error: io::Error) -> CliError {
        CliError::environment(format!("{doing} the output `{}`", self.path), error)
    }
}

/// What object a file is.
fn file_object(path: &Path) -> io::Result<ObjectRef> {
    let mut hasher = HashWriter(Hasher::new(), 0);
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(ObjectRef { hash: hasher.0.finish(), size: hasher.1 })
}

/// What object a folder is; none if it holds what no object can hold.
fn folder_object(root: &Path) -> io::Result<Option<ObjectRef>> {
    let mut tree = TreeBuilder::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let entry = entry?;
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let kind = entry.file_type();
        let added = if kind.is_dir() {
            tree.add_dir(path)
        } else if kind.is_symlink() {
            tree.add_symlink(path, fs::read_link(entry.path())?.as_os_str())
        } else if kind.is_file() {
            let executable = entry.metadata()?.mode() & 0o111 != 0;
            tree.add_file(path, FileEntry { object: file_object(entry.path())?, executable })
        } else {
            return Ok(None);
        };
        if added.is_err() {
            return Ok(None);
        }
    }
    Ok(Some(tree.finish().root))
}

struct HashWriter(Hasher, u64);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a file or folder looks without being read; `None` if there is none.
fn fingerprint(path: &Path) -> io::Result<Option<Hash>> {
    if let Err(error) = fs::symlink_metadata(path) {
        return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    }
    let mut hasher = Hasher::new();
    for entry in WalkDir::new(path).sort_by_file_name() {
        let entry = entry?;
        let metadata = entry.metadata()?;
        hasher.update(entry.path().strip_prefix(path).unwrap_or(entry.path()).as_os_str().as_encoded_bytes());
        // A folder's own times and size change with what is done beside its files.
        let looks = if metadata.is_dir() {
            "\0dir\0".to_owned()
        } else {
            let (size, inode, mode) = (metadata.len(), metadata.ino(), metadata.mode());
            format!("\0{size} {inode} {mode:o} {}.{:09}\0", metadata.mtime(), metadata.mtime_nsec())
        };
        hasher.update(looks.as_bytes());
    }
    Ok(Some(hasher.finish()))
}
