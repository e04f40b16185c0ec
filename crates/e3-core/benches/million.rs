//! The cost of orchestration: a layered graph of N tasks, each with three inputs from the layer before, in ten layers.
//!
//! `cargo bench -p e3-core --bench million [-- N...]` runs every part for every N in a process of its own, on one core, and
//! prints for each: tasks per second, and (from another process) how much memory the process has used at most per task.
//!
//! * `state`: the pure state machine, asked and told, without a loop around it. Its memory is that of the graph and the
//!   state alone: the package that it was made from is not counted.
//! * `bare`: the whole of `dataflow_execute` in memory, with a runner that returns at once and records nothing.
//! * `mock`: the same with `MockTaskRunner`, whose executions go through lookup, lease and records like real ones.
//! * `local`: as `bare`, on `LocalStorage`: events, outputs and history are written to disk.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks, and has nobody to report errors to"
)]

use std::{collections::BTreeMap, num::NonZeroUsize, process::Command, sync::Arc, time::Duration};

use async_trait::async_trait;
use e3_core::{
    Action, Clock, Dataflow, DataflowOptions, DataflowPolicy, Deployment, Graph, Holder, MemoryStorage,
    MockResponse, MockTaskRunner, ObjectStoreExt, OnFailure, StorageBackend, SystemClock, TaskExecuteOptions,
    TaskResult, TaskRunner, Uncommitted, WorkspaceLease, dataflow_execute, packages, workspaces,
};
use e3_store::LocalStorage;
use e3_types::{
    CommandLine, Event, EventKind, ExecutionId, Hash, Hasher, Kind, ObjectRef, Package, PackageTask,
    RunReason, Slot, TaskInput, TaskObject, TaskPolicy, Timestamp,
};

const LAYERS: usize = 10;
const INPUTS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [part, what, count] = &arguments[..] {
        println!("{}", measure(part, what, count.parse().unwrap()));
        return;
    }
    let counts: Vec<u32> = arguments.iter().map(|word| word.parse().unwrap()).collect();
    let counts = if counts.is_empty() { vec![100_000, 1_000_000] } else { counts };
    println!("part   tasks      tasks/s   ns/task  bytes/task");
    for part in ["state", "bare", "mock", "local"] {
        let mut costs = Vec::new();
        for &count in &counts {
            let (ns, bytes) = (own(part, "ns", count), own(part, "bytes", count));
            println!("{part:<6} {count:<9} {:>8}  {ns:>8}  {bytes:>10}", 1_000_000_000 / ns.max(1));
            costs.push((count, f64::from(u32::try_from(ns).unwrap())));
        }
        for pair in costs.windows(2) {
            let [(fewer, cheaper), (more, dearer)] = pair else { continue };
            println!("       a task of {more} costs x{:.2} of one of {fewer}", dearer / cheaper);
        }
    }
}

/// What a process of its own measures.
fn own(part: &str, what: &str, count: u32) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([part, what, &count.to_string()]);
    // See `warm`; glibc only, others measure the first touch of memory as well.
    command.env("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000");
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// How much memory a task may need, in bytes: more than any part does.
const ENOUGH: usize = 8000;

/// Takes memory from the system and leaves it in the heap. Many virtual machines hand memory out the slower the more there is
/// in use; that is no cost of the engine, and would be measured as one.
fn warm(count: u32) {
    const PIECE: usize = 100_000;
    let pieces = count as usize * ENOUGH / PIECE;
    let memory: Vec<Vec<u8>> = (0..pieces).map(|_| vec![1; PIECE]).collect();
    drop(std::hint::black_box(memory));
}

/// Nanoseconds per task, or the largest number of bytes per task.
fn measure(part: &str, what: &str, count: u32) -> u128 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if what == "ns" {
        warm(count);
    }
    let (elapsed, bytes) = match part {
        "state" => state(count as usize),
        _ => runtime.block_on(whole(part, count as usize)),
    };
    match what {
        "ns" => (elapsed / count).as_nanos(),
        _ => u128::from(bytes / u64::from(count)),
    }
}

/// Tasks in layers; each reads three of the layer before, those of the first layer an input of their own.
fn package(count: usize, task: Hash) -> Package {
    let width = count.div_ceil(LAYERS);
    let slot = || Slot { kind: Kind::File, default: None };
    let mut datasets = BTreeMap::new();
    let mut tasks = BTreeMap::new();
    for place in 0..width {
        let name = format!("source{place:07}");
        let default = Some(ObjectRef::of(name.as_bytes()));
        datasets.insert(name.parse().unwrap(), Slot { kind: Kind::File, default: default.map(Box::new) });
    }
    for number in 0..count {
        let (layer, place) = (number / width, number % width);
        let input = |step: usize| format!("t{:07}", (layer - 1) * width + (place + step * step) % width);
        let inputs = match layer {
            0 => vec![format!("source{place:07}").parse().unwrap(); INPUTS],
            _ => (0..INPUTS).map(|step| input(step).parse().unwrap()).collect(),
        };
        let name = format!("t{number:07}");
        datasets.insert(name.parse().unwrap(), slot());
        let wired = PackageTask {
            task,
            inputs,
            output: name.parse().unwrap(),
            each: None,
            policy: TaskPolicy::usual(),
        };
        tasks.insert(name.parse().unwrap(), wired);
    }
    Package { name: "layers".parse().unwrap(), version: "1".parse().unwrap(), datasets, tasks }
}

