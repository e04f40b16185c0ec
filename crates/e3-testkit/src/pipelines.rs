//! Small pipelines for tests of the orchestration: tasks by name, no file, no process.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use e3_core::{
    Cancellation, Clock, DataflowOptions, DatasetRef, EventSink, Force, Holder, MemoryStorage,
    MockTaskRunner, ObjectStoreExt, OnFailure, Origin, RunReport, StorageBackend, TestClock, WorkspaceLease,
    dataflow_execute,
    datasets::{self, Assignment},
    packages, workspaces,
};
use e3_types::{
    CommandLine, DatasetPath, Event, EventKind, Hash, Kind, Name, ObjectRef, OwnerId, Package, PackageTask,
    Slot, TaskInput, TaskObject, TaskPolicy, Timestamp, WorkspaceName,
};

/// A holder that differs from those of other numbers.
pub fn holder(number: u8) -> Holder {
    let owner = OwnerId::from_parts(1_700_000_000_000, [number; 10]);
    Holder { owner, process: None, since: Timestamp::from_unix_ms(1_700_000_000_000) }
}

/// A task of a test.
#[derive(Debug, Clone)]
pub struct TaskSketch {
    /// Its name, and that of its output.
    pub name: &'static str,
    /// The inputs and tasks that it reads.
    pub inputs: &'static [&'static str],
    /// How it is to be executed.
    pub policy: TaskPolicy,
}

