//! What a command works with: the project, the repository, the time, and who we are.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use e3_core::{Clock, DatasetRef, Holder, StorageBackend, SystemClock, datasets, packages, workspaces};
use e3_exec::{LocalTaskRunner, Scratches, Workshop};
use e3_pipeline::{Compiler, Pipeline, RunSettings};
use e3_process::Supervisor;
use e3_store::LocalStorage;
use e3_types::{DatasetPath, Hash, Package, Timestamp, WorkspaceName};

use crate::{
    args::{Common, Progress},
    console::Console,
    error::{CliError, Exit, Result},
    identity,
};

/// The pipeline file.
pub(crate) const PIPELINE: &str = "e3.toml";
/// The repository beside it.
pub(crate) const REPOSITORY: &str = ".e3";
/// How long a task may take to end after SIGTERM, unless `[run]` says otherwise.
const GRACE: Duration = Duration::from_secs(10);
/// How much is kept of each stream that a task prints, in bytes, unless `[run]` says otherwise.
const LOG_LIMIT: u64 = 1 << 30;

/// What every command gets.
pub(crate) struct Context {
    pub(crate) console: Console,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) holder: Holder,
    pub(crate) workspace: WorkspaceName,
    pub(crate) progress: Progress,
    /// The options that say where, as they were given: for commands that are suggested.
    place: String,
    /// The folder in which this process was started, before `-C`.
    pub(crate) started_in: PathBuf,
    /// The arguments of this process.
    pub(crate) arguments: Vec<OsString>,
    /// The environment of this process: nothing else reads it.
    pub(crate) environment: Vec<(OsString, OsString)>,
    repository: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(common: &Common) -> Result<Self> {
        let started_in = here()?;
        for folder in &common.folder {
            std::env::set_current_dir(folder)
                .map_err(|error| CliError::usage(format!("-C {}: {error}", folder.display())))?;
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Ok(Self {
            console: Console::new(common),
            holder: identity::holder(&*clock),
            clock,
            workspace: common.workspace.clone(),
            progress: common.progress,
            place: place(common),
            started_in,
            arguments: std::env::args_os().skip(1).collect(),
            environment: std::env::vars_os().collect(),
            repository: common.repo.clone(),
        })
    }

    /// The folder of the nearest `e3.toml`, from here upwards.
    pub(crate) fn project(&self) -> Result<PathBuf> {
        let here = here()?;
        let found = here.ancestors().find(|folder| folder.join(PIPELINE).is_file());
        found.map(Path::to_owned).ok_or_else(|| {
            CliError::not_found(format!(
                "there is no {PIPELINE} in `{}` or above it: `e3 init` makes one",
                here.display()
            ))
        })
    }

    /// What compiles the pipeline file of a project, as it is now.
    pub(crate) fn compiler(&self, storage: &LocalStorage, project: &Path) -> Result<Compiler> {
        // Several projects may share a repository.
        let name = format!("pipeline-{}.json", Hash::of(project.as_os_str().as_encoded_bytes()));
        Ok(Compiler {
            file: PIPELINE.into(),
            text: read_pipeline(project)?.into(),
            cache: storage.root().join("cache").join(name),
            program: identity::program().unwrap_or_else(|| self.holder.owner.to_string()),
        })
    }

    /// The pipeline of a project.
    pub(crate) fn pipeline(&self, project: &Path) -> Result<Pipeline> {
        Ok(e3_pipeline::parse(Path::new(PIPELINE), read_pipeline(project)?)?)
    }

    /// What the pipeline file of the project says about runs, if there is a project.
    pub(crate) fn run_settings(&self) -> Result<RunSettings> {
        let folder = match self.project() {
            Ok(folder) => folder,
            Err(error) if error.exit == Exit::NotFound => return Ok(RunSettings::default()),
            Err(error) => return Err(error),
        };
        let path = folder.join(PIPELINE);
        let may_have = fs::File::open(&path).and_then(e3_pipeline::may_have_run_settings);
        if may_have.map_err(|error| CliError::environment(format!("reading `{}`", path.display()), error))? {
            Ok(e3_pipeline::run_settings(Path::new(PIPELINE), &read_pipeline(&folder)?)?)
        } else {
            Ok(RunSettings::default())
        }
    }

    /// The repository of a project; made if there is none.
    pub(crate) fn create_repository(&self, project: &Path) -> Result<Arc<LocalStorage>> {
        let root = self.repository.clone().unwrap_or_else(|| project.join(REPOSITORY));
        let is_new = !root.exists();
        let storage = LocalStorage::create(&root, &*self.clock)?;
        let ignore = root.join(".gitignore");
        if is_new && !ignore.exists() {
            fs::write(&ignore, "# made by e3: the repository is not part of the project's history\n*\n")
                .map_err(|error| CliError::environment(format!("writing `{}`", ignore.display()), error))?;
        }
        Ok(Arc::new(storage))
    }

    /// The repository that is meant: the one that was named, or the nearest one upwards.
    pub(crate) fn open_repository(&self) -> Result<Arc<LocalStorage>> {
        if let Some(root) = &self.repository {
            return Ok(Arc::new(LocalStorage::open(root, &*self.clock)?));
        }
        let here = here()?;
        let found = here
            .ancestors()
            .find(|folder| folder.join(REPOSITORY).is_dir() || folder.join(PIPELINE).is_file());
        let Some(folder) = found else {
            return Err(CliError::not_found(format!(
                "there is no repository (`{REPOSITORY}`) and no {PIPELINE} in `{}` or above it: `e3 init` makes them",
                here.display()
            )));
        };
        let root = folder.join(REPOSITORY);
        if !root.is_dir() {
            return Err(CliError::not_found(format!(
                "nothing has run in `{}` yet: `e3 run` makes its repository",
                folder.display()
            )));
        }
        Ok(Arc::new(LocalStorage::open(&root, &*self.clock)?))
    }

    /// What is deployed in the workspace that is meant, with what its datasets hold.
    pub(crate) async fn deployed(&self) -> Result<Deployed> {
        let storage = self.open_repository()?;
        let record = workspaces::find(&*storage, &self.workspace).await?;
        let package = packages::load(&*storage, record.package).await?;
        let values = datasets::read_all(storage.refs(), &self.workspace).await?;
        Ok(Deployed { storage, since: record.deployed, package, values })
    }

    /// A command to type next, for the same project, repository and workspace.
    pub(crate) fn command(&self, rest: &str) -> String {
        format!("e3 {}{rest}", self.place)
    }

    /// The value of an environment variable.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        self.environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    }

    /// The runner of this machine.
    pub(crate) fn local_runner(
        &self,
        storage: &LocalStorage,
        settings: &RunSettings,
        keep_scratch: bool,
    ) -> Result<LocalTaskRunner> {
        // What a process left that was killed together with its watchdog.
        let left = storage
            .clear_abandoned(|folder| e3_process::end_processes_in(folder).map(drop))
            .map_err(|error| CliError::environment("removing what a dead process has left", error))?;
        for (path, error) in left {
            self.console.warn(&format!("`{}` is left over and cannot be removed: {error}", path.display()));
        }
        let scratch = storage
            .scratch()
            .map_err(|error| CliError::environment("making a folder for tasks to run in", error))?;
        let program = std::env::current_exe()
            .map_err(|error| CliError::environment("finding the program of this process", error))?;
        let workshop = Workshop {
            supervisor: Some(Arc::new(Supervisor::new(scratch.clone(), Some(program.clone())))),
            launcher: Some(program),
            sandbox_readable: settings.sandbox_readable.clone(),
            log_limit: settings.log_limit.unwrap_or(LOG_LIMIT),
            scratches: Arc::new(Scratches::new(scratch).with_staged(storage.root().join("staged"))),
            environment: e3_exec::inherited(self.environment.iter().cloned()),
            grace: settings.grace.unwrap_or(GRACE),
            keep_in: keep_scratch.then(|| kept_scratch(storage)),
            holder: self.holder.clone(),
            runner: "local".to_owned(),
        };
        Ok(LocalTaskRunner::new(Arc::clone(&self.clock), workshop))
    }
}

fn place(common: &Common) -> String {
    let mut options = String::new();
    for folder in &common.folder {
        options += &format!("-C {} ", folder.display());
    }
    if let Some(repository) = &common.repo {
        options += &format!("-R {} ", repository.display());
    }
    if common.workspace.as_str() != "main" {
        options += &format!("-w {} ", common.workspace);
    }
    options
}

/// A workspace as it is now.
pub(crate) struct Deployed {
    pub(crate) storage: Arc<LocalStorage>,
    pub(crate) since: Timestamp,
    pub(crate) package: Package,
    pub(crate) values: BTreeMap<DatasetPath, DatasetRef>,
}

/// Where scratch folders are kept on request.
pub(crate) fn kept_scratch(storage: &LocalStorage) -> PathBuf {
    storage.root().join("kept")
}

fn here() -> Result<PathBuf> {
    std::env::current_dir().map_err(|error| CliError::environment("finding the working folder", error))
}

fn read_pipeline(project: &Path) -> Result<String> {
    let path = project.join(PIPELINE);
    fs::read_to_string(&path)
        .map_err(|error| CliError::environment(format!("reading `{}`", path.display()), error))
}
