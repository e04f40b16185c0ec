//! `verify`: whether a repository holds what it says it holds. Every object is hashed again, every record is read, and
//! everything that a workspace or a package refers to is looked for, down to the last file of a folder.

mod sample;

use std::collections::{HashMap, HashSet};

use e3_types::{Hash, Hasher, Kind, ObjectRef, Package};
use futures::TryStreamExt;

pub use self::sample::{Replay, ReplayVerdict, SampleOptions, sample};
use crate::{
    ExecutionKey, ObjectError, ObjectStore, PackageError, RefError, StorageBackend, StorageError,
    WorkspaceError, datasets, executions, packages, runs, tree::tree_objects, workspaces,
};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// How many objects there are.
    pub objects: u64,
    /// How large they are together, in bytes.
    pub bytes: u64,
    /// How many records were read.
    pub records: u64,
    /// The objects that are not what their name says.
    pub corrupt: Vec<Hash>,
    /// What refers to something that is not there, or cannot be read.
    pub problems: Vec<Problem>,
    /// The folders, made by tasks, in which something is missing.
    pub incomplete: Vec<Hash>,
    /// The results that were made of something that is corrupt now, and may have been then.
    pub suspects: Vec<ExecutionKey>,
}

/// A reference to something that is not there, or a record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, in words.
    pub place: String,
    /// What is missing or wrong.
    pub message: String,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty() && self.problems.is_empty()
    }
}

/// How many records are read at once.
const PAGE: usize = 1000;
/// How many objects are read at once.
const AT_ONCE: usize = 4;

/// Looks at everything, and changes nothing.
pub async fn verify(storage: &dyn StorageBackend) -> Result<Verification, StorageError> {
    let mut verifier =
        Verifier { storage, found: Verification::default(), corrupt: HashSet::new(), whole: HashMap::new() };
    verifier.objects().await?;
    verifier.workspaces().await?;
    verifier.packages().await?;
    verifier.executions().await?;
    verifier.found.incomplete.sort_unstable();
    verifier.found.incomplete.dedup();
    Ok(verifier.found)
}

struct Verifier<'a> {
    storage: &'a dyn StorageBackend,
    found: Verification,
    corrupt: HashSet<Hash>,
    /// What is missing of the values that were looked at.
    whole: HashMap<Hash, Option<Hash>>,
}