impl TaskSketch {
    /// A task with the default policy.
    pub fn new(name: &'static str, inputs: &'static [&'static str]) -> Self {
        Self { name, inputs, policy: TaskPolicy::default() }
    }
}

/// A storage in memory, a mock runner, a clock, and what a run has shown.
pub struct Scenario {
    /// The storage.
    pub storage: Arc<MemoryStorage>,
    /// The runner.
    pub runner: Arc<MockTaskRunner>,
    /// The clock.
    pub clock: Arc<TestClock>,
    /// How the next run is to be executed.
    pub options: DataflowOptions,
    events: Arc<Recorder>,
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl EventSink for Recorder {
    fn emit(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

impl Default for Scenario {
    fn default() -> Self {
        let clock = Arc::new(TestClock::default());
        let runner = Arc::new(MockTaskRunner::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let events = Arc::new(Recorder::default());
        let options = DataflowOptions {
            runner: Arc::clone(&runner) as _,
            clock: Arc::clone(&clock) as _,
            holder: holder(1),
            events: Arc::clone(&events) as _,
            slots: NonZeroUsize::new(2).expect("two"),
            on_failure: OnFailure::default(),
            force: Force::default(),
            targets: Vec::new(),
            cancellation: Cancellation::default(),
        };
        Self { storage: Arc::default(), runner, clock, options, events }
    }
}

impl Scenario {
    /// A scenario with these tasks deployed in the workspace `main`. Inputs that no task makes hold their own name.
    pub async fn new(tasks: &[TaskSketch]) -> Self {
        let scenario = Self::default();
        scenario.deploy("main", tasks).await;
        scenario
    }

    /// Deploys tasks in a workspace.
    pub async fn deploy(&self, workspace: &str, tasks: &[TaskSketch]) {
        let slot = || Slot { kind: Kind::File, default: None };
        let mut package = Package {
            name: "test".parse().unwrap(),
            version: "1".parse().unwrap(),
            datasets: BTreeMap::new(),
            tasks: BTreeMap::new(),
        };
        for TaskSketch { name, inputs, policy } in tasks {
            let bytes = object(name, inputs).encode();
            let task = self.storage.objects().put_bytes(bytes).await.unwrap().hash;
            for input in *inputs {
                package.datasets.entry(path(input)).or_insert_with(slot);
            }
            package.datasets.insert(path(name), slot());
            let inputs = inputs.iter().map(|input| path(input)).collect();
            let wired = PackageTask { task, inputs, output: path(name), policy: policy.clone() };
            package.tasks.insert(name.parse().unwrap(), wired);
        }
        let roots: Vec<_> = package
            .datasets
            .keys()
            .filter(|path| !package.tasks.values().any(|task| task.output == **path))
            .cloned()
            .collect();
        for root in roots.iter().filter(|root| !root.as_str().starts_with("unassigned")) {
            let value = self.storage.objects().put_bytes(root.as_str().to_owned()).await.unwrap();
            package.datasets.get_mut(root).unwrap().default = Some(value);
        }
        let object = packages::store(&*self.storage, &package).await.unwrap();
        let lease =
            WorkspaceLease::acquire(&*self.storage, &workspace.parse().unwrap(), &holder(9)).await.unwrap();
        workspaces::deploy(&*self.storage, &*self.clock, &lease, object, &package, false).await.unwrap();
    }

    /// Gives an input of the workspace `main` the bytes of a text.
    pub async fn set(&self, input: &str, text: &str) {
        let object = self.storage.objects().put_bytes(text.to_owned()).await.unwrap();
        let value = Assignment { path: path(input), kind: Kind::File, object };
        let workspace = "main".parse().unwrap();
        datasets::set(&*self.storage, &*self.clock, &workspace, &[value], Origin::User).await.unwrap();
    }

    /// Runs the workspace `main`.
    pub async fn run(&self) -> RunReport {
        self.run_in("main").await
    }

    /// Runs a workspace.
    pub async fn run_in(&self, workspace: &str) -> RunReport {
        let storage = Arc::clone(&self.storage) as Arc<dyn StorageBackend>;
        dataflow_execute(storage, &workspace.parse().unwrap(), self.options.clone()).await.unwrap()
    }

    /// What a dataset of a workspace holds.
    pub async fn value(&self, workspace: &str, dataset: &str) -> Option<DatasetRef> {
        let workspace: WorkspaceName = workspace.parse().unwrap();
        datasets::read_all(self.storage.refs(), &workspace).await.unwrap().remove(&path(dataset))
    }

    /// The names of the tasks that the runner was asked for, in order, if they are among `tasks`.
    pub fn called(&self, tasks: &[TaskSketch]) -> Vec<&'static str> {
        let names: BTreeMap<Hash, &str> = tasks.iter().map(|task| (task_hash(task), task.name)).collect();
        self.runner.calls().iter().filter_map(|call| names.get(&call.task).copied()).collect()
    }

    /// Takes the events that were shown since the last time.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same as short words: `start a`, `done a`, `hit a`, `fail a`, `skip b<a`, `end completed`.
    pub fn take_story(&self) -> Vec<String> {
        self.take_events().iter().map(|event| word(&event.kind)).collect()
    }
}

fn word(kind: &EventKind) -> String {
    use e3_types::SkipReason::{Failed, Unassigned};
    match kind {
        EventKind::RunStarted { total, .. } => format!("begin {total}"),
        EventKind::TaskStarted { task, attempt: 1, .. } => format!("start {task}"),
        EventKind::TaskStarted { task, attempt, .. } => format!("start {task} #{attempt}"),
        EventKind::AttemptFailed { task, retry_in_ms, .. } => format!("retry {task} in {retry_in_ms}"),
        EventKind::TaskCompleted { task, cached: true, .. } => format!("hit {task}"),
        EventKind::TaskCompleted { task, .. } => format!("done {task}"),
        EventKind::TaskFailed { task, failure: e3_types::Failure::Cancelled, .. } => format!("stop {task}"),
        EventKind::TaskFailed { task, .. } => format!("fail {task}"),
        EventKind::TaskSkipped { task, because: Failed { task: cause } } => format!("skip {task}<{cause}"),
        EventKind::TaskSkipped { task, because: Unassigned { dataset } } => format!("block {task}<{dataset}"),
        EventKind::RunEnded { state, .. } => format!("end {state}"),
    }
}

fn path(name: &str) -> DatasetPath {
    name.parse().unwrap()
}

/// The task object of a sketch: the name is in the command, so every task has a hash of its own.
fn object(name: &str, inputs: &[&str]) -> TaskObject {
    let input = |name: &&str| TaskInput {
        name: Some(name.parse::<Name>().unwrap()),
        kind: Kind::File,
        writable: false,
    };
    TaskObject {
        command: CommandLine::Argv(vec![name.to_owned()]),
        env: BTreeMap::new(),
        inputs: inputs.iter().map(input).collect(),
        output: Kind::File,
    }
}

/// The hash of a sketch's task object.
pub fn task_hash(task: &TaskSketch) -> Hash {
    ObjectRef::of(&object(task.name, task.inputs).encode()).hash
}
