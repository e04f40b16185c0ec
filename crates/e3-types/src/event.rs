//! `Event`: what a run tells. The events of a run are the truth about it; every other view is made from them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    DatasetPath, ExecutionId, Failure, Hash, Name, ObjectRef, RunId, RunState, Timestamp, WorkspaceName,
};

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the run: 0, 1, 2, ... without a gap.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The first event.
    RunStarted {
        /// The run.
        run: RunId,
        /// Where it runs.
        workspace: WorkspaceName,
        /// The package object that is deployed there.
        package: Hash,
        /// How many tasks were selected.
        total: u64,
        /// How many of them have a result already that nothing has happened to since the last complete run. There is no other
        /// event about these, unless an input changes that they come from.
        #[serde(default, skip_serializing_if = "no_task")]
        standing: u64,
    },
    /// An input has another value than the run knew, or none any more.
    InputChanged {
        /// The input.
        dataset: DatasetPath,
        /// Its value now.
        object: Option<ObjectRef>,
    },
    /// What is known of a task came from an input that has changed: it goes back to waiting. If it runs, it is finished,
    /// but its result is not published.
    TaskInvalidated {
        /// The task.
        task: Name,
        /// The input.
        because: DatasetPath,
    },
    /// A task could start, but its inputs were derived from two versions of a root input: it waits until they agree.
    TaskDeferred {
        /// The task.
        task: Name,
        /// The root input.
        because: DatasetPath,
    },
    /// A task that runs once per entry of a folder has learnt which entries there are.
    TaskExpanded {
        /// The task.
        task: Name,
        /// The number of entries.
        items: u64,
    },
    /// A task was handed to the runner.
    TaskStarted {
        /// The task.
        task: Name,
        /// The entry that it is about, for a task that runs once per entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Arc<str>>,
        /// 1 for the first attempt.
        attempt: u32,
        /// Why the cache could not answer.
        because: RunReason,
    },
    /// An attempt failed and another one follows.
    AttemptFailed {
        /// The task.
        task: Name,
        /// The entry that it is about, for a task that runs once per entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Arc<str>>,
        /// Which attempt, from 1.
        attempt: u32,
        /// The execution of this attempt.
        execution: ExecutionId,
        /// What went wrong.
        failure: Failure,
        /// How long until the next attempt, in milliseconds.
        retry_in_ms: u64,
    },
    /// A task has its output.
    TaskCompleted {
        /// The task.
        task: Name,
        /// The entry that it is about, for a task that runs once per entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Arc<str>>,
        /// The execution that made the output, now or earlier. None for the folder of all outputs of a task that runs
        /// once per entry: each entry has its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        execution: Option<ExecutionId>,
        /// The output.
        output: ObjectRef,
        /// Whether an earlier execution answered.
        cached: bool,
        /// Why the cache could not answer, where it could not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<RunReason>,
        /// How long the execution that made the output took, in milliseconds.
        took_ms: u64,
        /// Its inputs have changed meanwhile: the result is kept for later, but is not the output now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        superseded: bool,
    },
    /// A task will not have its output in this run.
    TaskFailed {
        /// The task.
        task: Name,
        /// The entry that it is about, for a task that runs once per entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Arc<str>>,
        /// The last attempt, from 1.
        attempt: u32,
        /// Its execution; none if it never came to one.
        execution: Option<ExecutionId>,
        /// What went wrong.
        failure: Failure,
        /// Its inputs have changed meanwhile: it will be tried again on those of now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        superseded: bool,
    },
    /// Something that the user of a task should know, beside how it ended.
    TaskNoted {
        /// The task.
        task: Name,
        /// The entry that it is about, for a task that runs once per entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Arc<str>>,
        /// What was found and mended, cut or ended.
        note: String,
    },
    /// An output that something needs is no longer in the store whole: the task that made it is executed again. What it
    /// makes is the same, so nothing else is decided anew.
    OutputRebuilt {
        /// The task.
        task: Name,
        /// The entry that it is about, for a task that runs once per entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Arc<str>>,
        /// The execution that made it again.
        execution: ExecutionId,
        /// The object that was found missing.
        missing: Hash,
        /// How long that took, in milliseconds.
        took_ms: u64,
    },
    /// A task cannot run because of something before it.
    TaskSkipped {
        /// The task.
        task: Name,
        /// What stands in the way.
        because: SkipReason,
    },
    /// The last event: nothing more will happen.
    RunEnded {
        /// `Completed`, `Failed` or `Cancelled`.
        state: RunState,
        /// The totals.
        summary: RunSummary,
    },
}

/// Why a task was executed although there is a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunReason {
    /// This command has not yet succeeded on these inputs.
    NoResult,
    /// The newest execution of this command on these inputs did not succeed.
    LastFailed,
    /// It has succeeded before, but the output is no longer in the store.
    OutputMissing,
    /// Asked for with `--force`.
    Forced,
    /// The task is declared with `cache = false`.
    NeverCached,
}

/// Why a task cannot run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum SkipReason {
    /// It needs, directly or not, the output of a task that failed.
    Failed {
        /// The task that failed.
        task: Name,
    },
    /// It needs, directly or not, an input that has no value: the task is *blocked*.
    Unassigned {
        /// The input.
        dataset: DatasetPath,
    },
}

/// The totals of a run, in tasks unless said otherwise. Each entry of a task that runs once per entry counts as a task,
/// and that task itself does not, as soon as the entries are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunSummary {
    /// Selected.
    pub total: u64,
    /// Executed with success.
    pub executed: u64,
    /// Answered by the cache.
    pub cached: u64,
    /// Failed or erred.
    pub failed: u64,
    /// Skipped behind a failed task.
    pub skipped: u64,
    /// Blocked behind an unassigned input.
    pub blocked: u64,
    /// Completed, but not for good: an input changed meanwhile, so they were decided again.
    pub reexecuted: u64,
    /// How long the executions took that the cache made unnecessary, in milliseconds.
    pub saved_ms: u64,
    /// From start to end of the run, in milliseconds.
    pub wall_ms: u64,
}

/// Whether a number of tasks need not be written down.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn no_task(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_flat_json_with_stable_names() {
        let event = Event {
            seq: 3,
            at: Timestamp::from_unix_ms(1_700_000_000_000),
            kind: EventKind::TaskSkipped {
                task: "report".parse().unwrap(),
                because: SkipReason::Failed { task: "stats".parse().unwrap() },
            },
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"seq":3,"at":1700000000000,"event":"task_skipped","task":"report","because":{"cause":"failed","task":"stats"}}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
