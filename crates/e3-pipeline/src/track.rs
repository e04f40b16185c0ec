//! Tracking: the datasets that follow files of the project, as objects. A file is read only if it has changed.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use e3_core::{
    Clock, Looks, ObjectError, ObjectStoreExt, Source, StorageBackend, TreeBuilder, TreeError, TreeProblem,
    Unavailable, datasets::Assignment, parallel,
};
use e3_types::{DatasetPath, ErrorClass, FileEntry, Hash, Hasher, Json, Kind, ObjectRef};

use crate::{
    build::{Tracked, TrackedSource},
    error::PipelineError,
    stat_cache::{Look, StatCache},
    walk::{Found, What, walk},
};

/// How often a file that changes while it is read is read again.
const PATIENCE: usize = 5;
/// How many sources are looked at in one go.
const AT_ONCE: usize = 256;
/// How many files are read in one request to the store.
const READ_AT_ONCE: usize = 32 << 10;

/// How a fingerprint begins. It is another one when datasets are made of files in another way.
const LOOKS: &str = "e3 sources 2";

/// What the files hold, by path. Paths are compared as bytes: part by part takes long.
type Objects<'a> = HashMap<&'a OsStr, FileEntry>;

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
    /// How the files of all datasets looked; of one whose files could hold something else and look the same, nothing.
    pub looks: Looks,
}

/// The files that datasets follow, as they look now: none of them has been read.
#[derive(Debug)]
pub struct Sources<'a> {
    project: &'a Project,
    tracked: &'a [Tracked],
    /// Of each dataset what it consists of.
    walked: Vec<Arc<Walked>>,
}

/// What a source consists of, and a fingerprint of how all that looked.
#[derive(Debug)]
struct Walked {
    found: Vec<Found>,
    look: Hash,
}

impl Walked {
    fn new(found: Vec<Found>) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(LOOKS.as_bytes());
        for found in &found {
            found.tell(&mut hasher);
        }
        Self { look: hasher.finish(), found }
    }
}

impl<'a> Sources<'a> {
    /// Looks at them.
    pub async fn look(project: &'a Project, tracked: &'a [Tracked]) -> Result<Self, PipelineError> {
        Ok(Self { project, tracked, walked: walk_all(project, tracked).await? })
    }

    /// How all of them looked.
    pub fn looks(&self) -> Looks {
        Looks::new(self.walked.iter().map(|walked| Some(walked.look)).collect())
    }

    /// Brings them into the store; those are read that have changed.
    pub async fn track(
        &self,
        storage: &dyn StorageBackend,
        clock: &dyn Clock,
        cache: &mut StatCache,
    ) -> Result<TrackReport, PipelineError> {
        cache.read();
        let report = self.track_these(storage, clock, cache, 0..self.tracked.len()).await?;
        let files = self.walked.iter().flat_map(|walked| &walked.found).filter_map(Found::file);
        let seen: HashSet<&OsStr> = files.map(|(path, _)| path.as_os_str()).collect();
        let folder = format!("{}/", self.project.folder.display());
        cache.retain(|path| !path.starts_with(&folder) || seen.contains(OsStr::new(path)));
        Ok(report)
    }

    /// The same for the datasets of these numbers. The files of the others hold what they held when they were last tracked.
    pub async fn track_some(
        &self,
        storage: &dyn StorageBackend,
        clock: &dyn Clock,
        cache: &mut StatCache,
        numbers: &[usize],
    ) -> Result<TrackReport, PipelineError> {
        let files = numbers.iter().flat_map(|number| &self.walked[*number].found).filter_map(Found::file);
        // To read little costs less than to ask whether it has to be read.
        if files.map(|(_, look)| look.size).sum::<u64>() > cache.price() {
            cache.read();
        }
        self.track_these(storage, clock, cache, numbers.iter().copied()).await
    }

    async fn track_these(
        &self,
        storage: &dyn StorageBackend,
        clock: &dyn Clock,
        cache: &mut StatCache,
        numbers: impl Iterator<Item = usize> + Clone,
    ) -> Result<TrackReport, PipelineError> {
        let Self { tracked, walked, .. } = self;
        // Many tasks may use one file: it is looked at once. The number says which dataset to blame for it.
        let mut files: Vec<(&Path, Look, usize)> = Vec::new();
        let mut seen: HashSet<&OsStr> = HashSet::new();
        for number in numbers.clone() {
            for (path, look) in walked[number].found.iter().filter_map(Found::file) {
                if seen.insert(path.as_os_str()) {
                    files.push((path, look, number));
                }
            }
        }

        let mut objects: Objects<'_> = HashMap::with_capacity(files.len());
        let known: Vec<_> = files
            .iter()
            .filter_map(|(path, look, _)| Some((*path, cache.find(path, look)?, look.executable)))
            .collect();
        let hashes: Vec<_> = known.iter().map(|(_, object, _)| object.hash).collect();
        let sizes = storage.objects().stat_many(&hashes).await.map_err(|error| of_object(&error))?;
        for ((path, object, executable), size) in known.into_iter().zip(sizes) {
            if size == Some(object.size) {
                objects.insert(path.as_os_str(), FileEntry { object, executable });
            }
        }
        let unread = files.iter().filter(|(path, ..)| !objects.contains_key(path.as_os_str()));
        let mut unread: Vec<_> = unread.map(|&(path, look, number)| Unread { path, look, number }).collect();
        let read = unread.len();
        for _ in 0..PATIENCE {
            unread = read_files(storage, clock, cache, unread, tracked, &mut objects).await?;
        }
        if let Some(Unread { path, number, .. }) = unread.first() {
            let message = format!("`{}` changes while it is read: wait until it is complete", path.display());
            return Err(tracked[*number].error(ErrorClass::Environment, message));
        }

        let mut values = Vec::new();
        let mut dirs: HashMap<ObjectRef, Bytes> = HashMap::new();
        let mut looks: Vec<Option<Hash>> = walked.iter().map(|walked| Some(walked.look)).collect();
        for number in numbers {
            let (tracked, found) = (&tracked[number], &walked[number].found);
            let object = assemble(tracked, found, &objects, &mut dirs)?;
            values.push(Assignment { path: tracked.path.clone(), kind: tracked.kind(), object });
            let mut files = found.iter().filter_map(Found::file);
            if files.any(|(path, look)| cache.find(path, &look).is_none()) {
                looks[number] = None;
            }
        }
        let dirs = dirs.into_values().map(Source::Bytes).collect();
        storage.objects().put_many(dirs).await.map_err(|error| of_object(&error))?;
        Ok(TrackReport { values, files: files.len(), read, looks: Looks::new(looks) })
    }
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
    let tracked = [tracked];
    let sources = Sources::look(&project, &tracked).await?;
    let report = sources.track(storage, clock, &mut StatCache::empty()).await?;
    Ok(report.values[0].object)
}