fn task_object() -> TaskObject {
    let input = |number: usize| TaskInput {
        name: Some(format!("i{number}").parse().unwrap()),
        kind: Kind::File,
        writable: false,
    };
    TaskObject {
        command: CommandLine::Argv(vec!["true".to_owned()]),
        each: None,
        env: BTreeMap::new(),
        inputs: (0..INPUTS).map(input).collect(),
        output: Kind::File,
    }
}

fn state(count: usize) -> (Duration, u64) {
    let package = package(count, Hash::of(b"task"));
    let before = resident("VmRSS");
    let start = tokio::time::Instant::now();
    let graph = Arc::new(Graph::new(&package).unwrap());
    let policy = DataflowPolicy {
        slots: NonZeroUsize::new(64).unwrap(),
        limits: BTreeMap::new(),
        on_failure: OnFailure::default(),
    };
    let root = |path: &e3_types::DatasetPath| package.datasets[path].default.as_deref().copied();
    let mut flow = Dataflow::new(&graph, &policy, root, |_| None, |_| None);
    let mut running = std::collections::VecDeque::new();
    let output = ObjectRef::of(b"output");
    loop {
        let Some(action) = flow.next_action() else {
            let unit = running.pop_front().unwrap();
            let kind = EventKind::TaskCompleted {
                task: graph.name(flow.task_of(unit)).clone(),
                item: None,
                execution: None,
                output,
                cached: false,
                because: None,
                took_ms: 1,
                superseded: false,
            };
            flow.apply_to(Some(unit), &Event { seq: 0, at: Timestamp::default(), kind });
            continue;
        };
        match action {
            Action::Look { units } => {
                for unit in units {
                    flow.missed(unit, RunReason::NoResult);
                }
            }
            Action::Start { unit, attempt, because } => {
                let task = graph.name(flow.task_of(unit)).clone();
                let kind = EventKind::TaskStarted { task, item: None, attempt, because };
                flow.apply_to(Some(unit), &Event { seq: 0, at: Timestamp::default(), kind });
                running.push_back(unit);
            }
            Action::Prepare { .. } => {}
            Action::End { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    let elapsed = start.elapsed();
    let bytes = resident("VmRSS").saturating_sub(before);
    assert_eq!(flow.summary(Timestamp::default()).executed, count as u64);
    (elapsed, bytes)
}

/// An output that differs for different inputs.
fn made_of(inputs: &[Hash]) -> ObjectRef {
    let mut mixed = Hasher::new();
    for input in inputs {
        mixed.update(input.as_bytes());
    }
    ObjectRef { hash: mixed.finish(), size: 1 }
}

/// Returns at once.
struct Bare(Arc<dyn Clock>);

#[async_trait]
impl TaskRunner for Bare {
    async fn execute(
        &self,
        _: &dyn StorageBackend,
        _: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        options.time_comes().await;
        let mut random = [0; 10];
        random.copy_from_slice(&inputs[0].to_string().as_bytes()[..10]);
        let execution = ExecutionId::from_parts(self.0.now().unix_ms(), random);
        TaskResult {
            outcome: Ok(made_of(inputs)),
            cached: false,
            execution: Some(execution),
            took_ms: 1,
            notes: Vec::new(),
            uncommitted: Uncommitted::default(),
        }
    }
}

async fn whole(part: &str, count: usize) -> (Duration, u64) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let folder = tempfile::tempdir_in(".").unwrap();
    let storage: Arc<dyn StorageBackend> = match part {
        "local" => Arc::new(LocalStorage::create(&folder.path().join("repository"), &*clock).unwrap()),
        _ => Arc::new(MemoryStorage::default()),
    };
    let holder = Holder { owner: clock.new_owner(), process: None, since: clock.now() };
    let workspace = "main".parse().unwrap();
    let task = storage.objects().put_bytes(task_object().encode()).await.unwrap().hash;
    let package = package(count, task);
    let object = packages::store(&*storage, &package).await.unwrap();
    let lease = WorkspaceLease::acquire(&*storage, &workspace, &holder).await.unwrap();
    let deployment = Deployment { object, package: &package, tracked: &[], looks: None, reset: false };
    workspaces::deploy(&*storage, &*clock, &lease, deployment).await.unwrap();
    drop((lease, package));

    let runner: Arc<dyn TaskRunner> = if part == "mock" {
        let runner = MockTaskRunner::new(Arc::clone(&clock));
        runner.respond_by_default(|call| MockResponse::object(made_of(&call.inputs)));
        Arc::new(runner)
    } else {
        Arc::new(Bare(Arc::clone(&clock)))
    };
    let options = DataflowOptions::new(runner, clock, holder, NonZeroUsize::new(64).unwrap());
    let start = tokio::time::Instant::now();
    let report = dataflow_execute(Arc::clone(&storage), &workspace, options).await.unwrap();
    let elapsed = start.elapsed();
    assert_eq!(report.summary.executed, count as u64);
    (elapsed, resident("VmHWM"))
}

/// Linux: memory of this process in bytes, see proc(5).
fn resident(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
