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
    look::{Look, Looker},
    stat_cache::StatCache,
    walk::{Found, What, walk},
};

/// How often a file that changes while it is read is read again.
const PATIENCE: usize = 5;
/// How many sources are looked at in one go.
const AT_ONCE: usize = 256;
/// How many files are read in one request to the store: in several transactions, the same pages of the database would be written
/// several times.
const READ_AT_ONCE: usize = 256 << 10;
/// How many of them are looked at again in one go.
const LOOK_AT_ONCE: usize = 16 << 10;

/// How a fingerprint begins. It is another one when datasets are made of files in another way.
const LOOKS: &str = "e3 sources 2";

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

    /// Brings them into the store; those are read that have changed. What is learnt is written to the cache.
    pub async fn track(
        &self,
        storage: &dyn StorageBackend,
        clock: &dyn Clock,
        mut cache: StatCache,
    ) -> Result<TrackReport, PipelineError> {
        cache.read();
        let files = self.walked.iter().flat_map(|walked| &walked.found).filter_map(Found::file);
        if cache.known() > files.clone().count() {
            let tracked: HashSet<&OsStr> = files.map(|(path, _)| path.as_os_str()).collect();
            let folder = format!("{}/", self.project.folder.display());
            cache.retain(|path| !path.starts_with(&folder) || tracked.contains(OsStr::new(path)));
        }
        self.track_these(storage, clock, cache, 0..self.tracked.len()).await
    }

    /// The same for the datasets of these numbers. The files of the others hold what they held when they were last tracked.
    pub async fn track_some(
        &self,
        storage: &dyn StorageBackend,
        clock: &dyn Clock,
        mut cache: StatCache,
        numbers: &[usize],
    ) -> Result<TrackReport, PipelineError> {
        let files = numbers.iter().flat_map(|number| &self.walked[*number].found).filter_map(Found::file);
        // To read little costs less than to ask whether it has to be read.
        if files.map(|(_, look)| StatCache::price_to_learn(look.size)).sum::<u64>() > cache.price() {
            cache.read();
        }
        self.track_these(storage, clock, cache, numbers.iter().copied()).await
    }

    async fn track_these(
        &self,
        storage: &dyn StorageBackend,
        clock: &dyn Clock,
        mut cache: StatCache,
        numbers: impl Iterator<Item = usize> + Clone,
    ) -> Result<TrackReport, PipelineError> {
        let Self { tracked, walked, .. } = self;
        let mut files = Files::of(walked, numbers.clone());
        files.ask(storage, &cache).await?;
        let mut unread: Vec<usize> =
            (0..files.all.len()).filter(|file| files.all[*file].known.is_none()).collect();
        let read = unread.len();
        for _ in 0..PATIENCE {
            unread = files.read(storage, clock, &mut cache, unread, tracked).await?;
        }
        if let Some(file) = unread.first().map(|file| &files.all[*file]) {
            let message =
                format!("`{}` changes while it is read: wait until it is complete", file.path.display());
            return Err(tracked[file.blamed()].error(ErrorClass::Environment, message));
        }

        // While that is written, the folders are made of what is known now.
        let saved = tokio::task::spawn_blocking(move || cache.save());
        let mut values = Vec::with_capacity(numbers.clone().count());
        let mut dirs: HashMap<ObjectRef, Bytes> = HashMap::new();
        let mut looks: Vec<Option<Hash>> = walked.iter().map(|walked| Some(walked.look)).collect();
        let mut places = files.places.iter();
        for number in numbers {
            let mut is_sure = true;
            let entries = places.by_ref().map(|place| {
                let file = &files.all[*place as usize];
                let known = file.known.as_ref().expect("every file that was found was read");
                is_sure &= known.is_sure;
                FileEntry { object: known.object, executable: file.look().executable }
            });
            let object = assemble(&tracked[number], &walked[number].found, entries, &mut dirs)?;
            values.push(Assignment {
                path: tracked[number].path.clone(),
                kind: tracked[number].kind(),
                object,
            });
            if !is_sure {
                looks[number] = None;
            }
        }
        let dirs = dirs.into_values().map(Source::Bytes).collect();
        storage.objects().put_many(dirs).await.map_err(|error| of_object(&error))?;
        saved.await.map_err(|error| joined(&error))?.map_err(|error| {
            let message =
                format!("writing `cache/stat` of the repository: {error}; all in that folder may be removed");
            PipelineError::general(ErrorClass::Environment, message)
        })?;
        Ok(TrackReport { values, files: files.all.len(), read, looks: Looks::new(looks) })
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
    let report = sources.track(storage, clock, StatCache::none()).await?;
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
            let mut looker = Looker::default();
            let found =
                group.iter().map(|tracked| walk(&project.folder, &project.repository, tracked, &mut looker));
            found.map(|found| found.map(|found| Arc::new(Walked::new(found)))).collect::<Result<Vec<_>, _>>()
        })?;
        let walked: Vec<Arc<Walked>> = walked.into_iter().flatten().collect();
        Ok(places.into_iter().map(|place| Arc::clone(&walked[place])).collect())
    };
    tokio::task::spawn_blocking(walk_each).await.map_err(|error| joined(&error))?
}

/// The files of some datasets.
struct Files<'a> {
    /// Each once, as far as they come from several sources: many tasks may use one file.
    all: Vec<File<'a>>,
    /// The files of the datasets, one dataset after the other, by their numbers.
    places: Vec<u32>,
}