async fn walk_all(project: &Project, tracked: &[Tracked]) -> Result<Vec<Arc<Walked>>, PipelineError> {
    let (project, tracked) = (project.clone(), tracked.to_vec());
    let walk_each = move || {
        // Many tasks may use the same code: the same source is walked once.
        let mut numbers: HashMap<&TrackedSource, usize> = HashMap::with_capacity(tracked.len());
        let mut unique: Vec<&Tracked> = Vec::new();
        let mut places = Vec::with_capacity(tracked.len());
        for tracked in &tracked {
            places.push(*numbers.entry(&tracked.source).or_insert_with(|| {
                unique.push(tracked);
                unique.len() - 1
            }));
        }
        let groups: Vec<&[&Tracked]> = unique.chunks(AT_ONCE).collect();
        let walked = parallel::for_each(groups, |group| {
            let found = group.iter().map(|tracked| walk(&project.folder, &project.repository, tracked));
            found.map(|found| found.map(|found| Arc::new(Walked::new(found)))).collect::<Result<Vec<_>, _>>()
        })?;
        let walked: Vec<Arc<Walked>> = walked.into_iter().flatten().collect();
        Ok(places.into_iter().map(|place| Arc::clone(&walked[place])).collect())
    };
    tokio::task::spawn_blocking(walk_each).await.map_err(|error| joined(&error))?
}

/// A file that has to be read.
#[derive(Clone, Copy)]
struct Unread<'a> {
    path: &'a Path,
    /// How it looked before.
    look: Look,
    /// The dataset to blame for it.
    number: usize,
}

/// Reads files into the store; returns those that changed meanwhile, with their new looks.
async fn read_files<'a>(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    cache: &mut StatCache,
    files: Vec<Unread<'a>>,
    tracked: &[Tracked],
    objects: &mut Objects<'a>,
) -> Result<Vec<Unread<'a>>, PipelineError> {
    let mut changed = Vec::new();
    for group in files.chunks(READ_AT_ONCE) {
        // The message names the file; the dataset to blame is the one that reads it.
        let blame = |message: String| {
            let is_meant = |file: &&Unread<'_>| message.contains(&format!("`{}`", file.path.display()));
            let number = group.iter().find(is_meant).unwrap_or(&group[0]).number;
            tracked[number].error(ErrorClass::Environment, message)
        };
        let paths: Vec<_> = group.iter().map(|file| file.path.to_path_buf()).collect();
        let started = clock.now();
        let sources = paths.iter().cloned().map(Source::Copy).collect();
        let stored = storage.objects().put_many(sources).await.map_err(|error| match error {
            ObjectError::Unavailable(error) => blame(error.to_string()),
            other => of_object(&other),
        })?;
        let after = looks(paths).await?;
        for ((file, after), object) in group.iter().zip(after).zip(stored) {
            match after {
                Some(after) if after == file.look => {
                    cache.remember(file.path, after, object, started);
                    objects.insert(file.path.as_os_str(), FileEntry { object, executable: after.executable });
                }
                Some(look) => changed.push(Unread { look, ..*file }),
                None => changed.push(*file),
            }
        }
    }
    Ok(changed)
}

async fn looks(paths: Vec<PathBuf>) -> Result<Vec<Option<Look>>, PipelineError> {
    let look = |path: &PathBuf| fs::metadata(path).ok().map(|found| Look::of(&found));
    let look_at_all = move || {
        let groups: Vec<&[PathBuf]> = paths.chunks(AT_ONCE).collect();
        parallel::for_each(groups, |group| Ok(group.iter().map(look).collect::<Vec<_>>()))
    };
    let looks = tokio::task::spawn_blocking(look_at_all).await.map_err(|error| joined(&error))??;
    Ok(looks.into_iter().flatten().collect())
}

/// The object of a dataset; the `dir` objects that it needs go to `dirs`.
fn assemble(
    tracked: &Tracked,
    found: &[Found],
    objects: &Objects<'_>,
    dirs: &mut HashMap<ObjectRef, Bytes>,
) -> Result<ObjectRef, PipelineError> {
    let entry =
        |path: &PathBuf| objects.get(path.as_os_str()).copied().expect("every file that was found was read");
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
