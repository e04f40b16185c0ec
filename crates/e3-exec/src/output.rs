//! Taking over what a task has left as its output.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use e3_core::{ObjectStoreExt, Source, StorageBackend, TreeBuilder, TreeError, TreeProblem, Unavailable};
use e3_types::{ErrorClass, FileEntry, Json, Kind, ObjectRef};
use walkdir::WalkDir;

use crate::stage::{OUTPUT, StagedFile};

/// The largest JSON output, in bytes. It is parsed, so it is in memory as a whole.
const LARGEST_JSON: u64 = 64 << 20;

/// Why an output cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error(
        "the task ended with code 0 but wrote no output: it must write its {kind} to the path that `{{output}}` and \
         $E3_OUTPUT stand for"
    )]
    Missing { kind: Kind },
    #[error("the task's output is {found}, but it is declared as {expected}{}", hint(*.expected))]
    WrongKind { expected: Kind, found: &'static str },
    #[error("the task's output is declared as json, but is {0}")]
    NotJson(#[from] e3_types::JsonError),
    #[error(
        "the task's json output has {size} bytes: at most {LARGEST_JSON} are supported; declare it as a file"
    )]
    JsonTooLarge { size: u64 },
    #[error("in the task's output: {0}")]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Object(#[from] e3_core::ObjectError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

fn hint(expected: Kind) -> &'static str {
    match expected {
        Kind::Dir => ": the task must make a folder there",
        Kind::File => "; write `output = \"dir\"` in the task to keep folders",
        Kind::Json => "",
    }
}

impl OutputError {
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. }
            | Self::WrongKind { .. }
            | Self::NotJson(_)
            | Self::JsonTooLarge { .. }
            | Self::Tree(_) => ErrorClass::User,
            Self::Object(error) => error.class(),
            Self::Unavailable(_) => ErrorClass::Environment,
        }
    }
}

/// Stores the output below the working folder `work`. Its files are moved into the store. A hard link to one of the `staged` files,
/// which are as they were, is that file: nothing is read or written for it.
pub(crate) async fn adopt(
    storage: &dyn StorageBackend,
    kind: Kind,
    work: &Path,
    staged: &[StagedFile],
) -> Result<ObjectRef, OutputError> {
    let path = work.join(OUTPUT);
    let metadata = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OutputError::Missing { kind }),
        other => other.map_err(|error| reading(&path, error))?,
    };
    let found = match metadata.file_type() {
        kind if kind.is_file() => "a file",
        kind if kind.is_dir() => "a folder",
        kind if kind.is_symlink() => "a symbolic link",
        _ => "a device, a socket or a fifo",
    };
    match (kind, found) {
        (Kind::File, "a file") => match Links::new(staged).find(&metadata)? {
            Some(object) => Ok(object),
            None => Ok(storage.objects().put(Source::Adopt(path)).await?),
        },
        (Kind::Dir, "a folder") => adopt_folder(storage, path, staged).await,
        (Kind::Json, "a file") => adopt_json(storage, path, metadata.len()).await,
        (expected, found) => Err(OutputError::WrongKind { expected, found }),
    }
}

async fn adopt_json(
    storage: &dyn StorageBackend,
    path: PathBuf,
    size: u64,
) -> Result<ObjectRef, OutputError> {
    if size > LARGEST_JSON {
        return Err(OutputError::JsonTooLarge { size });
    }
    let read = move || {
        let bytes = fs::read(&path).map_err(|error| reading(&path, error))?;
        Ok::<_, OutputError>(Json::parse(&bytes)?.to_canonical())
    };
    let canonical = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Unavailable::new("reading json", error))??;
    Ok(storage.objects().put_bytes(canonical).await?)
}

async fn adopt_folder(
    storage: &dyn StorageBackend,
    root: PathBuf,
    staged: &[StagedFile],
) -> Result<ObjectRef, OutputError> {
    let walked = tokio::task::spawn_blocking(move || walk(&root)).await;
    let (mut tree, files) = walked.map_err(|error| Unavailable::new("reading a folder", error))??;
    let mut links = Links::new(staged);
    let (mut new, mut sources) = (Vec::new(), Vec::new());
    for file in files {
        let executable = file.metadata.permissions().mode() & 0o111 != 0;
        if let Some(object) = links.find(&file.metadata)? {
            tree.add_file(&file.relative, FileEntry { object, executable })?;
        } else {
            sources.push(Source::Adopt(file.path));
            new.push((file.relative, executable));
        }
    }
    let objects = storage.objects().put_many(sources).await?;
    for ((relative, executable), object) in new.into_iter().zip(objects) {
        tree.add_file(&relative, FileEntry { object, executable })?;
    }
    let tree = tree.finish();
    storage.objects().put_many(tree.dirs.into_iter().map(Source::Bytes).collect()).await?;
    Ok(tree.root)
}

struct Found {
    path: PathBuf,
    relative: PathBuf,
    metadata: fs::Metadata,
}

/// The staged files by what they are in the file system.
struct Links<'a> {
    staged: &'a [StagedFile],
    /// By device and inode; made when there is a file with more than one name.
    known: Option<HashMap<(u64, u64), ObjectRef>>,
}

impl<'a> Links<'a> {
    fn new(staged: &'a [StagedFile]) -> Self {
        Self { staged, known: None }
    }

    /// The object of a staged file, if this is one under another name.
    fn find(&mut self, file: &fs::Metadata) -> Result<Option<ObjectRef>, OutputError> {
        if file.nlink() == 1 {
            return Ok(None);
        }
        if self.known.is_none() {
            let look = |staged: &StagedFile| {
                let found =
                    fs::symlink_metadata(&staged.path).map_err(|error| reading(&staged.path, error))?;
                Ok::<_, OutputError>(((found.dev(), found.ino()), staged.object))
            };
            self.known = Some(self.staged.iter().map(look).collect::<Result<_, _>>()?);
        }
        let known = self.known.as_ref().and_then(|known| known.get(&(file.dev(), file.ino())));
        Ok(known.copied())
    }
}

/// What a folder holds: folders and links in the tree, files in a list.
fn walk(root: &Path) -> Result<(TreeBuilder, Vec<Found>), OutputError> {
    let mut tree = TreeBuilder::new();
    let mut files = Vec::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let entry =
            entry.map_err(|error| Unavailable::new(format!("reading `{}`", root.display()), error))?;
        let path = entry.path().to_owned();
        let relative = path.strip_prefix(root).expect("walked paths start with their root").to_owned();
        let kind = entry.file_type();
        if kind.is_dir() {
            tree.add_dir(&relative)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| reading(&path, error))?;
            tree.add_symlink(&relative, target.as_os_str())?;
        } else if kind.is_file() {
            let metadata = entry
                .metadata()
                .map_err(|error| Unavailable::new(format!("reading `{}`", path.display()), error))?;
            files.push(Found { path, relative, metadata });
        } else {
            return Err(TreeError { path: relative, problem: TreeProblem::Special }.into());
        }
    }
    Ok((tree, files))
}

fn reading(path: &Path, error: io::Error) -> OutputError {
    Unavailable::new(format!("reading `{}`", path.display()), error).into()
}