/// There may be very many.
struct File<'a> {
    path: &'a Path,
    look: &'a Look,
    /// How it looks, if it has changed since.
    changed: Option<Box<Look>>,
    /// The dataset to blame for it.
    number: u32,
    known: Option<Known>,
}

impl File<'_> {
    fn look(&self) -> &Look {
        self.changed.as_deref().unwrap_or(self.look)
    }

    fn blamed(&self) -> usize {
        self.number as usize
    }
}

/// What a file holds.
struct Known {
    object: ObjectRef,
    /// Whether it would look otherwise if it held anything else.
    is_sure: bool,
}

impl<'a> Files<'a> {
    fn of(walked: &'a [Arc<Walked>], numbers: impl Iterator<Item = usize> + Clone) -> Self {
        let is_one = numbers.clone().nth(1).is_none();
        let count = numbers.clone().map(|number| walked[number].found.len()).sum();
        let (mut all, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut seen: HashMap<&OsStr, u32> = HashMap::new();
        let small = |number: usize| u32::try_from(number).expect("files and datasets are counted in 32 bits");
        for number in numbers {
            for (path, look) in walked[number].found.iter().filter_map(Found::file) {
                let next = small(all.len());
                let place = if is_one { next } else { *seen.entry(path.as_os_str()).or_insert(next) };
                if place == next {
                    all.push(File { path, look, changed: None, number: small(number), known: None });
                }
                places.push(place);
            }
        }
        Self { all, places }
    }

    /// Asks the cache what they hold, and the store whether that is there.
    async fn ask(&mut self, storage: &dyn StorageBackend, cache: &StatCache) -> Result<(), PipelineError> {
        let found = self.all.iter().enumerate();
        let found: Vec<(usize, ObjectRef)> =
            found.filter_map(|(place, file)| Some((place, cache.find(file.path, file.look())?))).collect();
        let hashes: Vec<_> = found.iter().map(|(_, object)| object.hash).collect();
        let sizes = storage.objects().stat_many(&hashes).await.map_err(|error| of_object(&error))?;
        for ((place, object), size) in found.into_iter().zip(sizes) {
            if size == Some(object.size) {
                self.all[place].known = Some(Known { object, is_sure: true });
            }
        }
        Ok(())
    }

    /// Reads some into the store; returns those that changed meanwhile, with their new looks.
    async fn read(
        &mut self,
        storage: &dyn StorageBackend,
        clock: &dyn Clock,
        cache: &mut StatCache,
        numbers: Vec<usize>,
        tracked: &[Tracked],
    ) -> Result<Vec<usize>, PipelineError> {
        let mut changed = Vec::new();
        for group in numbers.chunks(READ_AT_ONCE) {
            // The message names the file; the dataset to blame is the one that reads it.
            let blame = |message: String| {
                let mut files = group.iter().map(|number| &self.all[*number]);
                let first = self.all[group[0]].blamed();
                let is_meant = |file: &&File<'_>| message.contains(&format!("`{}`", file.path.display()));
                let number = files.find(is_meant).map_or(first, File::blamed);
                tracked[number].error(ErrorClass::Environment, message)
            };
            let paths = group.iter().map(|number| self.all[*number].path.to_path_buf());
            let started = clock.now();
            let sources = paths.map(Source::Copy).collect();
            let stored = storage.objects().put_many(sources).await.map_err(|error| match error {
                ObjectError::Unavailable(error) => blame(error.to_string()),
                other => of_object(&other),
            })?;
            cache.expect(group.len());
            for (group, stored) in group.chunks(LOOK_AT_ONCE).zip(stored.chunks(LOOK_AT_ONCE)) {
                let paths = group.iter().map(|number| self.all[*number].path.to_path_buf()).collect();
                for ((&number, after), &object) in group.iter().zip(looks(paths).await?).zip(stored) {
                    let file = &mut self.all[number];
                    if after.as_ref() == Some(file.look()) {
                        let is_sure = cache.remember(file.path, *file.look(), object, started);
                        file.known = Some(Known { object, is_sure });
                    } else {
                        file.changed = after.map(Box::new).or(file.changed.take());
                        changed.push(number);
                    }
                }
            }
        }
        Ok(changed)
    }
}

async fn looks(paths: Vec<PathBuf>) -> Result<Vec<Option<Look>>, PipelineError> {
    let look_at_all = move || {
        let groups: Vec<&[PathBuf]> = paths.chunks(AT_ONCE).collect();
        parallel::for_each(groups, |group| {
            let mut looker = Looker::default();
            Ok(group.iter().map(|path| looker.look(path).ok().flatten()).collect::<Vec<_>>())
        })
    };
    let looks = tokio::task::spawn_blocking(look_at_all).await.map_err(|error| joined(&error))??;
    Ok(looks.into_iter().flatten().collect())
}

/// The object of a dataset, whose files are these `entries`; the `dir` objects that it needs go to `dirs`.
fn assemble(
    tracked: &Tracked,
    found: &[Found],
    mut entries: impl Iterator<Item = FileEntry>,
    dirs: &mut HashMap<ObjectRef, Bytes>,
) -> Result<ObjectRef, PipelineError> {
    let mut entry = || entries.next().expect("there is an entry for each file that was found");
    if tracked.kind() != Kind::Dir
        && let [Found { what: What::File { .. }, .. }] = found
    {
        return Ok(entry().object);
    }
    let mut tree = TreeBuilder::new();
    for Found { relative, what } in found {
        let added = match what {
            What::File { .. } => tree.add_file(relative, entry()),
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
