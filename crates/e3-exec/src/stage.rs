//! Materialising objects as files and folders, and noticing when a staged file was changed.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use e3_core::{Access, ObjectError, Source, StageItem, StorageBackend, TreeEntry, Unavailable, read_tree};
use e3_types::{ErrorClass, Hash, Kind, Name, ObjectRef, TaskObject};

/// Where a task writes its output, relative to its working folder.
pub(crate) const OUTPUT: &str = "output";

/// Where an input is staged, relative to the working folder.
pub(crate) fn staged_path(name: &Name) -> String {
    format!("inputs/{name}")
}

/// A file that was staged.
#[derive(Debug, Clone)]
pub struct StagedFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub object: ObjectRef,
    /// Whether it is executable.
    pub executable: bool,
}

impl StagedFile {
    /// Whether the file has been written to; none if it is no longer there under its name. Takes back a change of its mode:
    /// the file may be the object itself, and others read it.
    pub(crate) fn was_changed(&self) -> io::Result<Option<bool>> {
        let now = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let wanted = if self.executable { 0o555 } else { 0o444 };
        if now.is_file() && now.mode() & 0o7777 != wanted {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(wanted))?;
        }
        let time = (now.mtime(), now.mtime_nsec());
        Ok(Some(now.len() != self.object.size || time != (Source::MODIFIED_SECONDS.cast_signed(), 0)))
    }
}

/// Why something cannot be materialised.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Of the object store.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Of the file system.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl StageError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Object(error) => error.class(),
            Self::Unavailable(_) => ErrorClass::Environment,
        }
    }
}

/// Why an input cannot be staged.
#[derive(Debug)]
pub(crate) struct StagingError {
    /// Which, by its number among the task's.
    pub(crate) input: u32,
    /// The same in words.
    pub(crate) name: String,
    pub(crate) source: StageError,
}

/// Writes an object to the path `to`: a file, or a folder with all that it holds. A folder may be there already, the
/// files must not. Returns the files.
pub async fn materialise(
    storage: &dyn StorageBackend,
    kind: Kind,
    object: ObjectRef,
    to: &Path,
    access: Access,
) -> Result<Vec<StagedFile>, StageError> {
    let mut items = Vec::new();
    if kind == Kind::Dir {
        let entries = read_tree(storage.objects(), &object).await?;
        let mut skeleton = vec![(to.to_owned(), None)];
        for (path, entry) in entries {
            let path = to.join(path);
            match entry {
                TreeEntry::Dir => skeleton.push((path, None)),
                TreeEntry::Symlink(target) => skeleton.push((path, Some(target))),
                TreeEntry::File(file) => {
                    items.push(StageItem {
                        object: file.object,
                        to: path,
                        access,
                        executable: file.executable,
                    });
                }
            }
        }
        make_skeleton(skeleton).await?;
    } else {
        items.push(StageItem { object, to: to.to_owned(), access, executable: false });
    }
    storage.objects().stage_many(&items).await?;
    let staged =
        |item: StageItem| StagedFile { path: item.to, object: item.object, executable: item.executable };
    Ok(items.into_iter().map(staged).collect())
}

/// Makes folders and symbolic links, in the given order.
async fn make_skeleton(entries: Vec<(PathBuf, Option<String>)>) -> Result<(), Unavailable> {
    let make = move || {
        for (path, target) in entries {
            let made = match target {
                None => fs::create_dir_all(&path),
                Some(target) => symlink(target, &path),
            };
            made.map_err(|error| Unavailable::new(format!("making `{}`", path.display()), error))?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(make).await.map_err(|error| Unavailable::new("making folders", error))?
}

/// Stages all inputs of a task below its working folder; returns the files that the task must not change.
pub(crate) async fn stage_inputs(
    storage: &dyn StorageBackend,
    task: &TaskObject,
    inputs: &[Hash],
    work: &Path,
) -> Result<Vec<StagedFile>, StagingError> {
    let failed = |at: usize, source: StageError| StagingError {
        input: u32::try_from(at).unwrap_or(u32::MAX),
        name: match task.inputs[at].name.as_ref() {
            Some(name) => format!("input `{name}`"),
            None => "the code".to_owned(),
        },
        source,
    };
    let sizes = storage.objects().stat_many(inputs).await.map_err(|error| failed(0, error.into()))?;
    let mut guarded = Vec::new();
    for (at, ((input, &hash), size)) in task.inputs.iter().zip(inputs).zip(sizes).enumerate() {
        let size = size.ok_or_else(|| failed(at, ObjectError::NotFound(hash).into()))?;
        let object = ObjectRef { hash, size };
        let access = if input.writable { Access::Private } else { Access::ReadOnly };
        let to = input.name.as_ref().map_or_else(|| work.to_owned(), |name| work.join(staged_path(name)));
        let staged =
            materialise(storage, input.kind, object, &to, access).await.map_err(|error| failed(at, error))?;
        if !input.writable {
            guarded.extend(staged);
        }
    }
    Ok(guarded)
}
