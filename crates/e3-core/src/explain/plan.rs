//! `plan`: what a run would do. The same state machine, asked the same questions, on a stage where what starts never ends.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use e3_types::{
    DatasetPath, Event, EventKind, ExecutionId, Hash, Name, ObjectRef, Package, RunReason, SkipReason,
    Timestamp,
};
use serde::Serialize;

use crate::{
    Action, Dataflow, DataflowError, DataflowPolicy, ExecutionKey, Force, Graph, Lookup, NamePattern,
    OnFailure, StorageBackend, StorageError, TaskIndex, TaskResult, Unit, UnitState, WorkspaceError,
    dataflow::{entries, execute},
    lookup_many,
};

/// Of what a plan is made.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Which tasks; all if there is none.
    pub targets: Vec<NamePattern>,
    /// Which results are not to be taken from the cache.
    pub force: Force,
    /// How much of a resource the running tasks may use together: what could never run is refused, as by a run.
    pub limits: BTreeMap<Name, u64>,
}

/// What a run would do with each task, in an order in which it could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The tasks, dependencies before dependents.
    pub tasks: Vec<PlannedTask>,
}

/// What a run would do with a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTask {
    /// The task.
    pub task: Name,
    /// What would become of it.
    #[serde(flatten)]
    pub decision: Decision,
    /// What would become of its entries, if it runs once per entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<EntriesPlan>,
    /// The task object and the inputs, if all are known.
    #[serde(skip)]
    pub key: Option<(Hash, Vec<Hash>)>,
    /// The same for its entries.
    #[serde(skip)]
    pub entry_keys: BTreeMap<Arc<str>, (Hash, Vec<Hash>)>,
}

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Execute it; of a task that runs once per entry, some of the entries.
    Run {
        /// Why the cache cannot answer.
        because: RunReason,
    },
    /// Take the result from the cache.
    Cached {
        /// The execution that made it; none for the folder of a task that runs once per entry.
        execution: Option<ExecutionId>,
        /// The output.
        output: ObjectRef,
    },
    /// Execute it if these tasks make something else than before.
    Depends {
        /// The tasks among its dependencies whose output is not known.
        on: Vec<Name>,
    },
    /// Nothing: an input has no value.
    Blocked {
        /// The input.
        dataset: DatasetPath,
    },
    /// Nothing: it cannot go through its entries.
    Error {
        /// Why not.
        message: String,
    },
}

/// What a run would do with the entries of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "entries", rename_all = "snake_case")]
pub enum EntriesPlan {
    /// How many there are is known when what the task reads is.
    Unknown,
    /// They are known.
    Known {
        /// How many there are.
        total: u64,
        /// Those that would be executed, with the reason why.
        run: BTreeMap<Arc<str>, RunReason>,
    },
}

/// Makes a plan for a package with these inputs.
pub async fn plan(
    storage: &dyn StorageBackend,
    package: &Package,
    roots: &BTreeMap<DatasetPath, ObjectRef>,
    options: &PlanOptions,
) -> Result<Plan, DataflowError> {
    let graph = execute::graph(package, &options.targets, &options.force)?;
    execute::check_limits(&graph, &options.limits)?;
    let policy = DataflowPolicy {
        slots: NonZeroUsize::MAX,
        limits: BTreeMap::new(),
        on_failure: OnFailure::KeepGoing,
    };
    let root = |path: &DatasetPath| roots.get(path).copied();
    let flow = Dataflow::new(&graph, &policy, root, |name| options.force.reason(name), |_| None);
    let mut planner = Planner {
        storage,
        graph,
        flow,
        why: BTreeMap::new(),
        hits: BTreeMap::new(),
        errors: BTreeMap::new(),
    };
    planner.run().await.map_err(|error| DataflowError::Workspace(WorkspaceError::Storage(error)))?;
    Ok(planner.plan())
}

struct Planner<'a> {
    storage: &'a dyn StorageBackend,
    graph: Arc<Graph>,
    flow: Dataflow,
    why: BTreeMap<Unit, RunReason>,
    hits: BTreeMap<TaskIndex, Option<ExecutionId>>,
    errors: BTreeMap<TaskIndex, String>,
}

