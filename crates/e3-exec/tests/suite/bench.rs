//! A workshop for tests: a storage, a runner, and tasks made of shell scripts.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use e3_core::{
    LogStream, MemoryStorage, ObjectStoreExt, StorageBackend, SystemClock, TaskExecuteOptions, TaskResult,
    TaskRunner,
};
use e3_exec::{LocalTaskRunner, Scratches, Workshop};
use e3_store::LocalStorage;
use e3_testkit::holder;
use e3_types::{CommandLine, Hash, Kind, TaskInput, TaskObject};
use tempfile::TempDir;

pub(crate) struct Bench {
    pub(crate) storage: Arc<dyn StorageBackend>,
    pub(crate) scratch: PathBuf,
    pub(crate) runner: Arc<LocalTaskRunner>,
    pub(crate) folder: TempDir,
}

/// On a repository in a folder.
pub(crate) fn local() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::create(&folder.path().join("repository"), &SystemClock).unwrap();
    let scratch = storage.scratch().unwrap();
    bench(Arc::new(storage), scratch, folder)
}

/// On memory.
pub(crate) fn memory() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    bench(Arc::new(MemoryStorage::default()), scratch, folder)
}

fn bench(storage: Arc<dyn StorageBackend>, scratch: PathBuf, folder: TempDir) -> Bench {
    #[expect(clippy::disallowed_methods, reason = "tests are their own composition root")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let workshop = Workshop {
        scratches: Arc::new(Scratches::new(scratch.clone()).with_staged(folder.path().join("staged"))),
        environment: vec![(OsString::from("PATH"), path)],
        grace: Duration::from_secs(30),
        keep_in: None,
        supervisor: Some(Arc::new(e3_process::Supervisor::new(scratch.clone(), None))),
        launcher: None,
        sandbox_readable: Vec::new(),
        log_limit: u64::MAX,
        holder: holder(1),
        runner: "local".to_owned(),
    };
    Bench {
        storage,
        scratch,
        runner: Arc::new(LocalTaskRunner::new(Arc::new(SystemClock), workshop)),
        folder,
    }
}

/// A script with named inputs and an output of some kind.
pub(crate) fn script(script: &str, inputs: &[(&str, Kind)], output: Kind) -> TaskObject {
    let input = |(name, kind): &(&str, Kind)| TaskInput {
        name: Some(name.parse().unwrap()),
        kind: *kind,
        writable: false,
    };
    TaskObject {
        each: None,
        command: CommandLine::Shell(script.to_owned()),
        env: BTreeMap::new(),
        inputs: inputs.iter().map(input).collect(),
        output,
    }
}

impl Bench {
    pub(crate) async fn put(&self, bytes: impl Into<bytes::Bytes> + Send) -> Hash {
        self.storage.objects().put_bytes(bytes).await.unwrap().hash
    }

    pub(crate) async fn run(&self, task: &TaskObject, inputs: &[Hash]) -> TaskResult {
        self.run_with(task, inputs, TaskExecuteOptions::default()).await
    }

    pub(crate) async fn run_with(
        &self,
        task: &TaskObject,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        let hash = self.put(task.encode()).await;
        self.runner.execute(&*self.storage, hash, inputs, options).await
    }

    /// The bytes of a task's output, which must be a success.
    pub(crate) async fn output(&self, task: &TaskObject, inputs: &[Hash]) -> String {
        let result = self.run(task, inputs).await;
        let output = result.outcome.unwrap_or_else(|failure| panic!("{failure}"));
        let bytes = self.storage.objects().get_bytes(&output.hash, 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// The message of a task's failure.
    pub(crate) async fn failure(&self, task: &TaskObject, inputs: &[Hash]) -> String {
        self.run(task, inputs).await.outcome.unwrap_err().to_string()
    }

    pub(crate) async fn log(&self, result: &TaskResult, stream: LogStream) -> String {
        let bytes = self.storage.logs().read(result.execution.unwrap(), stream, 0..u64::MAX).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many files have been left in scratch folders.
    pub(crate) fn scratch_files(&self) -> usize {
        // What is there is empty: a folder is used again.
        let files = |folder: std::fs::DirEntry| {
            walkdir::WalkDir::new(folder.path())
                .into_iter()
                .map(Result::unwrap)
                .filter(|found| !found.file_type().is_dir())
                .count()
        };
        std::fs::read_dir(&self.scratch).unwrap().map(|folder| files(folder.unwrap())).sum()
    }
}
