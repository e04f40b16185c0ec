//! Tracking: the datasets that follow files of the project, as objects. A file is read only if it has changed.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use e3_core::{
    Clock, ObjectError, ObjectStoreExt, Source, StorageBackend, TreeBuilder, TreeError, TreeProblem,
    Unavailable, datasets::Assignment,
};
use e3_types::{DatasetPath, ErrorClass, FileEntry, Json, Kind, ObjectRef};

use crate::{
    build::{Tracked, TrackedSource},
    error::PipelineError,
    stat_cache::{Look, StatCache},
    walk::{Found, What, walk},
};

/// How often a file that changes while it is read is read again.
const PATIENCE: usize = 5;
/// How many files are read in one request to the store.
const AT_ONCE: usize = 256;

/// Where the sources are.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder of the pipeline file, absolute.
    pub folder: PathBuf,
    /// The repository, absolute: never part of a dataset.
    pub repository: PathBuf,
}

/// What tracking came to.
#[derive(Debug)]
pub struct TrackReport {
    /// The datasets with what they hold now.
    pub values: Vec<Assignment>,
    /// How many files there are.
    pub files: usize,
    /// How many of them had to be read.
    pub read: usize,
}

/// Brings the tracked datasets into the store.
pub async fn track(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    cache: &mut StatCache,
    project: &Project,
    tracked: &[Tracked],
) -> Result<TrackReport, PipelineError> {
    let walked = walk_all(project, tracked).await?;
    // Many tasks may use one file: it is looked at once. The number says which dataset to blame for it.
    let mut files: BTreeMap<&Path, (Look, usize)> = BTreeMap::new();
    for (number, found) in walked.iter().enumerate() {
        for Found { what, .. } in found.iter() {
            if let What::File { path, metadata } = what {
                files.entry(path).or_insert((Look::of(metadata), number));
            }
        }
    }

    let mut objects: HashMap<PathBuf, FileEntry> = HashMap::with_capacity(files.len());
    let known: Vec<_> = files
        .iter()
        .filter_map(|(path, (look, _))| Some((*path, cache.find(path, look)?, look.executable)))
        .collect();
    let hashes: Vec<_> = known.iter().map(|(_, object, _)| object.hash).collect();
    let sizes = storage.objects().stat_many(&hashes).await.map_err(|error| of_object(&error))?;
    for ((path, object, executable), size) in known.into_iter().zip(sizes) {
        if size == Some(object.size) {
            objects.insert(path.to_owned(), FileEntry { object, executable });
        }
    }
    let mut unread: Vec<(PathBuf, usize)> = files
        .iter()
        .filter(|(path, _)| !objects.contains_key(**path))
        .map(|(path, (_, number))| ((*path).to_owned(), *number))
        .collect();
    let read = unread.len();
    for _ in 0..PATIENCE {
        unread = read_files(storage, clock, cache, unread, tracked, &mut objects).await?;
    }
    if let Some((path, number)) = unread.first() {
        let message = format!("`{}` changes while it is read: wait until it is complete", path.display());
        return Err(tracked[*number].error(ErrorClass::Environment, message));
    }

    let mut values = Vec::with_capacity(tracked.len());
    let mut dirs: HashMap<ObjectRef, Bytes> = HashMap::new();
    for (tracked, found) in tracked.iter().zip(&walked) {
        let object = assemble(tracked, found, &objects, &mut dirs)?;
        values.push(Assignment { path: tracked.path.clone(), kind: tracked.kind(), object });
    }
    let dirs = dirs.into_values().map(Source::Bytes).collect();
    storage.objects().put_many(dirs).await.map_err(|error| of_object(&error))?;
    cache.retain(|path| !Path::new(path).starts_with(&project.folder) || files.contains_key(Path::new(path)));
    Ok(TrackReport { values, files: files.len(), read })
}

/// Stores a file or a folder as a value of the kind `kind`, as it is now.
pub async fn store_path(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    path: &Path,
    kind: Kind,
) -> Result<ObjectRef, PipelineError> {
    let text = path.to_str().ok_or_else(|| {
        PipelineError::general(ErrorClass::User, format!("the path `{}` is not UTF-8", path.display()))
    })?;
    if kind == Kind::Json {
        let (at, shown) = (path.to_owned(), text.to_owned());
        let read = tokio::task::spawn_blocking(move || fs::read(at)).await.map_err(|error| joined(&error))?;
        let bytes = read.map_err(|error| {
            let class = if error.kind() == std::io::ErrorKind::NotFound {
                ErrorClass::User
            } else {
                ErrorClass::Environment
            };
            PipelineError::general(class, format!("`{shown}` cannot be read: {error}"))
        })?;
        let json = Json::parse(&bytes)
            .map_err(|error| PipelineError::general(ErrorClass::User, format!("`{shown}` is {error}")))?;
        return storage.objects().put_bytes(json.to_canonical()).await.map_err(|error| of_object(&error));
    }
    let source = match kind {
        Kind::Dir => TrackedSource::Dir(text.to_owned()),
        Kind::File | Kind::Json => TrackedSource::File(text.to_owned()),
    };
    let dataset: DatasetPath = "value".parse().expect("this is a path");
    let tracked = Tracked { path: dataset, source, place: None };
    let folder = std::path::absolute(".").map_err(|error| {
        PipelineError::general(
            ErrorClass::Environment,
            format!("the working folder cannot be found: {error}"),
        )
    })?;
    let project = Project { repository: folder.join(".e3"), folder };
    let report = track(storage, clock, &mut StatCache::empty(), &project, &[tracked]).await?;
    Ok(report.values[0].object)
}

