//! Taking over what a task has left as its output.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use e3_core::{ObjectStoreExt, Source, StorageBackend, TreeBuilder, TreeError, TreeProblem, Unavailable};
use e3_types::{ErrorClass, FileEntry, Json, Kind, ObjectRef};
use walkdir::WalkDir;

use crate::stage::OUTPUT;

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

/// Stores the output below the working folder `work`. Its files are moved into the store.
pub(crate) async fn adopt(
    storage: &dyn StorageBackend,
    kind: Kind,
    work: &Path,
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
        (Kind::File, "a file") => Ok(storage.objects().put(Source::Adopt(path)).await?),
        (Kind::Dir, "a folder") => adopt_folder(storage, path).await,
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

async fn adopt_folder(storage: &dyn StorageBackend, root: PathBuf) -> Result<ObjectRef, OutputError> {
    let walked = tokio::task::spawn_blocking(move || walk(&root)).await;
    let (mut tree, files) = walked.map_err(|error| Unavailable::new("reading a folder", error))??;
    let sources = files.iter().map(|file| Source::Adopt(file.path.clone())).collect();
    let objects = storage.objects().put_many(sources).await?;
    for (file, object) in files.into_iter().zip(objects) {
        tree.add_file(&file.relative, FileEntry { object, executable: file.executable })?;
    }
    // Where all cores may be used for it.
    let tree = tokio::task::spawn_blocking(move || tree.finish()).await;
    let tree = tree.map_err(|error| Unavailable::new("putting a folder together", error))?;
    storage.objects().put_many(tree.dirs.into_iter().map(Source::Bytes).collect()).await?;
    Ok(tree.root)
}

struct Found {
    path: PathBuf,
    relative: PathBuf,
    executable: bool,
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
            files.push(Found { relative, path, executable: metadata.permissions().mode() & 0o111 != 0 });
        } else {
            return Err(TreeError { path: relative, problem: TreeProblem::Special }.into());
        }
    }
    Ok((tree, files))
}

fn reading(path: &Path, error: io::Error) -> OutputError {
    Unavailable::new(format!("reading `{}`", path.display()), error).into()
}
