//! `LocalStorage`: the four stores of a repository in a folder.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use e3_core::{
    Clock, LeaseStore, LogStore, ObjectError, ObjectStamp, ObjectStore, RefStore, StorageBackend,
    StorageError, Unavailable,
};
use e3_types::Hash;

use crate::{
    database::{self, Readers},
    leases::LocalLeases,
    logs::LocalLogs,
    objects::{LocalObjects, small::SmallObjects},
    owner::Owners,
    refs::LocalRefs,
    writer::Writer,
};

/// A repository in a folder.
#[derive(Debug)]
pub struct LocalStorage {
    root: PathBuf,
    objects: LocalObjects,
    refs: LocalRefs,
    logs: LocalLogs,
    leases: LocalLeases,
    owners: Arc<Owners>,
}

/// Why a repository cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("there is no e3 repository at `{}`: `e3 init` makes one", .0.display())]
    NotFound(PathBuf),
    /// It was made by a newer e3.
    #[error(
        "the repository `{}` has format {found}, but this e3 knows formats up to {known}: use a newer e3",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that is known here.
        known: i64,
    },
    /// It was made by an e3 from before the first release.
    #[error(
        "the repository `{}` has format {found} of an unreleased e3, this one knows format {known}: move it away, and \
         e3 makes a new one",
        path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format that is known here.
        known: i64,
    },
    /// The database is not one of e3.
    #[error("`{}` is a database, but not one of e3", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// The database cannot be used.
    #[error("opening the database `{}`: {source}{}", path.display(), database::hint(path))]
    Database {
        /// The database.
        path: PathBuf,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// A folder or a thread cannot be made.
    #[error("opening the repository `{}`: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether the database is there, but is none any more.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Database { source, .. } if database::is_corrupt(source))
    }
}

impl LocalStorage {
    /// Opens the repository in the folder `root`, and makes one if there is none.
    pub fn create(root: &Path, clock: &dyn Clock) -> Result<Self, OpenError> {
        fs::create_dir_all(root).map_err(|source| OpenError::Io { path: root.to_owned(), source })?;
        Self::open_with(root, clock, true)
    }

    /// Opens the repository in the folder `root`.
    pub fn open(root: &Path, clock: &dyn Clock) -> Result<Self, OpenError> {
        if root.join(DATABASE).exists() {
            Self::open_with(root, clock, false)
        } else {
            Err(OpenError::NotFound(root.to_owned()))
        }
    }

    fn open_with(root: &Path, clock: &dyn Clock, create: bool) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: root.to_owned(), source };
        // Scratch folders are used by processes with another working folder.
        let root = &fs::canonicalize(root).map_err(failed)?;
        let path = root.join(DATABASE);
        let connection = database::open(&path, create)?;
        let owners = Arc::new(Owners::new(root, clock.new_owner()));
        let connection = Arc::new(Mutex::new(connection));
        let readers = Arc::new(Readers::new(path.clone(), Arc::clone(&connection)));
        let writer = Arc::new(Writer::start(connection, path).map_err(failed)?);
        Ok(Self {
            root: root.clone(),
            objects: LocalObjects::new(
                root.join("objects"),
                root.join("quarantine"),
                Arc::clone(&owners),
                SmallObjects::new(Arc::clone(&readers), Arc::clone(&writer)),
            ),
            refs: LocalRefs { writer, readers },
            logs: LocalLogs { folder: root.join("logs") },
            leases: LocalLeases::new(root.join("leases.lock"), Arc::clone(&owners)),
            owners,
        })
    }

    /// The folder of the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes the scratch folders of processes that have died. `end` is called for each before, and ends the processes that
    /// may still work in it. Returns those that could not be removed: a task may have left something there that only somebody
    /// else may remove.
    pub fn clear_abandoned(
        &self,
        end: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<Vec<(PathBuf, io::Error)>> {
        self.owners.clear_abandoned(end)
    }

    /// Hashes the files of these objects, whatever their seal says, and puts those aside that are something else.
    pub async fn put_aside(&self, objects: &[Hash]) -> Result<(), ObjectError> {
        self.objects.put_aside(objects.to_vec()).await
    }

    /// The files that were objects until somebody wrote to them, by what they were and are.
    pub fn quarantined(&self) -> io::Result<BTreeSet<String>> {
        let entries = match fs::read_dir(self.root.join("quarantine")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// What is wrong with the database, in the words of `SQLite`.
    pub fn check_database(&self) -> Result<Vec<String>, Unavailable> {
        self.refs.check_database()
    }

    /// Hashes the executable copies of objects and drops those that are something else: they are made again when they are
    /// needed. Returns how many.
    pub async fn drop_altered_copies(&self) -> Result<u64, ObjectError> {
        self.objects.drop_altered_copies().await
    }

    /// A folder for tasks of this process to run in, on the file system of the objects. It is removed, with all that
    /// is in it, by a later process if this one does not: see `clear_abandoned`.
    pub fn scratch(&self) -> io::Result<PathBuf> {
        self.owners.scratch()
    }
}

const DATABASE: &str = "db.sqlite";

#[async_trait]
impl StorageBackend for LocalStorage {
    fn objects(&self) -> &dyn ObjectStore {
        &self.objects
    }

    fn refs(&self) -> &dyn RefStore {
        &self.refs
    }

    fn logs(&self) -> &dyn LogStore {
        &self.logs
    }

    fn leases(&self) -> &dyn LeaseStore {
        &self.leases
    }

    async fn object_stamp(&self) -> Result<ObjectStamp, StorageError> {
        self.objects.stamp().await.map_err(StorageError::from)
    }

    async fn sync(&self) -> Result<(), StorageError> {
        let root = self.root.clone();
        let doing = format!("writing `{}` to disk", root.display());
        // What would be done when the repository is closed costs no time while the disk is waited for.
        let checkpoint = self.refs.checkpoint();
        let (done, moved) =
            tokio::join!(tokio::task::spawn_blocking(move || sync_file_system(&root)), checkpoint);
        let failed = |error: io::Error| Unavailable::new(doing.clone(), error);
        done.map_err(|error| Unavailable::new(doing.clone(), error))?.map_err(failed)?;
        if let Err(error) = moved {
            // Nothing depends on it: it is tried again when the repository is closed.
            tracing::warn!(%error, "the database was not checkpointed");
        }
        Ok(())
    }
}

/// One barrier for all files of the repository: cheaper than one for each, as soon as there are a few.
fn sync_file_system(root: &Path) -> io::Result<()> {
    let folder = File::open(root)?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(&folder)?;
    // Elsewhere there is no call for one file system: all of them, which may not wait for the disk's own cache.
    #[cfg(not(target_os = "linux"))]
    {
        folder.sync_all()?;
        rustix::fs::sync();
    }
    Ok(())
}