async fn walk_all(project: &Project, tracked: &[Tracked]) -> Result<Vec<Arc<Vec<Found>>>, PipelineError> {
    let (project, tracked) = (project.clone(), tracked.to_vec());
    let walk_each = move || {
        // Many tasks may use the same code: the same source is walked once.
        let mut seen: HashMap<TrackedSource, Arc<Vec<Found>>> = HashMap::new();
        let mut all = Vec::with_capacity(tracked.len());
        for tracked in &tracked {
            let found = match seen.get(&tracked.source) {
                Some(found) => Arc::clone(found),
                None => Arc::new(walk(&project.folder, &project.repository, tracked)?),
            };
            seen.insert(tracked.source.clone(), Arc::clone(&found));
            all.push(found);
        }
        Ok(all)
    };
    tokio::task::spawn_blocking(walk_each).await.map_err(|error| joined(&error))?
}

/// Reads files into the store; returns those that changed meanwhile.
async fn read_files(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    cache: &mut StatCache,
    files: Vec<(PathBuf, usize)>,
    tracked: &[Tracked],
    objects: &mut HashMap<PathBuf, FileEntry>,
) -> Result<Vec<(PathBuf, usize)>, PipelineError> {
    let mut changed = Vec::new();
    for group in files.chunks(AT_ONCE) {
        // The message names the file; the dataset to blame is the one that reads it.
        let blame = |message: String| {
            let is_meant = |(path, _): &&(PathBuf, usize)| message.contains(&format!("`{}`", path.display()));
            let (_, number) = group.iter().find(is_meant).unwrap_or(&group[0]);
            tracked[*number].error(ErrorClass::Environment, message)
        };
        let paths: Vec<_> = group.iter().map(|(path, _)| path.clone()).collect();
        let started = clock.now();
        let before = looks(paths.clone()).await?;
        let sources = paths.iter().cloned().map(Source::Copy).collect();
        let stored = storage.objects().put_many(sources).await.map_err(|error| match error {
            ObjectError::Unavailable(error) => blame(error.to_string()),
            other => of_object(&other),
        })?;
        let after = looks(paths).await?;
        for (((file, before), after), object) in group.iter().zip(before).zip(after).zip(stored) {
            let (Some(before), Some(after)) = (before, after) else {
                changed.push(file.clone());
                continue;
            };
            if before == after {
                cache.remember(&file.0, after, object, started);
                objects.insert(file.0.clone(), FileEntry { object, executable: after.executable });
            } else {
                changed.push(file.clone());
            }
        }
    }
    Ok(changed)
}

async fn looks(paths: Vec<PathBuf>) -> Result<Vec<Option<Look>>, PipelineError> {
    let look =
        move || paths.iter().map(|path| fs::metadata(path).ok().map(|found| Look::of(&found))).collect();
    tokio::task::spawn_blocking(look).await.map_err(|error| joined(&error))
}

/// The object of a dataset; the `dir` objects that it needs go to `dirs`.
fn assemble(
    tracked: &Tracked,
    found: &[Found],
    objects: &HashMap<PathBuf, FileEntry>,
    dirs: &mut HashMap<ObjectRef, Bytes>,
) -> Result<ObjectRef, PipelineError> {
    let entry = |path: &PathBuf| objects.get(path).copied().expect("every file that was found was read");
    if tracked.kind() != Kind::Dir
        && let [Found { what: What::File { path, .. }, .. }] = found
    {
        return Ok(entry(path).object);
    }
    let mut tree = TreeBuilder::new();
    for Found { relative, what } in found {
        let added = match what {
            What::File { path, .. } => tree.add_file(relative, entry(path)),
            What::Dir => tree.add_dir(relative),
            What::Symlink { target } => tree.add_symlink(relative, target),
            What::Special => Err(TreeError { path: relative.clone(), problem: TreeProblem::Special }),
        };
        added.map_err(|error| tracked.error(ErrorClass::User, error.to_string()))?;
    }
    let tree = tree.finish();
    dirs.extend(tree.dirs.into_iter().map(|dir| (ObjectRef::of(&dir), dir)));
    Ok(tree.root)
}

fn of_object(error: &ObjectError) -> PipelineError {
    PipelineError::general(error.class(), error.to_string())
}

fn joined(error: &tokio::task::JoinError) -> PipelineError {
    let error = Unavailable::new("looking at source files", error.to_string());
    PipelineError::general(ErrorClass::Internal, error.to_string())
}
