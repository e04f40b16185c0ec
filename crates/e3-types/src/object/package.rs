//! `Package`: datasets and the tasks between them. Immutable, and the same bytes wherever it was built.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};

use super::{Kind, ObjectFormatError, ObjectRef, Retry, decode, decode_known, encode};
use crate::{DatasetPath, Hash, Name, PackageName, PackageVersion};

/// A package as it is stored. Fields are in the order of the canonical form here, so that nothing has to be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Every dataset: the inputs, and one output for each task.
    pub datasets: BTreeMap<DatasetPath, Slot>,
    /// Its name.
    pub name: PackageName,
    /// The tasks.
    pub tasks: BTreeMap<Name, PackageTask>,
    /// Its version.
    pub version: PackageVersion,
}

/// A dataset of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// What it holds at first; outputs have none, and most inputs: there may be many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Box<ObjectRef>>,
    /// What it holds.
    pub kind: Kind,
}

/// A task of a package, wired to its datasets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageTask {
    /// The task runs once per entry of this input, by its number among `inputs`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<u32>,
    /// The datasets that it reads, in the order of the task object's inputs.
    pub inputs: Vec<DatasetPath>,
    /// The dataset that it writes.
    pub output: DatasetPath,
    /// How it is to be executed.
    #[serde(default = "TaskPolicy::usual", skip_serializing_if = "is_usual")]
    pub policy: Arc<TaskPolicy>,
    /// The task object.
    pub task: Hash,
}

/// What does not change a task's output, only how it is executed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPolicy {
    /// Whether an earlier result may answer.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub cache: bool,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retry>,
    /// How long one attempt may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What one attempt uses while it runs: `cpu` in cores, `memory` in bytes, anything else in units of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<Name, u64>,
    /// What one attempt may use at most.
    #[serde(default, skip_serializing_if = "TaskLimits::is_none")]
    pub limits: TaskLimits,
    /// What one attempt may see.
    #[serde(default, skip_serializing_if = "Sandbox::is_off")]
    pub sandbox: Sandbox,
}

/// What one attempt may use at most, where the system can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskLimits {
    /// How large the address space of each of its processes may be, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How many files each of its processes may have open at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// How much CPU time each of its processes may use, in milliseconds; systems count in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

impl TaskLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a task may see of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode", deny_unknown_fields)]
pub enum Sandbox {
    /// All that its user may: it starts in its own folder, and nothing is hidden.
    #[default]
    Off,
    /// Its own folder and the read-only folders of the system; no other process.
    Strict {
        /// Whether it has a network.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        network: bool,
    },
}

impl Sandbox {
    /// Whether nothing is hidden.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

fn yes() -> bool {
    true
}

impl Default for TaskPolicy {
    fn default() -> Self {
        Self {
            cache: true,
            retries: None,
            timeout_ms: None,
            resources: BTreeMap::new(),
            limits: TaskLimits::default(),
            sandbox: Sandbox::Off,
        }
    }
}

impl TaskPolicy {
    /// That of most tasks: nothing is said of them.
    pub fn usual() -> Arc<Self> {
        static USUAL: LazyLock<Arc<TaskPolicy>> = LazyLock::new(Arc::default);
        Arc::clone(&USUAL)
    }

    /// To be shared: most are the same.
    pub fn shared(self) -> Arc<Self> {
        if self == Self::default() { Self::usual() } else { Arc::new(self) }
    }
}

fn is_usual(policy: &Arc<TaskPolicy>) -> bool {
    Arc::ptr_eq(policy, &TaskPolicy::usual()) || **policy == TaskPolicy::default()
}

impl Package {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads bytes that are known to be canonical: those of an object that was checked when it came into the store.
    pub fn decode_known(bytes: &[u8]) -> Result<Self, ObjectFormatError> {
        decode_known(bytes, "package")
    }

    /// Reads canonical bytes. The wiring is not checked here: `e3-core` does it when it makes a graph of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectFormatError> {
        decode(bytes, "package")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::task::tests::{any_kind, any_name},
        *,
    };
    use crate::RetryClass;

