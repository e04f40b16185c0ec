//! What a run is given, and what it comes to.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::Arc,
};

use e3_types::{
    DatasetPath, ErrorClass, ExecutionId, Failure, Name, ObjectRef, Package, RunId, RunReason, RunState,
    RunSummary, WorkspaceName,
};

use super::{pattern::NamePattern, standing::Standing};
use crate::{
    Cancellation, Clock, EventSink, Holder, NoEvents, PackageError, RunOptions, StorageError, TaskRunner,
    WorkspaceError,
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
    /// How many cores the running tasks may use together; a task uses one unless it says more.
    pub slots: NonZeroUsize,
    /// How much of other resources the running tasks may use together. One that is not named is not limited.
    pub limits: BTreeMap<Name, u64>,
    /// What a failure means for the others.
    pub on_failure: OnFailure,
    /// Which results are not to be taken from the cache.
    pub force: Force,
    /// Which tasks; all if there is none.
    pub targets: Vec<NamePattern>,
    /// Cancel what runs on inputs that have changed meanwhile, instead of letting it end.
    pub restart_on_change: bool,
    /// The id of the run; a new one is drawn if there is none.
    pub run: Option<RunId>,
    /// How to stop the run.
    pub cancellation: Cancellation,
    /// A package that the caller has in memory: if it is what is deployed, it is not read again.
    pub package: Option<(ObjectRef, Package)>,
    /// The same of what stands of the last complete run.
    pub standing: Option<Box<Standing>>,
}

/// What decides the course of a run beside the graph.
#[derive(Debug, Clone)]
pub struct DataflowPolicy {
    /// How many cores the running tasks may use together; a task uses one unless it says more.
    pub slots: NonZeroUsize,
    /// How much of other resources the running tasks may use together. One that is not named is not limited.
    pub limits: BTreeMap<Name, u64>,
    /// What a failure means for the others.
    pub on_failure: OnFailure,
}

/// What happens to the other tasks when one has failed. Its dependents are skipped in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// What runs is finished, nothing new is started.
    #[default]
    Finish,
    /// Everything that can be run is run.
    KeepGoing,
    /// What runs is cancelled.
    Cancel,
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
    /// The last operation of the workspace that the run has taken in.
    pub operation: u64,
    /// The run that was found dead before this one began, if there was one.
    pub lost: Option<RunId>,
}

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The task.
    pub task: Name,
    /// The entry, for a task that runs once per entry.
    pub item: Option<Arc<str>>,
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
    /// A task that runs once per entry has no such entry.
    #[error("task `{task}` has no entry `{item}` in the folder that it runs for")]
    NoEntry {
        /// The task.
        task: Name,
        /// The name of the entry.
        item: String,
    },
    /// The storage failed in the middle. What was finished before is kept.
    #[error("run {run} was given up: {source}")]
    Interrupted {
        /// The run.
        run: RunId,
        /// What failed.
        source: StorageError,
    },
    /// A task needs more of a resource than there is.
    #[error("task `{task}` needs {needs} of `{resource}`, but the limit is {limit}: it could never run")]
    Unsatisfiable {
        /// The task.
        task: Name,
        /// The resource.
        resource: Name,
        /// How much it needs.
        needs: u64,
        /// How much there is.
        limit: u64,
    },
}

impl DataflowError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Workspace(error) => error.class(),
            Self::Package(error) => error.class(),
            Self::NoMatch { .. } | Self::NoEntry { .. } | Self::Unsatisfiable { .. } => ErrorClass::User,
            Self::Interrupted { source, .. } => source.class(),
        }
    }
}

impl Force {
    /// What a flag with or without a pattern means.
    pub fn from_option(option: Option<Option<NamePattern>>) -> Self {
        match option {
            None => Self::Nothing,
            Some(None) => Self::Everything,
            Some(Some(pattern)) => Self::Matching(vec![pattern]),
        }
    }

    /// Why the cache is not asked about a task, if it is not.
    pub(crate) fn reason(&self, task: &Name) -> Option<RunReason> {
        let forced = match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(task)),
        };
        forced.then_some(RunReason::Forced)
    }
}

impl DataflowOptions {
    /// All tasks, from the cache where it can answer, without limits but the number of slots; nobody looks on.
    pub fn new(
        runner: Arc<dyn TaskRunner>,
        clock: Arc<dyn Clock>,
        holder: Holder,
        slots: NonZeroUsize,
    ) -> Self {
        Self {
            runner,
            clock,
            holder,
            events: Arc::new(NoEvents),
            slots,
            limits: BTreeMap::new(),
            on_failure: OnFailure::default(),
            force: Force::default(),
            targets: Vec::new(),
            restart_on_change: false,
            run: None,
            cancellation: Cancellation::default(),
            package: None,
            standing: None,
        }
    }

    /// What is recorded of them.
    pub(super) fn record(&self) -> RunOptions {
        RunOptions {
            targets: self.targets.iter().map(ToString::to_string).collect(),
            force: match &self.force {
                Force::Nothing => Vec::new(),
                Force::Everything => vec!["*".to_owned()],
                Force::Matching(patterns) => patterns.iter().map(ToString::to_string).collect(),
            },
            slots: self.slots.get(),
        }
    }
}