impl Verifier<'_> {
    async fn objects(&mut self) -> Result<(), StorageError> {
        let objects = self.storage.objects();
        let mut hashed = objects
            .list()
            .await?
            .map_ok(|object| async move { Ok((object, content(objects, &object).await?)) })
            .try_buffer_unordered(AT_ONCE);
        while let Some((object, found)) = hashed.try_next().await? {
            self.found.objects += 1;
            self.found.bytes += object.size;
            if found.is_some_and(|found| found != object) {
                self.corrupt.insert(object.hash);
                self.found.corrupt.push(object.hash);
            }
        }
        self.found.corrupt.sort_unstable();
        Ok(())
    }

    fn problem(&mut self, place: &str, message: impl Into<String>) {
        self.found.problems.push(Problem { place: place.to_owned(), message: message.into() });
    }

    async fn workspaces(&mut self) -> Result<(), StorageError> {
        for workspace in workspaces::list(self.storage).await? {
            let place = format!("workspace `{workspace}`");
            let record = match workspaces::find(self.storage, &workspace).await {
                Ok(record) => record,
                Err(WorkspaceError::Storage(StorageError::Ref(error @ RefError::Corrupt { .. }))) => {
                    self.problem(&place, error.to_string());
                    continue;
                }
                Err(WorkspaceError::Storage(error)) => return Err(error),
                Err(error) => {
                    self.problem(&place, error.to_string());
                    continue;
                }
            };
            self.found.records += 1;
            let Some(package) = self.package(&place, record.package).await? else { continue };
            for (path, value) in datasets::read_all(self.storage.refs(), &workspace).await? {
                self.found.records += 1;
                let Some(slot) = package.datasets.get(&path) else { continue };
                self.value(&format!("`{path}` in {place}"), slot.kind, value.object, value.made.is_some())
                    .await?;
            }
            let mut before = None;
            loop {
                let page = runs::list(self.storage, &workspace, before, PAGE).await;
                let Some(page) = self.read(&format!("the runs of {place}"), page)? else { break };
                let Some(last) = page.last() else { break };
                before = Some(last.run);
                self.found.records += page.len() as u64;
            }
        }
        Ok(())
    }

    async fn packages(&mut self) -> Result<(), StorageError> {
        for (name, version, object) in packages::list(self.storage).await? {
            self.found.records += 1;
            let place = format!("package `{name}` {version}");
            let Some(package) = self.package(&place, object).await? else { continue };
            for (path, slot) in &package.datasets {
                if let Some(object) = slot.default.as_deref() {
                    self.value(&format!("`{path}` in {place}"), slot.kind, *object, false).await?;
                }
            }
        }
        Ok(())
    }

    /// A package with its task objects.
    async fn package(&mut self, place: &str, object: ObjectRef) -> Result<Option<Package>, StorageError> {
        let package = match packages::load(self.storage, object).await {
            Ok(package) => package,
            Err(PackageError::Storage(error)) => {
                return self.missing(place, "its package", error).map(|()| None);
            }
            Err(error) => {
                self.problem(place, error.to_string());
                return Ok(None);
            }
        };
        for (name, task) in &package.tasks {
            match packages::load_task(self.storage, task.task).await {
                Ok(_) if self.corrupt.contains(&task.task) => {
                    self.problem(place, format!("the object of task `{name}` is corrupt"));
                }
                Ok(_) => {}
                Err(PackageError::Storage(error)) => {
                    self.missing(place, &format!("the object of task `{name}`"), error)?;
                }
                Err(error) => self.problem(place, format!("task `{name}`: {error}")),
            }
        }
        Ok(Some(package))
    }

    /// Takes an error of the store as a finding, unless the store cannot answer.
    fn missing(&mut self, place: &str, what: &str, error: StorageError) -> Result<(), StorageError> {
        match error {
            StorageError::Object(error @ (ObjectError::NotFound(_) | ObjectError::Corrupt { .. })) => {
                self.problem(place, format!("{what}: {error}"));
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Takes a record that cannot be read as a finding.
    fn read<T>(&mut self, place: &str, read: Result<T, RefError>) -> Result<Option<T>, StorageError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error @ RefError::Corrupt { .. }) => {
                self.problem(place, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn executions(&mut self) -> Result<(), StorageError> {
        let mut before = None;
        loop {
            let page = executions::list(self.storage, before, PAGE).await;
            let Some(page) = self.read("the executions", page)? else { break };
            let Some(last) = page.last() else { break };
            before = Some(last.execution);
            self.found.records += page.len() as u64;
            let is_corrupt = |hash: &Hash| {
                self.corrupt.contains(hash)
                    || matches!(self.whole.get(hash), Some(Some(missing)) if self.corrupt.contains(missing))
            };
            let suspect = page.iter().filter(|record| record.inputs.iter().any(is_corrupt));
            self.found.suspects.extend(suspect.map(|record| ExecutionKey::new(record.task, &record.inputs)));
        }
        let mut after = None;
        loop {
            let page = executions::all_results(self.storage, after, PAGE).await;
            let Some((page, last)) = self.read("the results", page)? else { break };
            self.found.records += page.len() as u64;
            if last.is_none() {
                break;
            }
            after = last;
        }
        Ok(())
    }

    /// A value: the object, and all that is in it if it is a folder.
    async fn value(
        &mut self,
        place: &str,
        kind: Kind,
        object: ObjectRef,
        made: bool,
    ) -> Result<(), StorageError> {
        let missing = match self.whole.get(&object.hash) {
            Some(known) => *known,
            None => self.first_missing(kind, object).await?,
        };
        self.whole.insert(object.hash, missing);
        if let Some(missing) = missing {
            if kind == Kind::Dir && made {
                self.found.incomplete.push(object.hash);
            }
            let what = if self.corrupt.contains(&missing) { "is corrupt" } else { "is not in the store" };
            self.problem(place, format!("object {missing} {what}"));
        }
        Ok(())
    }

    async fn first_missing(&self, kind: Kind, object: ObjectRef) -> Result<Option<Hash>, StorageError> {
        first_missing(self.storage.objects(), kind, object, &self.corrupt).await
    }
}

/// The first object that is missing of a value, if one is.
pub async fn missing_in(
    storage: &dyn StorageBackend,
    kind: Kind,
    object: ObjectRef,
) -> Result<Option<Hash>, StorageError> {
    first_missing(storage.objects(), kind, object, &HashSet::new()).await
}

async fn first_missing(
    objects: &dyn ObjectStore,
    kind: Kind,
    object: ObjectRef,
    corrupt: &HashSet<Hash>,
) -> Result<Option<Hash>, StorageError> {
    let mut needed = vec![object];
    if kind == Kind::Dir && !corrupt.contains(&object.hash) {
        match tree_objects(objects, &object).await {
            Ok((dirs, files)) => needed.extend(dirs.into_iter().chain(files)),
            Err(ObjectError::NotFound(hash) | ObjectError::Corrupt { hash, .. }) => {
                return Ok(Some(hash));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let hashes: Vec<Hash> = needed.iter().map(|object| object.hash).collect();
    let sizes = objects.stat_many(&hashes).await?;
    Ok(needed
        .into_iter()
        .zip(sizes)
        .find(|(object, size)| *size != Some(object.size) || corrupt.contains(&object.hash))
        .map(|(object, _)| object.hash))
}

/// What the bytes of an object are; none if it has gone meanwhile.
async fn content(objects: &dyn ObjectStore, object: &ObjectRef) -> Result<Option<ObjectRef>, ObjectError> {
    let mut pieces = match objects.get(&object.hash, 0..u64::MAX).await {
        Err(ObjectError::NotFound(_)) => return Ok(None),
        other => other?,
    };
    let (mut hasher, mut size) = (Hasher::new(), 0);
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
        size += piece.len() as u64;
    }
    Ok(Some(ObjectRef { hash: hasher.finish(), size }))
}
