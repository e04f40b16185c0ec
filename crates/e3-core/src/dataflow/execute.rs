//! `dataflow_execute`: the loop that drives a `Dataflow` with a runner and a storage, both given from outside.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use e3_types::{
    DatasetPath, ErrorClass, Event, EventKind, ExecutionId, Failure, Name, ObjectRef, Package, RunId,
    RunReason, RunState, RunSummary, SkipReason, Timestamp, VectorConflict, WorkspaceName,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    graph::{Graph, TaskIndex},
    journal::{self, Entry},
    pattern::NamePattern,
    publish::Publisher,
    state::{Action, Dataflow, DataflowPolicy, OnFailure},
};
use crate::{
    Cancellation, Clock, EventSink, ExecutionKey, Holder, Lookup, PackageError, RefChange, RunRecord,
    StorageBackend, StorageError, TaskExecuteOptions, TaskResult, TaskRunner, WorkspaceError, WorkspaceLease,
    datasets, lookup_many, packages, runs, workspaces,
};

/// Everything that a run needs beside the storage and the workspace.
#[derive(Clone)]
pub struct DataflowOptions {
    /// What executes the tasks.
    pub runner: Arc<dyn TaskRunner>,
    /// Time and ids.
    pub clock: Arc<dyn Clock>,
    /// On whose behalf.
    pub holder: Holder,
    /// Where the events are shown.
    pub events: Arc<dyn EventSink>,
    /// How many tasks may run at once.
    pub slots: NonZeroUsize,
    /// What a failure means for the others.
    pub on_failure: OnFailure,
    /// Which results are not to be taken from the cache.
    pub force: Force,
    /// Which tasks; all if there is none.
    pub targets: Vec<NamePattern>,
    /// How to stop the run.
    pub cancellation: Cancellation,
}

/// Which tasks are executed although their result may be known.
#[derive(Debug, Clone, Default)]
pub enum Force {
    /// None.
    #[default]
    Nothing,
    /// All that are selected.
    Everything,
    /// Those that a pattern means.
    Matching(Vec<NamePattern>),
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// Where it ran.
    pub workspace: WorkspaceName,
    /// `Completed`, `Failed` or `Cancelled`.
    pub state: RunState,
    /// The totals.
    pub summary: RunSummary,
    /// The tasks that failed, in the order in which they did.
    pub failures: Vec<TaskFailure>,
    /// The inputs without a value that something was blocked by.
    pub unassigned: BTreeSet<DatasetPath>,
    /// The run that was found dead before this one began, if there was one.
    pub lost: Option<RunId>,
}

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The task.
    pub task: Name,
    /// The last attempt, from 1.
    pub attempt: u32,
    /// Its execution; none if it never came to one.
    pub execution: Option<ExecutionId>,
    /// What went wrong.
    pub failure: Failure,
}

/// Why a run could not be carried out. A run with failed tasks is not one of these.
#[derive(Debug, thiserror::Error)]
pub enum DataflowError {
    /// Nothing deployed, or held by somebody else.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The package that is deployed cannot be used.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A pattern means no task.
    #[error("no task matches `{pattern}`{}", similar.as_ref().map(|name| format!(": did you mean `{name}`?")).unwrap_or_default())]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// The most similar name, where the caller knows one.
        similar: Option<String>,
    },
    /// The storage failed in the middle. What was finished before is kept.
    #[error("run {run} was given up: {source}")]
    Interrupted {
        /// The run.
        run: RunId,
        /// What failed.
        source: StorageError,
    },
    /// A defect.
    #[error("run {run} was given up: {source}; please report this as a defect of e3")]
    Inconsistent {
        /// The run.
        run: RunId,
        /// What should not have been possible.
        source: VectorConflict,
    },
}

impl DataflowError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Workspace(error) => error.class(),
            Self::Package(error) => error.class(),
            Self::NoMatch { .. } => ErrorClass::User,
            Self::Interrupted { source, .. } => source.class(),
            Self::Inconsistent { .. } => ErrorClass::Internal,
        }
    }
}

/// Executes what is deployed in a workspace until nothing is left to do.
pub async fn dataflow_execute(
    storage: Arc<dyn StorageBackend>,
    workspace: &WorkspaceName,
    options: DataflowOptions,
) -> Result<RunReport, DataflowError> {
    let lease = WorkspaceLease::acquire(&*storage, workspace, &options.holder).await?;
    dataflow_execute_held(storage, &lease, options).await
}

