//! Small pipelines for tests of the orchestration: tasks by name, no file, no process.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use e3_core::{
    Clock, DataflowOptions, DatasetRef, Deployment, EventSink, ExecutionKey, Holder, MemoryStorage,
    MockTaskRunner, ObjectStoreExt, Origin, RunReport, StorageBackend, TestClock, WorkspaceLease,
    dataflow_execute,
    datasets::{self, Assignment},
    packages, workspaces,
};
use e3_types::{
    CommandLine, DatasetPath, Dir, DirEntry, Event, EventKind, FileEntry, Hash, Kind, Name, ObjectRef,
    OwnerId, Package, PackageTask, Slot, TaskInput, TaskObject, TaskPolicy, Timestamp, WorkspaceName,
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
    /// It runs once per entry of this input, which is then a folder. Its output is one in any case.
    pub each: Option<&'static str>,
    /// How it is to be executed.
    pub policy: TaskPolicy,
}

impl TaskSketch {
    /// A task with the default policy.
    pub fn new(name: &'static str, inputs: &'static [&'static str]) -> Self {
        Self { name, inputs, each: None, policy: TaskPolicy::default() }
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
        let slots = NonZeroUsize::new(2).expect("two");
        let options = DataflowOptions {
            events: Arc::clone(&events) as _,
            ..DataflowOptions::new(Arc::clone(&runner) as _, Arc::clone(&clock) as _, holder(1), slots)
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
        let package = self.package(tasks).await;
        let object = packages::store(&*self.storage, &package).await.unwrap();
        let lease =
            WorkspaceLease::acquire(&*self.storage, &workspace.parse().unwrap(), &holder(9)).await.unwrap();
        let deployment = Deployment { object, package: &package, tracked: &[], looks: None, reset: false };
        workspaces::deploy(&*self.storage, &*self.clock, &lease, deployment).await.unwrap();
    }

    /// The package of these tasks, whose objects are stored.
    pub async fn package(&self, tasks: &[TaskSketch]) -> Package {
        let mut package = Package {
            name: "test".parse().unwrap(),
            version: "1".parse().unwrap(),
            datasets: BTreeMap::new(),
            tasks: BTreeMap::new(),
        };
        let is_dir = |name: &str| {
            let read_each = tasks.iter().any(|task| task.each == Some(name));
            read_each || tasks.iter().any(|task| task.name == name && task.each.is_some())
        };
        let kind = |name: &str| if is_dir(name) { Kind::Dir } else { Kind::File };
        for TaskSketch { name, inputs, each, policy } in tasks {
            let bytes = object(name, inputs, *each, kind).encode();
            let task = self.storage.objects().put_bytes(bytes).await.unwrap().hash;
            for input in inputs.iter().chain([name]) {
                package.datasets.entry(path(input)).or_insert(Slot { kind: kind(input), default: None });
            }
            let each = each.and_then(|each| inputs.iter().position(|input| *input == each));
            let wired = PackageTask {
                task,
                inputs: inputs.iter().map(|input| path(input)).collect(),
                output: path(name),
                each: each.map(|each| u32::try_from(each).unwrap()),
                policy: Arc::new(policy.clone()),
            };
            package.tasks.insert(name.parse().unwrap(), wired);
        }
        let roots: Vec<_> = package
            .datasets
            .keys()
            .filter(|path| !package.tasks.values().any(|task| task.output == **path))
            .cloned()
            .collect();
        for root in roots.iter().filter(|root| !root.as_str().starts_with("unassigned")) {
            let value = match kind(root.as_str()) {
                Kind::Dir => self.folder(&[]).await,
                _ => self.storage.objects().put_bytes(root.as_str().to_owned()).await.unwrap(),
            };
            package.datasets.get_mut(root).unwrap().default = Some(Box::new(value));
        }
        package
    }

    /// A folder of files, each with its bytes.
    pub async fn folder(&self, files: &[(&str, &str)]) -> ObjectRef {
        let mut entries = BTreeMap::new();
        for (name, text) in files {
            let object = self.storage.objects().put_bytes((*text).to_owned()).await.unwrap();
            entries.insert((*name).to_owned(), DirEntry::File(FileEntry { object, executable: false }));
        }
        self.storage.objects().put_bytes(Dir { entries }.encode()).await.unwrap()
    }

    /// Gives an input of the workspace `main`, which is a folder, these files.
    pub async fn set_folder(&self, input: &str, files: &[(&str, &str)]) {
        let object = self.folder(files).await;
        self.assign(input, Kind::Dir, object).await;
    }

    /// Gives an input of the workspace `main` the bytes of a text.
    pub async fn set(&self, input: &str, text: &str) {
        let object = self.storage.objects().put_bytes(text.to_owned()).await.unwrap();
        self.assign(input, Kind::File, object).await;
    }

    /// Gives an input of the workspace `main` an object.
    pub async fn assign(&self, input: &str, kind: Kind, object: ObjectRef) {
        let value = Assignment { path: path(input), kind, object };
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

    /// The version vector of a dataset of the workspace `main`: every root input that it was derived from, with its hash.
    /// Panics if the dataset was not derived from the values as they are now.
    pub async fn vector(&self, dataset: &str) -> Vec<(String, Hash)> {
        let workspace: WorkspaceName = "main".parse().unwrap();
        let record = workspaces::find(&*self.storage, &workspace).await.unwrap();
        let package = packages::load(&*self.storage, record.package).await.unwrap();
        let values = datasets::read_all(self.storage.refs(), &workspace).await.unwrap();
        let mut vector = BTreeMap::new();
        let mut open = vec![path(dataset)];
        while let Some(dataset) = open.pop() {
            let value = &values[&dataset];
            let Some(task) = package.tasks.values().find(|task| task.output == dataset) else {
                vector.insert(dataset.to_string(), value.object.hash);
                continue;
            };
            let inputs: Vec<_> = task.inputs.iter().map(|input| values[input].object.hash).collect();
            let (key, made) = (ExecutionKey::new(task.task, &inputs), value.made.as_ref().unwrap());
            assert_eq!((made.task, made.inputs), (key.task, key.inputs), "`{dataset}` is not current");
            open.extend(task.inputs.iter().cloned());
        }
        vector.into_iter().collect()
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
    let of = |task: &Name, item: &Option<Arc<str>>| {
        item.as_ref().map_or_else(|| task.to_string(), |item| format!("{task}[{item}]"))
    };
    let late = |superseded: &bool| if *superseded { " too late" } else { "" };
    match kind {
        EventKind::RunStarted { total, .. } => format!("begin {total}"),
        EventKind::InputChanged { dataset, object: Some(_) } => format!("change {dataset}"),
        EventKind::InputChanged { dataset, object: None } => format!("take away {dataset}"),
        EventKind::TaskInvalidated { task, because } => format!("invalid {task}<{because}"),
        EventKind::TaskDeferred { task, because } => format!("defer {task}<{because}"),
        EventKind::TaskExpanded { task, items } => format!("expand {task} {items}"),
        EventKind::TaskStarted { task, item, attempt: 1, .. } => format!("start {}", of(task, item)),
        EventKind::TaskStarted { task, item, attempt, .. } => format!("start {} #{attempt}", of(task, item)),
        EventKind::AttemptFailed { task, item, retry_in_ms, .. } => {
            format!("retry {} in {retry_in_ms}", of(task, item))
        }
        EventKind::TaskCompleted { task, item, cached: true, superseded, .. } => {
            format!("hit {}{}", of(task, item), late(superseded))
        }
        EventKind::TaskCompleted { task, item, superseded, .. } => {
            format!("done {}{}", of(task, item), late(superseded))
        }
        EventKind::TaskFailed { task, item, failure: e3_types::Failure::Cancelled, superseded, .. } => {
            format!("stop {}{}", of(task, item), late(superseded))
        }
        EventKind::TaskFailed { task, item, superseded, .. } => {
            format!("fail {}{}", of(task, item), late(superseded))
        }
        EventKind::TaskSkipped { task, because: Failed { task: cause } } => format!("skip {task}<{cause}"),
        EventKind::TaskSkipped { task, because: Unassigned { dataset } } => format!("block {task}<{dataset}"),
        EventKind::TaskNoted { task, item, note } => format!("note {}: {note}", of(task, item)),
        EventKind::OutputRebuilt { task, item, .. } => format!("rebuild {}", of(task, item)),
        EventKind::RunEnded { state, .. } => format!("end {state}"),
    }
}

fn path(name: &str) -> DatasetPath {
    name.parse().unwrap()
}

/// The task object of a sketch: the name is in the command, so every task has a hash of its own.
fn object(name: &str, inputs: &[&str], each: Option<&str>, kind: impl Fn(&str) -> Kind) -> TaskObject {
    let input = |name: &&str| TaskInput {
        name: Some(name.parse::<Name>().unwrap()),
        kind: kind(name),
        writable: false,
    };
    TaskObject {
        command: CommandLine::Argv(vec![name.to_owned()]),
        each: each.map(|each| each.parse().unwrap()),
        env: BTreeMap::new(),
        inputs: inputs.iter().map(input).collect(),
        output: Kind::File,
    }
}

/// The hash of the task object of a sketch that reads and writes files only.
pub fn task_hash(task: &TaskSketch) -> Hash {
    ObjectRef::of(&object(task.name, task.inputs, None, |_| Kind::File).encode()).hash
}
