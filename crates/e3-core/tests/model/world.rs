//! The world of the model: a small graph, the values of its inputs, and what its tasks make of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use e3_core::OnFailure;
use e3_types::{Hash, Kind, ObjectRef, Package, PackageTask, Retry, RetryClass, Slot, TaskPolicy};
use proptest::prelude::*;

/// The root inputs. The first is a folder.
pub(crate) const ROOTS: usize = 3;
pub(crate) const SLOTS: usize = 3;
pub(crate) const LICENSES: u64 = 2;

/// What a task reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Root(usize),
    Task(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Sketch {
    /// Earlier tasks and inputs, each once.
    pub(crate) reads: Vec<Reads>,
    /// It runs once per entry of the first of these, which is a folder.
    pub(crate) each: bool,
    pub(crate) cpu: u64,
    pub(crate) licenses: u64,
    pub(crate) retries: bool,
    pub(crate) cached: bool,
    /// How many different outputs it can make: few, so that they often stay the same.
    outputs: u64,
    /// Of seven keys, how many fail.
    failing: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) tasks: Vec<Sketch>,
    /// A number stands for a value; for the folder, each of its low four bits for an entry.
    pub(crate) roots: Vec<Option<u8>>,
    pub(crate) on_failure: OnFailure,
}

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(ObjectRef),
    Failed,
    Skipped,
}