impl Planner<'_> {
    async fn run(&mut self) -> Result<(), StorageError> {
        while let Some(action) = self.flow.next_action() {
            match action {
                Action::Skip { task, because } => {
                    self.tell(task.into(), EventKind::TaskSkipped { task: self.name(task), because });
                }
                Action::Expand { task } => self.expand(task).await?,
                Action::Assemble { task, cached } => self.assemble(task, cached).await?,
                Action::Look { units } => self.look(&units).await?,
                Action::Start { unit, attempt, because } => {
                    self.why.insert(unit, because);
                    let task = self.name(self.flow.task_of(unit));
                    let item = self.flow.item_name(unit).cloned();
                    self.tell(unit, EventKind::TaskStarted { task, item, attempt, because });
                }
                Action::End { .. } => return Ok(()),
                Action::Invalidate { .. }
                | Action::Defer { .. }
                | Action::Prepare { .. }
                | Action::CancelRunning => {}
            }
        }
        Ok(())
    }

    fn name(&self, task: TaskIndex) -> Name {
        self.graph.name(task).clone()
    }

    fn tell(&mut self, unit: Unit, kind: EventKind) {
        self.flow.apply_to(Some(unit), &Event { seq: 0, at: Timestamp::default(), kind });
    }

    fn found(&mut self, unit: Unit, execution: Option<ExecutionId>, output: ObjectRef, cached: bool) {
        let task = self.flow.task_of(unit);
        let item = self.flow.item_name(unit).cloned();
        if item.is_none() {
            self.hits.insert(task, execution);
        }
        let (task, because, took_ms, superseded) = (self.name(task), None, 0, false);
        let event =
            EventKind::TaskCompleted { task, item, execution, output, cached, because, took_ms, superseded };
        self.tell(unit, event);
    }

    async fn look(&mut self, units: &[Unit]) -> Result<(), StorageError> {
        let key = |unit: &Unit| {
            let (task, inputs) = self.flow.key(*unit);
            ExecutionKey::new(task, &inputs)
        };
        let keys: Vec<_> = units.iter().map(key).collect();
        for (&unit, answer) in units.iter().zip(lookup_many(self.storage, &keys).await?) {
            match answer {
                Lookup::Hit(TaskResult { outcome: Ok(output), execution, .. }) => {
                    self.found(unit, execution, output, true);
                }
                Lookup::Miss(because) => self.flow.missed(unit, because),
                Lookup::Hit(_) => {}
            }
        }
        Ok(())
    }

    async fn expand(&mut self, task: TaskIndex) -> Result<(), StorageError> {
        let Some((object, folder)) = self.flow.folder_of(task) else { return Ok(()) };
        match entries::entries(self.storage, object, folder).await? {
            Ok(found) => self.flow.expand(task, found.items),
            Err(failure) => {
                self.errors.insert(task, failure.to_string());
                let (item, execution, attempt, superseded) = (None, None, 1, false);
                let event = EventKind::TaskFailed {
                    task: self.name(task),
                    item,
                    attempt,
                    execution,
                    failure,
                    superseded,
                };
                self.tell(task.into(), event);
            }
        }
        Ok(())
    }

    async fn assemble(&mut self, task: TaskIndex, cached: bool) -> Result<(), StorageError> {
        let (Some(outputs), Some((object, folder))) =
            (self.flow.item_outputs(task), self.flow.folder_of(task))
        else {
            return Ok(());
        };
        if let Ok(found) = entries::entries(self.storage, object, folder).await? {
            let output = ObjectRef::of(&entries::folder(outputs, found.output));
            self.found(task.into(), None, output, cached);
        }
        Ok(())
    }

    fn plan(&self) -> Plan {
        let known =
            |unit: Unit| self.why.contains_key(&unit) || matches!(self.flow.state(unit), UnitState::Done(_));
        let tasks = self.graph.in_order().map(|task| {
            let unit = Unit::from(task);
            let mut entry_keys = BTreeMap::new();
            let entries = self.flow.entries_of(task).map(|units| {
                for unit in &units {
                    entry_keys.extend(
                        self.flow.item_name(*unit).map(|name| (Arc::clone(name), self.flow.key(*unit))),
                    );
                }
                let run = units
                    .iter()
                    .filter_map(|unit| Some((Arc::clone(self.flow.item_name(*unit)?), *self.why.get(unit)?)));
                EntriesPlan::Known { total: units.len() as u64, run: run.collect() }
            });
            let decision = match self.flow.state(unit) {
                UnitState::Done(output) => {
                    Decision::Cached { execution: self.hits.get(&task).copied().flatten(), output }
                }
                UnitState::Skipped(SkipReason::Unassigned { dataset }) => Decision::Blocked { dataset },
                UnitState::Skipped(SkipReason::Failed { task }) => Decision::Depends { on: vec![task] },
                UnitState::Failed => {
                    Decision::Error { message: self.errors.get(&task).cloned().unwrap_or_default() }
                }
                _ => match (self.why.get(&unit), &entries) {
                    (Some(&because), _) => Decision::Run { because },
                    (None, Some(EntriesPlan::Known { run, .. })) => {
                        Decision::Run { because: run.values().next().copied().unwrap_or(RunReason::NoResult) }
                    }
                    // What the cache is not asked about runs, whatever comes before it.
                    _ if self.flow.uncached(unit).is_some() => {
                        Decision::Run { because: self.flow.uncached(unit).unwrap_or(RunReason::Forced) }
                    }
                    _ => {
                        let mut on: Vec<_> = self
                            .graph
                            .dependencies(task)
                            .filter(|dependency| {
                                !matches!(self.flow.state((*dependency).into()), UnitState::Done(_))
                            })
                            .map(|dependency| self.name(dependency))
                            .collect();
                        on.sort_unstable();
                        on.dedup();
                        Decision::Depends { on }
                    }
                },
            };
            let is_map = self.graph.each(task).is_some();
            let open = matches!(decision, Decision::Depends { .. } | Decision::Run { .. });
            let entries = entries.or_else(|| (is_map && open).then_some(EntriesPlan::Unknown));
            let key = (known(unit)
                || entries.as_ref().is_some_and(|entries| *entries != EntriesPlan::Unknown))
            .then(|| self.flow.key(unit));
            PlannedTask { task: self.name(task), decision, entries, key, entry_keys }
        });
        Plan { tasks: tasks.collect() }
    }
}
