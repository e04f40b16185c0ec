//! A dataflow inside a Rust program: storage in memory, tasks that are functions, no process, no file.

use std::{collections::BTreeMap, error::Error, num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use e3_core::{
    Clock, DataflowOptions, Deployment, EventSink, ExecutionContext, Holder, MemoryStorage, ObjectStoreExt,
    Origin, Outcome, StorageBackend, SystemClock, TaskExecuteOptions, TaskResult, TaskRunner, Usage,
    WorkspaceLease, dataflow_execute,
    datasets::{self, Assignment},
    packages, perform, workspaces,
};
use e3_types::{
    CommandLine, ErrorClass, Event, EventKind, Failure, Hash, Kind, ObjectRef, Package, PackageTask, Slot,
    TaskInput, TaskObject, TaskPolicy,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How much of an input is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// A runner whose tasks are functions on text. The first word of a task's command says which.
struct WordRunner {
    clock: Arc<dyn Clock>,
    holder: Holder,
}

#[async_trait]
impl TaskRunner for WordRunner {
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        let context =
            ExecutionContext { storage, clock: &*self.clock, holder: &self.holder, runner: "words" };
        // Identity, cache, waiting for others and the record are the engine's; the work is ours.
        perform(context, task, inputs, &options, |_| async {
            let verdict = work(storage, task, inputs)
                .await
                .map_err(|message| Failure::Error { class: ErrorClass::User, message });
            Outcome { verdict, usage: Usage::default(), notes: Vec::new() }
        })
        .await
    }
}

async fn work(
    storage: &dyn StorageBackend,
    task: Hash,
    inputs: &[Hash],
) -> std::result::Result<ObjectRef, String> {
    let task = packages::load_task(storage, task).await.map_err(|error| error.to_string())?;
    let mut texts = Vec::new();
    for input in inputs {
        let bytes = storage.objects().get_bytes(input, LIMIT).await.map_err(|error| error.to_string())?;
        texts.push(String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())?);
    }
    let output = match task.command.words().first().map(String::as_str) {
        Some("shout") => texts.concat().to_uppercase(),
        Some("count") => texts.concat().split_whitespace().count().to_string(),
        Some("join") => texts.join(" / "),
        other => return Err(format!("there is no function {other:?}: expected shout, count or join")),
    };
    storage.objects().put_bytes(output).await.map_err(|error| error.to_string())
}

/// Prints what happens.
struct Print;

impl EventSink for Print {
    #[expect(clippy::print_stdout, reason = "this program has nothing else to say")]
    fn emit(&self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { total, standing, .. } => {
                println!("run of {total} tasks, {standing} of them untouched since the last run");
            }
            EventKind::TaskCompleted { task, cached: true, .. } => println!("  {task}: known"),
            EventKind::TaskCompleted { task, .. } => println!("  {task}: computed"),
            EventKind::TaskFailed { task, failure, .. } => println!("  {task}: {failure}"),
            EventKind::RunEnded { state, summary } => println!("{state}: {} computed", summary.executed),
            _ => {}
        }
    }
}

/// Two inputs, a task on each, and one that joins them.
async fn package(storage: &dyn StorageBackend) -> Result<Package> {
    let mut package = Package {
        name: "words".parse()?,
        version: "0.1.0".parse()?,
        datasets: BTreeMap::new(),
        tasks: BTreeMap::new(),
    };
    for (input, text) in [("greeting", "hello world"), ("article", "to be or not to be")] {
        let default = Some(Box::new(storage.objects().put_bytes(text).await?));
        package.datasets.insert(input.parse()?, Slot { kind: Kind::File, default });
    }
    let tasks: [(&str, &str, &[&str]); 3] = [
        ("loud", "shout", &["greeting"]),
        ("length", "count", &["article"]),
        ("report", "join", &["loud", "length"]),
    ];
    for (name, function, inputs) in tasks {
        let mut wired = Vec::new();
        let mut named = Vec::new();
        for input in inputs {
            wired.push(input.parse()?);
            named.push(TaskInput { name: Some(input.parse()?), kind: Kind::File, writable: false });
        }
        let object = TaskObject {
            command: CommandLine::Argv(vec![function.to_owned()]),
            each: None,
            env: BTreeMap::new(),
            inputs: named,
            output: Kind::File,
        };
        let task = storage.objects().put_bytes(object.encode()).await?.hash;
        package.datasets.insert(name.parse()?, Slot { kind: Kind::File, default: None });
        let policy = TaskPolicy::usual();
        let wired = PackageTask { task, inputs: wired, output: name.parse()?, each: None, policy };
        package.tasks.insert(name.parse()?, wired);
    }
    Ok(package)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "this program has nothing else to say")]
async fn main() -> Result<()> {
    let storage: Arc<dyn StorageBackend> = Arc::new(MemoryStorage::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let holder = Holder { owner: clock.new_owner(), process: None, since: clock.now() };
    let main = "main".parse()?;

    let package = package(&*storage).await?;
    let object = packages::store(&*storage, &package).await?;
    let lease = WorkspaceLease::acquire(&*storage, &main, &holder).await?;
    let deployment = Deployment { object, package: &package, tracked: &[], looks: None, reset: false };
    workspaces::deploy(&*storage, &*clock, &lease, deployment).await?;
    drop(lease);

    let runner = Arc::new(WordRunner { clock: Arc::clone(&clock), holder: holder.clone() });
    let slots = NonZeroUsize::new(2).expect("two is not zero");
    let options = DataflowOptions {
        events: Arc::new(Print),
        ..DataflowOptions::new(runner, Arc::clone(&clock), holder, slots)
    };
    dataflow_execute(Arc::clone(&storage), &main, options.clone()).await?;

    let greeting = storage.objects().put_bytes("good evening").await?;
    let value = Assignment { path: "greeting".parse()?, kind: Kind::File, object: greeting };
    datasets::set(&*storage, &*clock, &main, &[value], Origin::User).await?;
    dataflow_execute(Arc::clone(&storage), &main, options).await?;

    let values = datasets::read_all(storage.refs(), &main).await?;
    let report = values["report"].object.hash;
    println!("{}", String::from_utf8(storage.objects().get_bytes(&report, LIMIT).await?.to_vec())?);
    Ok(())
}