/// The same for a caller who holds the workspace already.
pub async fn dataflow_execute_held(
    storage: Arc<dyn StorageBackend>,
    lease: &WorkspaceLease,
    options: DataflowOptions,
) -> Result<RunReport, DataflowError> {
    let workspace = lease.workspace();
    let lost = runs::settle_lost(&*storage, &*options.clock, workspace, Some(lease))
        .await
        .map_err(WorkspaceError::from)?;
    let deployed = workspaces::find(&*storage, workspace).await?;
    let package = packages::load(&*storage, deployed.package).await?;
    let no_match =
        |pattern: NamePattern| DataflowError::NoMatch { pattern: pattern.to_string(), similar: None };
    let selected = NamePattern::select(&options.targets, &package).map_err(no_match)?;
    if let Force::Matching(patterns) = &options.force {
        NamePattern::select(patterns, &package).map_err(no_match)?;
    }
    let graph =
        Graph::new(&selected).map_err(|source| PackageError::Graph { name: package.name.clone(), source })?;

    let mut record = RunRecord {
        run: options.clock.new_run(),
        workspace: workspace.clone(),
        package: deployed.package,
        state: RunState::Running,
        started: options.clock.now(),
        ended: None,
        summary: None,
        owner: options.holder.clone(),
    };
    let interrupted = |run, source| DataflowError::Interrupted { run, source };
    runs::record_start(&*storage, &record).await.map_err(|error| interrupted(record.run, error.into()))?;
    let report = drive(&storage, &package, graph, &mut record, &options).await?;
    Ok(RunReport { lost, ..report })
}

/// Runs the loop and the journal side by side, so that neither outlives the other.
async fn drive(
    storage: &Arc<dyn StorageBackend>,
    package: &Package,
    graph: Graph,
    record: &mut RunRecord,
    options: &DataflowOptions,
) -> Result<RunReport, DataflowError> {
    let run = record.run;
    let values = datasets::read_all(storage.refs(), &record.workspace)
        .await
        .map_err(|error| DataflowError::Interrupted { run, source: error.into() })?;
    let graph = Arc::new(graph);
    let policy = DataflowPolicy { slots: options.slots, on_failure: options.on_failure };
    let root = |path: &DatasetPath| values.get(path).map(|value| value.object);
    let forced = |name: &Name| {
        let forced = match &options.force {
            Force::Nothing => false,
            Force::Everything => true,
            Force::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        };
        forced.then_some(RunReason::Forced)
    };
    let flow = Dataflow::new(&graph, policy, root, forced);
    let (journal, entries) = mpsc::channel(journal::CAPACITY);
    let orchestrator = Orchestrator {
        storage,
        options,
        publisher: Publisher::new(Arc::clone(&graph), record.workspace.clone(), values),
        record,
        package: package.name.clone(),
        flow,
        graph,
        journal,
        seq: 0,
        work: JoinSet::new(),
        numbers: HashMap::new(),
        running: Cancellation::child(&options.cancellation),
        failures: Vec::new(),
        unassigned: BTreeSet::new(),
    };
    let (ended, kept) =
        tokio::join!(orchestrator.run(), journal::keep(&**storage, run, entries, &*options.events));
    // If the journal failed, the loop only noticed that nobody listens any more.
    kept.map_err(|source| DataflowError::Interrupted { run, source })?;
    ended
}

/// What a spawned piece of work reports.
enum Report {
    Result { attempt: u32, result: TaskResult },
    RetryIsDue,
}

struct Orchestrator<'a> {
    storage: &'a Arc<dyn StorageBackend>,
    options: &'a DataflowOptions,
    record: &'a mut RunRecord,
    package: e3_types::PackageName,
    graph: Arc<Graph>,
    flow: Dataflow,
    publisher: Publisher,
    journal: mpsc::Sender<Entry>,
    seq: u64,
    work: JoinSet<Report>,
    numbers: HashMap<tokio::task::Id, TaskIndex>,
    running: Cancellation,
    failures: Vec<TaskFailure>,
    unassigned: BTreeSet<DatasetPath>,
}

