//! The end of a run: one line of totals, then each failure with what to do next; or one JSON document.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anstyle::{AnsiColor, Style};
use e3_types::{
    ExecutionId, ExecutionState, Failure, Name, RunId, RunReason, RunState, RunSummary, WorkspaceName,
};
use serde::Serialize;

use crate::human_duration;

const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();

/// The line of totals.
pub fn totals(state: RunState, summary: &RunSummary) -> String {
    let tasks = if summary.total == 1 { "1 task".to_owned() } else { format!("{} tasks", summary.total) };
    let mut parts = vec![format!("{} ran", summary.executed), format!("{} cached", summary.cached)];
    let over = summary.executed + summary.cached + summary.failed + summary.skipped + summary.blocked;
    for (count, word) in [
        (summary.failed, "failed"),
        (summary.skipped, "skipped"),
        (summary.blocked, "blocked"),
        (summary.reexecuted, "ran again"),
        (summary.total.saturating_sub(over), "not started or stopped"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let wall = human_duration(summary.wall_ms);
    let mut line = format!("{state}: {tasks}, {} in {wall}", parts.join(", "));
    if summary.saved_ms > 0 {
        line += &format!("; the cache saved {}", human_duration(summary.saved_ms));
    }
    line
}

/// Why something is executed although there is a cache.
pub fn reason_text(because: RunReason) -> &'static str {
    match because {
        RunReason::NoResult => "it has not been executed on these inputs",
        RunReason::LastFailed => "it did not succeed the last time on these inputs",
        RunReason::OutputMissing => "its output is no longer in the store",
        RunReason::Forced => "it is forced",
        RunReason::NeverCached => "it is declared with `cache = false`",
    }
}

/// An error of a command.
pub fn error_line(message: &str) -> String {
    format!("{BAD}error{BAD:#}: {message}")
}

/// A failure as it is told at the end of a run.
#[derive(Debug, Clone)]
pub struct FailureReport {
    /// The task.
    pub task: Name,
    /// The entry, for a task that runs once per entry.
    pub item: Option<Arc<str>>,
    /// The last attempt, from 1.
    pub attempt: u32,
    /// What went wrong.
    pub failure: Failure,
    /// The last lines that it wrote.
    pub log: Vec<String>,
    /// The command to type next, if there is more to see.
    pub next: Option<String>,
}

/// The failures, each with the tasks that were skipped because of it.
pub fn failures(reports: &[FailureReport], skipped: &BTreeMap<Name, Vec<Name>>) -> String {
    let mut text = String::new();
    let mut told = BTreeSet::new();
    for FailureReport { task, item, attempt, failure, log, next } in reports {
        let attempt = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
        let name = name_of(task, item.as_ref());
        text += &format!("\n{BAD}failed{BAD:#} {name}{attempt}: {failure}{}\n", hint(failure));
        for line in log {
            text += &format!("  {FAINT}|{FAINT:#} {line}\n");
        }
        if let Some(names) = skipped.get(task).filter(|_| told.insert(task)) {
            const SHOWN: usize = 8;
            let shown: Vec<_> = names.iter().take(SHOWN).map(Name::as_str).collect();
            let more = if names.len() > SHOWN {
                format!(" and {} more", names.len() - SHOWN)
            } else {
                String::new()
            };
            text += &format!("  skipped because of it: {}{more}\n", shown.join(", "));
        }
        if let Some(next) = next {
            text += &format!("  next: {next}\n");
        }
    }
    text
}

/// A task, or one of its entries.
pub(crate) fn name_of(task: &Name, item: Option<&Arc<str>>) -> String {
    item.map_or_else(|| task.to_string(), |item| format!("{task}[{item}]"))
}

/// What an exit code says by convention.
fn hint(failure: &Failure) -> &'static str {
    match failure.exit_code() {
        Some(126) => " (by convention of the shell: the command is not executable)",
        Some(127) => " (by convention of the shell: command not found)",
        _ => "",
    }
}

/// The JSON document of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunDocument {
    /// The version of this document.
    pub schema: &'static str,
    /// The run.
    pub run: RunId,
    /// Where it ran.
    pub workspace: WorkspaceName,
    /// How it ended.
    pub state: RunState,
    /// The totals.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The failures.
    pub failures: Vec<FailureSummary>,
}

impl RunDocument {
    /// The version that this e3 writes.
    pub const SCHEMA: &'static str = "e3.run/1";
}

/// A failure in the JSON document of a run.
#[derive(Debug, Clone, Serialize)]
pub struct FailureSummary {
    /// The task.
    pub task: Name,
    /// The entry, for a task that runs once per entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Arc<str>>,
    /// Its last execution, if it came to one.
    pub execution: Option<ExecutionId>,
    /// `failed` or `error`.
    pub state: ExecutionState,
    /// The exit code, if the process had one.
    pub exit_code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// What went wrong, for people.
    pub message: String,
}

impl FailureSummary {
    /// The summary of a failure.
    pub fn new(
        task: Name,
        item: Option<Arc<str>>,
        execution: Option<ExecutionId>,
        failure: &Failure,
    ) -> Self {
        Self {
            task,
            item,
            execution,
            state: failure.state(),
            exit_code: failure.exit_code(),
            signal: failure.signal(),
            message: failure.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_name_what_happened_and_leave_out_what_did_not() {
        let summary = RunSummary {
            total: 8,
            executed: 3,
            cached: 5,
            saved_ms: 4200,
            wall_ms: 1300,
            ..RunSummary::default()
        };
        assert_eq!(
            totals(RunState::Completed, &summary),
            "completed: 8 tasks, 3 ran, 5 cached in 1.3 s; the cache saved 4.2 s"
        );
        let summary =
            RunSummary { total: 4, executed: 1, failed: 1, skipped: 1, wall_ms: 10, ..RunSummary::default() };
        assert_eq!(
            totals(RunState::Failed, &summary),
            "failed: 4 tasks, 1 ran, 0 cached, 1 failed, 1 skipped, 1 not started or stopped in 10 ms"
        );
    }
}
