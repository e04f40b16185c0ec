//! Packages: `packages/NAME/VERSION` is the reference of a package object.

use bytes::Bytes;
use e3_types::{
    ErrorClass, Kind, Name, ObjectFormatError, ObjectRef, Package, PackageName, PackageVersion, TaskObject,
};

use super::{decode, encode};
use crate::{
    Graph, GraphError, ObjectError, ObjectStoreExt, Precondition, RefChange, RefError, RefName, Scan,
    StorageBackend, StorageError, tree::tree_objects,
};

/// The largest package object that is read, in bytes.
const LARGEST_PACKAGE: u64 = 1 << 30;
/// The largest task object that is read, in bytes.
const LARGEST_TASK: u64 = 64 << 20;

/// What goes wrong with packages.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// There is no such package.
    #[error(
        "there is no package `{name}` {version} in this repository: `e3 package list` shows what there is"
    )]
    NotFound {
        /// Its name.
        name: PackageName,
        /// Its version.
        version: PackageVersion,
    },
    /// There is another package of that name and version.
    #[error("there is another package `{name}` {version} in this repository: give this one another version")]
    Exists {
        /// Its name.
        name: PackageName,
        /// Its version.
        version: PackageVersion,
    },
    /// The object is not a package, or one of its tasks is not a task.
    #[error("object {}: {source}", object.hash)]
    Format {
        /// The object.
        object: ObjectRef,
        /// What is wrong with it.
        source: ObjectFormatError,
    },
    /// The wiring makes no dataflow.
    #[error("package `{name}`: {source}")]
    Graph {
        /// The package.
        name: PackageName,
        /// What is wrong with it.
        source: GraphError,
    },
    /// A task and the datasets that it is wired to do not fit.
    #[error("package `{package}`, task `{task}`: {message}")]
    Wiring {
        /// The package.
        package: PackageName,
        /// The task.
        task: Name,
        /// What does not fit.
        message: String,
    },
    /// Of the storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl PackageError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::Format { .. }
            | Self::Graph { .. }
            | Self::Wiring { .. } => ErrorClass::User,
            Self::Storage(error) => error.class(),
        }
    }
}

/// Reads a package object.
pub async fn load(storage: &dyn StorageBackend, object: ObjectRef) -> Result<Package, PackageError> {
    let bytes =
        storage.objects().get_bytes(&object.hash, LARGEST_PACKAGE).await.map_err(StorageError::from)?;
    Package::decode_known(&bytes).map_err(|source| PackageError::Format { object, source })
}

/// Reads a task object.
pub async fn load_task(
    storage: &dyn StorageBackend,
    task: e3_types::Hash,
) -> Result<TaskObject, PackageError> {
    let (bytes, object) = task_bytes(storage, task).await?;
    TaskObject::decode_known(&bytes).map_err(|source| PackageError::Format { object, source })
}

/// The bytes of a task object, which are what its name says.
async fn task_bytes(
    storage: &dyn StorageBackend,
    task: e3_types::Hash,
) -> Result<(Bytes, ObjectRef), PackageError> {
    let bytes = storage.objects().get_bytes(&task, LARGEST_TASK).await.map_err(StorageError::from)?;
    let object = ObjectRef::of(&bytes);
    if object.hash == task {
        return Ok((bytes, object));
    }
    let message = format!("its bytes are those of {}", object.hash);
    Err(StorageError::from(ObjectError::Corrupt { hash: task, message }).into())
}

/// Checks a package that came from outside: its graph, and that every task fits its datasets.
pub async fn check(storage: &dyn StorageBackend, package: &Package) -> Result<(), PackageError> {
    Graph::new(package).map_err(|source| PackageError::Graph { name: package.name.clone(), source })?;
    for (name, wired) in &package.tasks {
        let (bytes, object) = task_bytes(storage, wired.task).await?;
        let task = TaskObject::decode(&bytes).map_err(|source| PackageError::Format { object, source })?;
        let refuse =
            |message| PackageError::Wiring { package: package.name.clone(), task: name.clone(), message };
        if task.inputs.len() != wired.inputs.len() {
            let (wanted, given) = (task.inputs.len(), wired.inputs.len());
            return Err(refuse(format!("it has {wanted} inputs, but {given} datasets are wired to it")));
        }
        let each = task.each.as_ref().map(|each| {
            task.inputs.iter().position(|input| input.name.as_ref() == Some(each) && input.kind == Kind::Dir)
        });
        if each.is_some_and(|each| each.is_none())
            || each.flatten() != wired.each.and_then(|each| usize::try_from(each).ok())
        {
            return Err(refuse("it is not wired to the folder whose entries it runs for".to_owned()));
        }
        let output = if each.is_some() { Kind::Dir } else { task.output };
        let inputs = task.inputs.iter().map(|input| input.kind).zip(&wired.inputs);
        for (kind, path) in inputs.chain([(output, &wired.output)]) {
            let found = package.datasets[path].kind;
            if found != kind {
                return Err(refuse(format!(
                    "it expects `{path}` to be of kind {kind}, but it is of kind {found}"
                )));
            }
        }
    }
    Ok(())
}