impl Orchestrator<'_> {
    async fn run(mut self) -> Result<RunReport, DataflowError> {
        let result = self.run_to_the_end().await;
        if result.is_err() {
            // Whatever went wrong, no task is left behind.
            self.running.kill.cancel();
            while self.work.join_next().await.is_some() {}
        }
        result
    }

    async fn run_to_the_end(&mut self) -> Result<RunReport, DataflowError> {
        let started = EventKind::RunStarted {
            run: self.record.run,
            workspace: self.record.workspace.clone(),
            package: self.record.package.hash,
            total: self.graph.len() as u64,
        };
        self.happened(started, Vec::new()).await?;
        loop {
            if self.options.cancellation.is_requested() {
                self.flow.cancel();
            }
            match self.flow.next() {
                None => self.wait().await?,
                Some(Action::Skip { task, because }) => self.skip(task, because).await?,
                Some(Action::Look { tasks }) => self.look(&tasks).await?,
                Some(Action::Start { task, attempt, because }) => self.start(task, attempt, because).await?,
                Some(Action::CancelRunning) => {
                    self.running.stop.cancel();
                    self.flow.running_was_cancelled();
                }
                Some(Action::End { state }) => return self.end(state).await,
            }
        }
    }

    /// Applies an event and hands it to the journal.
    async fn happened(&mut self, kind: EventKind, changes: Vec<RefChange>) -> Result<(), DataflowError> {
        let event = Event { seq: self.seq, at: self.options.clock.now(), kind };
        self.seq += 1;
        self.flow.apply(&event);
        self.journal.send(Entry { event, changes }).await.map_err(|_| {
            self.interrupted(StorageError::Unavailable(crate::Unavailable::new(
                "writing the events of the run",
                "the journal has stopped",
            )))
        })
    }

    fn interrupted(&self, source: StorageError) -> DataflowError {
        DataflowError::Interrupted { run: self.record.run, source }
    }

    async fn skip(&mut self, task: TaskIndex, because: SkipReason) -> Result<(), DataflowError> {
        if let SkipReason::Unassigned { dataset } = &because {
            self.unassigned.insert(dataset.clone());
        }
        let task = self.graph.name(task).clone();
        self.happened(EventKind::TaskSkipped { task, because }, Vec::new()).await
    }

    async fn look(&mut self, tasks: &[TaskIndex]) -> Result<(), DataflowError> {
        let key = |&task| ExecutionKey::new(self.graph.node(task).task, &self.flow.inputs(task));
        let keys: Vec<_> = tasks.iter().map(key).collect();
        let answers = lookup_many(&**self.storage, &keys).await.map_err(|error| self.interrupted(error))?;
        for (&task, answer) in tasks.iter().zip(answers) {
            match answer {
                Lookup::Miss(because) => self.flow.missed(task, because),
                Lookup::Hit(TaskResult {
                    outcome: Ok(output), execution: Some(execution), took_ms, ..
                }) => {
                    self.completed(task, execution, output, true, took_ms).await?;
                }
                Lookup::Hit(_) => self.flow.missed(task, RunReason::NoResult),
            }
        }
        Ok(())
    }

    async fn start(
        &mut self,
        index: TaskIndex,
        attempt: u32,
        because: RunReason,
    ) -> Result<(), DataflowError> {
        let task = self.graph.name(index).clone();
        tracing::debug!(package = %self.package, task = %task, attempt, "starting");
        let node = self.graph.node(index);
        let (object, timeout) = (node.task, node.policy.timeout_ms.map(Duration::from_millis));
        let inputs = self.flow.inputs(index);
        let options = TaskExecuteOptions {
            force: self.flow.is_uncached(index),
            attempt,
            timeout,
            cancellation: self.running.child(),
            stdout: None,
            stderr: None,
        };
        self.happened(EventKind::TaskStarted { task, attempt, because }, Vec::new()).await?;
        let (runner, storage) = (Arc::clone(&self.options.runner), Arc::clone(self.storage));
        let handle = self.work.spawn(async move {
            Report::Result { attempt, result: runner.execute(&*storage, object, &inputs, options).await }
        });
        self.numbers.insert(handle.id(), index);
        Ok(())
    }

    /// Waits until a task ends, a retry is due, or the run is to stop.
    async fn wait(&mut self) -> Result<(), DataflowError> {
        let cancellation = self.options.cancellation.clone();
        let joined = tokio::select! {
            biased;
            joined = self.work.join_next_with_id() => joined,
            () = cancellation.requested(), if !self.flow.is_cancelled() => return Ok(()),
            () = self.journal.closed() => None,
        };
        let Some(joined) = joined else {
            let lost = crate::Unavailable::new("waiting for the run", "its journal has stopped");
            return Err(self.interrupted(lost.into()));
        };
        let (id, report) = match joined {
            Ok((id, report)) => (id, report),
            Err(error) => (error.id(), panicked(&error)),
        };
        let index = self.numbers.remove(&id).expect("every piece of work is numbered when it is spawned");
        match report {
            Report::RetryIsDue => self.flow.retry_is_due(index),
            Report::Result { attempt, result } => self.finished(index, attempt, result).await?,
        }
        Ok(())
    }

    async fn finished(
        &mut self,
        index: TaskIndex,
        attempt: u32,
        result: TaskResult,
    ) -> Result<(), DataflowError> {
        let TaskResult { outcome, cached, execution, took_ms } = result;
        let failure = match (outcome, execution) {
            (Ok(output), Some(execution)) => {
                return self.completed(index, execution, output, cached, took_ms).await;
            }
            (Ok(_), None) => Failure::Error {
                class: ErrorClass::Internal,
                message: "the runner reported an output without the execution that made it".to_owned(),
            },
            (Err(failure), _) => failure,
        };
        let task = self.graph.name(index).clone();
        let retries = self.graph.node(index).policy.retries.as_ref();
        let wait = retries.and_then(|retry| retry.wait_after(attempt, &failure));
        if let Some(retry_in_ms) = wait.filter(|_| !self.flow.is_stopping())
            && let Some(execution) = execution
        {
            let event = EventKind::AttemptFailed { task, attempt, execution, failure, retry_in_ms };
            self.happened(event, Vec::new()).await?;
            let handle = self.work.spawn(async move {
                tokio::time::sleep(Duration::from_millis(retry_in_ms)).await;
                Report::RetryIsDue
            });
            self.numbers.insert(handle.id(), index);
            return Ok(());
        }
        if failure != Failure::Cancelled {
            let (task, failure) = (task.clone(), failure.clone());
            self.failures.push(TaskFailure { task, attempt, execution, failure });
        }
        self.happened(EventKind::TaskFailed { task, attempt, execution, failure }, Vec::new()).await
    }

    async fn completed(
        &mut self,
        index: TaskIndex,
        execution: ExecutionId,
        output: ObjectRef,
        cached: bool,
        took_ms: u64,
    ) -> Result<(), DataflowError> {
        let run = self.record.run;
        let now: Timestamp = self.options.clock.now();
        let change = self
            .publisher
            .completed(index, output, now)
            .map_err(|source| DataflowError::Inconsistent { run, source })?;
        let task = self.graph.name(index).clone();
        let event = EventKind::TaskCompleted { task, execution, output, cached, took_ms };
        self.happened(event, change.into_iter().collect()).await
    }

    async fn end(&mut self, state: RunState) -> Result<RunReport, DataflowError> {
        // Only waits for a next attempt can be left.
        self.work.shutdown().await;
        let now = self.options.clock.now();
        let summary = self.flow.summary(now);
        self.record.state = state;
        self.record.ended = Some(now);
        self.record.summary = Some(summary);
        let changes = runs::end(self.record).to_vec();
        self.happened(EventKind::RunEnded { state, summary }, changes).await?;
        Ok(RunReport {
            run: self.record.run,
            workspace: self.record.workspace.clone(),
            state,
            summary,
            failures: std::mem::take(&mut self.failures),
            unassigned: std::mem::take(&mut self.unassigned),
            lost: None,
        })
    }
}

/// A runner that panics has a defect; the run goes on and says so.
fn panicked(error: &tokio::task::JoinError) -> Report {
    let message = format!("the runner panicked: {error}; please report this as a defect of e3");
    let failure = Failure::Error { class: ErrorClass::Internal, message };
    let result = TaskResult { outcome: Err(failure), cached: false, execution: None, took_ms: 0 };
    Report::Result { attempt: 1, result }
}