    #[test]
    fn golden_bytes() {
        let package = Package {
            name: "penguins".parse().unwrap(),
            version: "0.1.0".parse().unwrap(),
            datasets: BTreeMap::from([
                (
                    "raw".parse().unwrap(),
                    Slot { kind: Kind::File, default: Some(Box::new(ObjectRef::of(b"x"))) },
                ),
                ("clean".parse().unwrap(), Slot { kind: Kind::File, default: None }),
            ]),
            tasks: BTreeMap::from([(
                "clean".parse().unwrap(),
                PackageTask {
                    task: Hash::of(b"task"),
                    inputs: vec!["raw".parse().unwrap()],
                    output: "clean".parse().unwrap(),
                    each: Some(0),
                    policy: Arc::new(TaskPolicy {
                        cache: false,
                        retries: Some(Retry {
                            max: 2,
                            backoff_ms: 1000,
                            on: vec![RetryClass::Exit(Some(75))],
                        }),
                        timeout_ms: Some(60_000),
                        resources: BTreeMap::from([("gpu".parse().unwrap(), 2)]),
                        limits: TaskLimits { open_files: Some(64), ..TaskLimits::default() },
                        sandbox: Sandbox::Strict { network: true },
                    }),
                },
            )]),
        };
        let bytes = package.encode();
        let (x, task) = (Hash::of(b"x"), Hash::of(b"task"));
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            format!(
                r#"{{"datasets":{{"clean":{{"kind":"file"}},"raw":{{"default":{{"hash":"{x}","size":1}},"kind":"file"}}}},"name":"penguins","tasks":{{"clean":{{"each":0,"inputs":["raw"],"output":"clean","policy":{{"cache":false,"limits":{{"open_files":64}},"resources":{{"gpu":2}},"retries":{{"backoff_ms":1000,"max":2,"on":["exit:75"]}},"sandbox":{{"mode":"strict","network":true}},"timeout_ms":60000}},"task":"{task}"}}}},"version":"0.1.0"}}"#
            )
        );
        assert_eq!(Package::decode(&bytes).unwrap(), package);
        let spelt_out = String::from_utf8(bytes).unwrap().replace(r#""cache":false"#, r#""cache":true"#);
        assert!(Package::decode(spelt_out.as_bytes()).is_err(), "a default is left out, never spelt out");
    }

    fn any_package() -> impl Strategy<Value = Package> {
        let slot = (any_kind(), prop::option::of((any::<[u8; 32]>(), 0_u64..1 << 53))).prop_map(
            |(kind, default)| Slot {
                kind,
                default: default
                    .map(|(hash, size)| Box::new(ObjectRef { hash: Hash::from_bytes(hash), size })),
            },
        );
        let policy = (
            any::<bool>(),
            prop::option::of((any::<u32>(), 0_u64..1 << 53)),
            prop::option::of(0_u64..1 << 53),
            prop::collection::btree_map(any_name(), 0_u64..1 << 53, 0..3),
            prop::array::uniform3(prop::option::of(0_u64..1 << 53)),
            prop::option::of(any::<bool>()),
        )
            .prop_map(
                |(cache, retries, timeout_ms, resources, [memory, open_files, cpu_ms], sandbox)| TaskPolicy {
                    cache,
                    retries: retries.map(|(max, backoff_ms)| Retry {
                        max,
                        backoff_ms,
                        on: vec![RetryClass::Timeout, RetryClass::Signal(None)],
                    }),
                    timeout_ms,
                    resources,
                    limits: TaskLimits { memory, open_files, cpu_ms },
                    sandbox: sandbox.map_or(Sandbox::Off, |network| Sandbox::Strict { network }),
                },
            );
        let each = prop::option::of(0_u32..4);
        let task = (any::<[u8; 32]>(), prop::collection::vec(any_name(), 0..4), any_name(), each, policy)
            .prop_map(|(task, inputs, output, each, policy)| PackageTask {
                task: Hash::from_bytes(task),
                inputs: inputs.iter().map(DatasetPath::from).collect(),
                output: DatasetPath::from(&output),
                each,
                policy: Arc::new(policy),
            });
        (
            prop::collection::btree_map(any_name().prop_map(|name| DatasetPath::from(&name)), slot, 0..5),
            prop::collection::btree_map(any_name(), task, 0..5),
        )
            .prop_map(|(datasets, tasks)| Package {
                name: "p".parse().expect("a label"),
                version: "1".parse().expect("a label"),
                datasets,
                tasks,
            })
    }

    proptest! {
        #[test]
        fn decode_is_the_inverse_of_encode(package in any_package()) {
            prop_assert_eq!(Package::decode(&package.encode()).unwrap(), package);
        }
    }
}