/// Whether all that a package refers to is in the store: its tasks, and the defaults of its datasets.
pub async fn is_complete(storage: &dyn StorageBackend, package: &Package) -> Result<bool, StorageError> {
    let tasks = package.tasks.values().map(|task| task.task);
    let defaults = package.datasets.values().filter_map(|slot| Some(slot.default.as_ref()?.hash));
    let objects: Vec<_> = tasks.chain(defaults).collect();
    Ok(storage.objects().stat_many(&objects).await?.iter().all(Option::is_some))
}

/// Puts a package object into the store, without giving it a name there.
pub async fn store(storage: &dyn StorageBackend, package: &Package) -> Result<ObjectRef, StorageError> {
    Ok(storage.objects().put_bytes(package.encode()).await?)
}

/// Makes a stored package known by its name and version. Another one of that name and version is in the way, unless it
/// may be replaced.
pub async fn publish(
    storage: &dyn StorageBackend,
    package: &Package,
    object: ObjectRef,
    replace: bool,
) -> Result<(), PackageError> {
    let name = RefName::new(&[&"packages", &package.name, &package.version]);
    let precondition = if replace { Precondition::None } else { Precondition::Absent };
    let change = RefChange::set(name.clone(), encode(&object)).when(precondition);
    match storage.refs().write(vec![change]).await {
        Err(RefError::Conflict(_)) => {
            let there: Option<ObjectRef> =
                super::read(storage.refs(), &name).await.map_err(StorageError::from)?;
            if there == Some(object) {
                return Ok(());
            }
            Err(PackageError::Exists { name: package.name.clone(), version: package.version.clone() })
        }
        other => Ok(other.map_err(StorageError::from)?),
    }
}

/// The package of that name and version.
pub async fn find(
    storage: &dyn StorageBackend,
    name: &PackageName,
    version: &PackageVersion,
) -> Result<ObjectRef, PackageError> {
    super::read(storage.refs(), &RefName::new(&[&"packages", name, version]))
        .await
        .map_err(StorageError::from)?
        .ok_or_else(|| PackageError::NotFound { name: name.clone(), version: version.clone() })
}

/// All packages by name and version.
pub async fn list(
    storage: &dyn StorageBackend,
) -> Result<Vec<(PackageName, PackageVersion, ObjectRef)>, StorageError> {
    let found = storage.refs().scan(Scan::under(&[&"packages"])).await?;
    let mut packages = Vec::with_capacity(found.len());
    for (ref_name, value) in found {
        let mut segments = ref_name.as_str().split('/').skip(1);
        let parsed = segments
            .next()
            .and_then(|name| name.parse().ok())
            .zip(segments.next().and_then(|v| v.parse().ok()));
        let (name, version) = parsed.ok_or_else(|| RefError::Corrupt {
            name: ref_name.clone(),
            message: "expected packages/NAME/VERSION".to_owned(),
        })?;
        packages.push((name, version, decode(&ref_name, &value)?));
    }
    Ok(packages)
}

/// Every object that a package needs, each once, by what it is needed for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// The task objects.
    pub tasks: Vec<ObjectRef>,
    /// The `dir` objects of default values.
    pub dirs: Vec<ObjectRef>,
    /// The other objects of default values, and the files in the folders.
    pub files: Vec<ObjectRef>,
}

/// Finds every object that a package needs, without itself. Only task and `dir` objects are read.
pub async fn contents(storage: &dyn StorageBackend, package: &Package) -> Result<Contents, PackageError> {
    let tasks: Vec<_> = package.tasks.values().map(|task| task.task).collect();
    let sizes = storage.objects().stat_many(&tasks).await.map_err(StorageError::from)?;
    let mut contents = Contents::default();
    for (hash, size) in tasks.into_iter().zip(sizes) {
        let missing = || StorageError::from(crate::ObjectError::NotFound(hash));
        contents.tasks.push(ObjectRef { hash, size: size.ok_or_else(missing)? });
    }
    for slot in package.datasets.values() {
        match (slot.default.as_deref().copied(), slot.kind) {
            (None, _) => {}
            (Some(root), Kind::Dir) => {
                let (dirs, files) =
                    tree_objects(storage.objects(), &root).await.map_err(StorageError::from)?;
                contents.dirs.push(root);
                contents.dirs.extend(dirs);
                contents.files.extend(files);
            }
            (Some(object), Kind::File | Kind::Json) => contents.files.push(object),
        }
    }
    // An empty folder and an empty file are one object: it is listed where it comes first.
    let mut seen = std::collections::HashSet::new();
    for list in [&mut contents.tasks, &mut contents.dirs, &mut contents.files] {
        list.sort_by_key(|object| object.hash);
        list.retain(|object| seen.insert(object.hash));
    }
    Ok(contents)
}