impl World {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let task = (
            prop::collection::btree_set(0_usize..ROOTS + 8, 0..4),
            prop::bool::weighted(0.3),
            1_u64..4,
            0_u64..3,
            any::<bool>(),
            prop::bool::weighted(0.9),
            1_u64..4,
            prop_oneof![3 => Just(0_u64), 1 => Just(2)],
        );
        let roots = prop::collection::vec(prop::option::weighted(0.9, any::<u8>()), ROOTS);
        let on_failure =
            prop_oneof![Just(OnFailure::KeepGoing), Just(OnFailure::Finish), Just(OnFailure::Cancel)];
        (prop::collection::vec(task, 1..8), roots, on_failure).prop_map(|(drafts, roots, on_failure)| {
            let mut tasks: Vec<Sketch> = Vec::new();
            for (reads, wants_each, cpu, licenses, retries, cached, outputs, failing) in drafts {
                let number = tasks.len();
                let reads = reads.into_iter().filter_map(|at| match at.checked_sub(ROOTS) {
                    None => Some(Reads::Root(at)),
                    Some(task) => (task < number).then_some(Reads::Task(task)),
                });
                let mut reads: Vec<Reads> = reads.collect();
                let is_folder = |read: &Reads| match *read {
                    Reads::Root(root) => root == 0,
                    Reads::Task(task) => tasks[task].each,
                };
                let folder = reads.iter().position(is_folder);
                let each = wants_each && folder.is_some();
                if let Some(at) = folder {
                    reads.swap(0, at);
                }
                tasks.push(Sketch { reads, each, cpu, licenses, retries, cached, outputs, failing });
            }
            Self { tasks, roots, on_failure }
        })
    }

    pub(crate) fn task_name(task: usize) -> String {
        format!("t{task}")
    }

    pub(crate) fn root_name(root: usize) -> String {
        format!("r{root}")
    }

    pub(crate) fn package(&self) -> Package {
        let kind = |is_folder| if is_folder { Kind::Dir } else { Kind::File };
        let mut datasets = BTreeMap::new();
        for root in 0..ROOTS {
            datasets.insert(
                Self::root_name(root).parse().unwrap(),
                Slot { kind: kind(root == 0), default: None },
            );
        }
        let mut tasks = BTreeMap::new();
        for (number, task) in self.tasks.iter().enumerate() {
            let path = |read: &Reads| match *read {
                Reads::Root(root) => Self::root_name(root).parse().unwrap(),
                Reads::Task(task) => Self::task_name(task).parse().unwrap(),
            };
            let retries = Retry { max: 1, backoff_ms: 1, on: vec![RetryClass::Exit(None)] };
            let resources = [("cpu", task.cpu), ("license", task.licenses)];
            let wired = PackageTask {
                task: Self::object(number),
                inputs: task.reads.iter().map(path).collect(),
                output: Self::task_name(number).parse().unwrap(),
                each: task.each.then_some(0),
                policy: Arc::new(TaskPolicy {
                    cache: task.cached,
                    retries: task.retries.then_some(retries),
                    timeout_ms: None,
                    resources: resources.map(|(name, amount)| (name.parse().unwrap(), amount)).into(),
                    ..TaskPolicy::default()
                }),
            };
            datasets.insert(wired.output.clone(), Slot { kind: kind(task.each), default: None });
            tasks.insert(Self::task_name(number).parse().unwrap(), wired);
        }
        Package { name: "model".parse().unwrap(), version: "1".parse().unwrap(), datasets, tasks }
    }

    /// The task object of a task.
    pub(crate) fn object(task: usize) -> Hash {
        Hash::of(format!("task {task}").as_bytes())
    }

    /// The task object of its entries.
    pub(crate) fn item_object(task: usize) -> Hash {
        Hash::of(format!("item of task {task}").as_bytes())
    }

    pub(crate) fn root(&self, root: usize) -> Option<ObjectRef> {
        let value = self.roots[root]?;
        Some(match root {
            0 => folder(&Self::entries(value)),
            _ => ObjectRef::of(format!("root {root} {value}").as_bytes()),
        })
    }

    /// The entries of the folder that a number stands for.
    pub(crate) fn entries(value: u8) -> Entries {
        let entry = |bit: u8| {
            (value >> bit & 1 == 1).then(|| {
                let content = format!("entry {}", (value >> 4).wrapping_add(bit) % 3);
                (format!("e{bit}").into(), ObjectRef::of(content.as_bytes()))
            })
        };
        (0..4).filter_map(entry).collect()
    }

    /// What a task makes of its inputs: the same each time, or fails each time.
    pub(crate) fn make(&self, task: usize, inputs: &[Hash]) -> Option<ObjectRef> {
        let text: Vec<_> = inputs.iter().map(ToString::to_string).collect();
        let mixed = Hash::of(format!("{task} {}", text.join(" ")).as_bytes()).to_string();
        let number = u64::from_str_radix(&mixed[..8], 16).unwrap();
        let Sketch { outputs, failing, .. } = self.tasks[task];
        (number % 7 >= failing)
            .then(|| ObjectRef::of(format!("output {task} {}", number / 7 % outputs).as_bytes()))
    }

    /// The reference: every task on the inputs as they are, one after the other, nothing remembered.
    pub(crate) fn evaluate(&self) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut folders: HashMap<Hash, Entries> = HashMap::new();
        if let Some(value) = self.roots[0] {
            folders.insert(folder(&Self::entries(value)).hash, Self::entries(value));
        }
        for (number, task) in self.tasks.iter().enumerate() {
            let value = |read: &Reads| match *read {
                Reads::Root(root) => self.root(root).map(|object| object.hash),
                Reads::Task(task) => match &outcomes[task] {
                    Outcome::Done(output) => Some(output.hash),
                    Outcome::Failed | Outcome::Skipped => None,
                },
            };
            let Some(mut inputs) = task.reads.iter().map(value).collect::<Option<Vec<Hash>>>() else {
                outcomes.push(Outcome::Skipped);
                continue;
            };
            let output = if task.each {
                let made = folders[&inputs[0]].clone().into_iter().map(|(name, entry)| {
                    inputs[0] = entry.hash;
                    Some((name, self.make(number, &inputs)?))
                });
                made.collect::<Option<Entries>>().map(|made| {
                    let object = folder(&made);
                    folders.insert(object.hash, made);
                    object
                })
            } else {
                self.make(number, &inputs)
            };
            outcomes.push(output.map_or(Outcome::Failed, Outcome::Done));
        }
        outcomes
    }
}

/// The entries of a folder by name.
pub(crate) type Entries = Vec<(Arc<str>, ObjectRef)>;

/// The object of a folder.
pub(crate) fn folder(entries: &Entries) -> ObjectRef {
    ObjectRef::of(format!("folder {entries:?}").as_bytes())
}
