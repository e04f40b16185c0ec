//! Materialising objects as files and folders, and noticing when a staged file was changed.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use e3_core::{
    Access, ObjectError, ObjectStoreExt, Source, StageItem, StorageBackend, TreeEntry, Unavailable, read_tree,
};
use e3_types::{ErrorClass, FileEntry, Hash, Kind, Name, ObjectRef, TaskObject};

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
    /// Whether the file, which was staged below the folder `work`, has been written to; none if it is no longer to be found under
    /// its name. Takes back a change of its mode: the file may be the object itself, and others read it.
    pub(crate) fn was_changed(&self, work: &Path) -> io::Result<Option<bool>> {
        // Whatever the task has done to the folders on the way: what cannot be looked at here is looked at in the store.
        let Ok(now) = fs::symlink_metadata(&self.path) else { return Ok(None) };
        let wanted = if self.executable { 0o555 } else { 0o444 };
        if now.is_file() && now.mode() & 0o7777 != wanted {
            if !self.is_reached_through_folders(work) {
                // Somebody else's file.
                return Ok(None);
            }
            fs::set_permissions(&self.path, fs::Permissions::from_mode(wanted))?;
        }
        let time = (now.mtime(), now.mtime_nsec());
        Ok(Some(now.len() != self.object.size || time != (Source::MODIFIED_SECONDS.cast_signed(), 0)))
    }

    /// Whether no symbolic link leads from the folder `work` to the file: the task may have put one in the place of a folder.
    fn is_reached_through_folders(&self, work: &Path) -> bool {
        let between = self.path.ancestors().skip(1).take_while(|folder| *folder != work);
        between.map(fs::symlink_metadata).all(|found| found.is_ok_and(|found| found.is_dir()))
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
    /// Which, by its number among the task's, if it is about one of them.
    pub(crate) input: Option<u32>,
    /// The same in words.
    pub(crate) name: String,
    pub(crate) source: StageError,
}

impl StagingError {
    /// One that is not about one of the inputs.
    fn of_all(source: StageError) -> Self {
        Self { input: None, name: "the inputs".to_owned(), source }
    }
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
    let mut layout = Layout::default();
    match kind {
        Kind::Dir => layout.add_folder(storage, object, to, access).await?,
        Kind::File | Kind::Json => layout.add_file(object.hash, Some(object.size), to.to_owned(), access),
    }
    layout.make_skeleton().await?;
    let sizes = storage.objects().stage_many(&layout.files).await?;
    Ok(staged_files(layout.files, sizes).map(|(file, _)| file).collect())
}

/// Everything that is to be put somewhere.
#[derive(Default)]
struct Layout {
    /// Folders and symbolic links, in the order in which they can be made.
    skeleton: Vec<(PathBuf, Option<String>)>,
    files: Vec<StageItem>,
    /// Whether some of the files may be there already.
    again: bool,
}

impl Layout {
    fn add_file(&mut self, hash: Hash, size: Option<u64>, to: PathBuf, access: Access) {
        self.files.push(StageItem { hash, size, to, access, executable: false, again: self.again });
    }

    async fn add_folder(
        &mut self,
        storage: &dyn StorageBackend,
        object: ObjectRef,
        to: &Path,
        access: Access,
    ) -> Result<(), ObjectError> {
        self.skeleton.push((to.to_owned(), None));
        for (path, entry) in read_tree(storage.objects(), &object).await? {
            let to = to.join(path);
            match entry {
                TreeEntry::Dir => self.skeleton.push((to, None)),
                TreeEntry::Symlink(target) => self.skeleton.push((to, Some(target))),
                TreeEntry::File(FileEntry { object: ObjectRef { hash, size }, executable }) => {
                    let (size, again) = (Some(size), self.again);
                    self.files.push(StageItem { hash, size, to, access, executable, again });
                }
            }
        }
        Ok(())
    }

    async fn make_skeleton(&mut self) -> Result<(), Unavailable> {
        let entries = std::mem::take(&mut self.skeleton);
        if entries.is_empty() { Ok(()) } else { make_skeleton(entries).await }
    }
}

fn staged_files(items: Vec<StageItem>, sizes: Vec<u64>) -> impl Iterator<Item = (StagedFile, Access)> {
    items.into_iter().zip(sizes).map(|(StageItem { hash, to, access, executable, .. }, size)| {
        (StagedFile { path: to, object: ObjectRef { hash, size }, executable }, access)
    })
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

/// Stages all inputs of a task below its working folder, where some may be already if it is done `again`; returns the files that
/// the task must not change.
pub(crate) async fn stage_inputs(
    storage: &dyn StorageBackend,
    task: &TaskObject,
    inputs: &[Hash],
    work: &Path,
    again: bool,
) -> Result<Vec<StagedFile>, StagingError> {
    let failed = |at: usize, source: StageError| StagingError {
        input: u32::try_from(at).ok(),
        name: match task.inputs[at].name.as_ref() {
            Some(name) => format!("input `{name}`"),
            None => "the code".to_owned(),
        },
        source,
    };
    let mut layout = Layout { again, ..Layout::default() };
    // Where the files of each input end.
    let mut ends = Vec::with_capacity(inputs.len());
    for (at, (input, &hash)) in task.inputs.iter().zip(inputs).enumerate() {
        let access = if input.writable { Access::Private } else { Access::ReadOnly };
        let to = input.name.as_ref().map_or_else(|| work.to_owned(), |name| work.join(staged_path(name)));
        if input.kind == Kind::Dir {
            let size = storage.objects().stat(&hash).await.map_err(|error| failed(at, error.into()))?;
            let size = size.ok_or_else(|| failed(at, ObjectError::NotFound(hash).into()))?;
            let added = layout.add_folder(storage, ObjectRef { hash, size }, &to, access).await;
            added.map_err(|error| failed(at, error.into()))?;
        } else {
            layout.add_file(hash, None, to, access);
        }
        ends.push(layout.files.len());
    }
    layout.make_skeleton().await.map_err(|error| StagingError::of_all(error.into()))?;
    let sizes = storage.objects().stage_many(&layout.files).await.map_err(|error| match error {
        ObjectError::NotFound(hash) | ObjectError::Corrupt { hash, .. } => {
            let place = layout.files.iter().position(|file| file.hash == hash);
            let at = place.map(|place| ends.partition_point(|end| *end <= place));
            at.map_or_else(
                || StagingError::of_all(ObjectError::NotFound(hash).into()),
                |at| failed(at, error.into()),
            )
        }
        // It names the file.
        other => StagingError::of_all(other.into()),
    })?;
    let staged = staged_files(layout.files, sizes);
    Ok(staged.filter(|(_, access)| *access == Access::ReadOnly).map(|(file, _)| file).collect())
}
