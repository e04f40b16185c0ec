//! `TaskRunner`: something that can execute a task. The seam that takes a dataflow from a laptop to a cluster.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use e3_types::{ExecutionId, Failure, Hash, ObjectRef, Sandbox, TaskLimits};
use tokio_util::sync::CancellationToken;

use super::{Gate, Lease, RefChange, RefError, StorageBackend};

/// Executes tasks.
///
/// * The same task on the same inputs has one identity, whoever runs it: implementations look results up and record
///   them with `perform`, which is written once.
/// * A task that fails is a result, and so is a storage that fails: there is no other channel for bad news.
/// * Concurrency: any number of calls at once; limits are the caller's business, or a wrapper's.
/// * Cancellation: through the options; the call still returns, soon, with `Failure::Cancelled`. A dropped future
///   leaves no process behind; its execution may stay recorded as running until somebody finds its owner dead.
/// * What is asked for ahead of its time waits at its gate: until that is open, a runner may get ready for it, as far as that
///   is soon done and undone, but takes no lease, records nothing, and returns only if it is cancelled.
#[async_trait]
pub trait TaskRunner: Send + Sync {
    /// Executes the task object `task` on input objects in the task's order, or finds that it was done before.
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult;
}

/// How one task is to be executed. Nothing here changes what it computes.
#[derive(Clone, Default)]
pub struct TaskExecuteOptions {
    /// What it is called, for the record: `WORKSPACE/TASK`, with `[ENTRY]` for one of many.
    pub label: String,
    /// Execute even if the result is known.
    pub force: bool,
    /// Which attempt this is, from 1; 0 counts as 1.
    pub attempt: u32,
    /// The longest that it may take.
    pub timeout: Option<Duration>,
    /// What it may use at most.
    pub limits: TaskLimits,
    /// What it may see.
    pub sandbox: Sandbox,
    /// Leave it to the caller to write what there is to record, together with what the caller has to write.
    pub defer_records: bool,
    /// How to stop it.
    pub cancellation: Cancellation,
    /// What it has to wait for, if it is asked for ahead of its time.
    pub gate: Option<Gate>,
    /// Told when it uses no more of what it was given room for: what is left is to store what it has made.
    pub released: Option<Released>,
    /// Sees standard output as it comes, beside the log.
    pub stdout: Option<OutputSink>,
    /// Sees standard error as it comes, beside the log.
    pub stderr: Option<OutputSink>,
}

impl TaskExecuteOptions {
    /// Whether it is time to execute.
    pub fn is_time(&self) -> bool {
        self.gate.as_ref().is_none_or(Gate::is_open)
    }

    /// Waits until it is time to execute; false if it is cancelled before.
    pub async fn time_comes(&self) -> bool {
        match &self.gate {
            None => true,
            Some(gate) => tokio::select! {
                biased;
                () = self.cancellation.requested() => false,
                () = gate.opened() => true,
            },
        }
    }
}

/// Told at most once, by a runner that can tell, and not of a process that has failed; says whether anything waits for the room.
/// It must not block.
pub type Released = Arc<dyn Fn() -> bool + Send + Sync>;

/// Sees output as it comes. It must not block.
pub type OutputSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The two ways to ask for an end.
#[derive(Debug, Clone, Default)]
pub struct Cancellation {
    /// Stop politely: processes get SIGTERM and time to clean up.
    pub stop: CancellationToken,
    /// Stop at once.
    pub kill: CancellationToken,
}

impl Cancellation {
    /// A cancellation that follows this one and can also be used on its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { stop: self.stop.child_token(), kill: self.kill.child_token() }
    }

    /// Whether an end was asked for.
    pub fn is_requested(&self) -> bool {
        self.stop.is_cancelled() || self.kill.is_cancelled()
    }

    /// Returns when an end is asked for, either way.
    pub async fn requested(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.kill.cancelled() => {}
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskResult {
    /// The output, or why there is none.
    pub outcome: Result<ObjectRef, Failure>,
    /// Whether an earlier execution answered.
    pub cached: bool,
    /// The execution that made the output or failed; none if it never came to one.
    pub execution: Option<ExecutionId>,
    /// How long that execution took, in milliseconds.
    pub took_ms: u64,
    /// What its user should know beside that: what was found and mended, cut or ended. Whole sentences without a full stop.
    pub notes: Vec<String>,
    /// What the caller has to write, if it has asked for that.
    pub uncommitted: Uncommitted,
}

impl TaskResult {
    /// It never came to an execution.
    pub fn without_execution(failure: Failure) -> Self {
        Self {
            outcome: Err(failure),
            cached: false,
            execution: None,
            took_ms: 0,
            notes: Vec::new(),
            uncommitted: Uncommitted::default(),
        }
    }
}

/// Records that are still to be written. Until then nobody else executes the same: the lease is in here.
#[derive(Debug, Clone, Default)]
pub struct Uncommitted {
    pub(crate) changes: Vec<RefChange>,
    pub(crate) lease: Option<Arc<Lease>>,
}

impl Uncommitted {
    /// Writes them by themselves, and lets others have the lease.
    pub async fn write(self, storage: &dyn StorageBackend) -> Result<(), RefError> {
        let Self { changes, lease } = self;
        storage.refs().write(changes).await?;
        drop(lease);
        Ok(())
    }
}

impl PartialEq for Uncommitted {
    /// A lease says nothing about what came of an execution.
    fn eq(&self, other: &Self) -> bool {
        self.changes == other.changes
    }
}

impl Eq for Uncommitted {}
