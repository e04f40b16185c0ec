//! The plain renderer: a line for each task that is over. For logs, for pipes, for terminals without tricks.

use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use e3_types::{Event, EventKind, Failure, Name, SkipReason};

use crate::{View, human_duration, report::name_of};

const GOOD: Style = AnsiColor::Green.on_default();
const KNOWN: Style = AnsiColor::Cyan.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const MILD: Style = AnsiColor::Yellow.on_default();

impl View {
    /// Takes in the next event, and returns the line for it, without an end of line, if it is worth one.
    pub fn line(&mut self, event: &Event) -> Option<String> {
        self.apply(event);
        match &event.kind {
            EventKind::TaskCompleted { task, item, superseded: true, .. }
            | EventKind::TaskFailed { task, item, superseded: true, .. } => {
                Some(self.task(MILD, "late", task, item.as_ref(), "an input changed meanwhile: again"))
            }
            // Of a folder with many entries only those are worth a line about which there is something new.
            EventKind::TaskCompleted { item: Some(_), cached: true, .. } => None,
            EventKind::TaskCompleted { task, item: None, cached: true, .. } => {
                Some(self.task(KNOWN, "cached", task, None, ""))
            }
            EventKind::TaskCompleted { task, item, took_ms, execution: Some(_), .. } => {
                Some(self.task(GOOD, "ran", task, item.as_ref(), &human_duration(*took_ms)))
            }
            EventKind::TaskFailed { task, item, failure: Failure::Cancelled, .. } => {
                Some(self.task(MILD, "stopped", task, item.as_ref(), ""))
            }
            EventKind::TaskFailed { task, item, failure, .. } => {
                Some(self.task(BAD, "failed", task, item.as_ref(), &first_line(&failure.to_string())))
            }
            EventKind::AttemptFailed { task, item, attempt, failure, retry_in_ms, .. } => {
                let next = human_duration(*retry_in_ms);
                let text = format!("attempt {attempt} {}; again in {next}", first_line(&failure.to_string()));
                Some(self.task(MILD, "retry", task, item.as_ref(), &text))
            }
            EventKind::TaskSkipped { task, because: SkipReason::Failed { task: cause } } => {
                Some(self.task(MILD, "skipped", task, None, &format!("because `{cause}` failed")))
            }
            EventKind::TaskSkipped { task, because: SkipReason::Unassigned { dataset } } => {
                let why = format!("because input `{dataset}` has no value");
                Some(self.task(MILD, "blocked", task, None, &why))
            }
            EventKind::TaskInvalidated { task, because } => {
                Some(self.task(MILD, "again", task, None, &format!("because input `{because}` changed")))
            }
            EventKind::TaskDeferred { task, because } => {
                let why = format!("until what it reads comes from one version of `{because}`");
                Some(self.task(MILD, "waits", task, None, &why))
            }
            EventKind::TaskNoted { task, item, note } => {
                Some(self.task(MILD, "note", task, item.as_ref(), note))
            }
            EventKind::OutputRebuilt { task, item, took_ms, .. } => {
                let text = format!("{}  its output was no longer in the store", human_duration(*took_ms));
                Some(self.task(MILD, "rebuilt", task, item.as_ref(), &text))
            }
            EventKind::InputChanged { dataset, object } => {
                let now = if object.is_some() { "has another value" } else { "has no value any more" };
                Some(self.line_of(MILD, "changed", &format!("input `{dataset}` {now}")))
            }
            EventKind::RunStarted { .. }
            | EventKind::TaskCompleted { execution: None, .. }
            | EventKind::TaskStarted { .. }
            | EventKind::TaskExpanded { .. }
            | EventKind::RunEnded { .. } => None,
        }
    }

    fn task(&self, style: Style, word: &str, task: &Name, item: Option<&Arc<str>>, detail: &str) -> String {
        let mut text = name_of(task, item);
        if !detail.is_empty() {
            text += "  ";
            text += detail;
        }
        self.line_of(style, word, &text)
    }

    fn line_of(&self, style: Style, word: &str, text: &str) -> String {
        let View { over, total, .. } = self;
        let width = total.to_string().len();
        format!("[{over:>width$}/{total}] {style}{word:<7}{style:#} {text}")
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use e3_types::{ExecutionId, ObjectRef, RunId, RunState, RunSummary, Timestamp};

    use super::*;

    #[test]
    fn a_line_for_each_task_that_is_over() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let execution = ExecutionId::from_parts(0, [0; 10]);
        let completed = |task, cached| EventKind::TaskCompleted {
            task: name(task),
            item: None,
            execution: Some(execution),
            output: ObjectRef::of(b""),
            cached,
            because: None,
            took_ms: 12,
            superseded: false,
        };
        let kinds = [
            EventKind::RunStarted {
                run: RunId::from_parts(0, [0; 10]),
                workspace: "main".parse().unwrap(),
                package: ObjectRef::of(b"").hash,
                total: 10,
                standing: 0,
            },
            completed("a", false),
            completed("b", true),
            EventKind::TaskFailed {
                task: name("c"),
                item: None,
                attempt: 1,
                execution: Some(execution),
                failure: Failure::Exit { code: 3 },
                superseded: false,
            },
            EventKind::TaskSkipped { task: name("d"), because: SkipReason::Failed { task: name("c") } },
            EventKind::RunEnded { state: RunState::Failed, summary: RunSummary::default() },
        ];
        let mut view = View::default();
        let lines: Vec<_> = (0_u64..)
            .zip(kinds)
            .filter_map(|(seq, kind)| view.line(&Event { seq, at: Timestamp::default(), kind }))
            .map(|line| strip(&line))
            .collect();
        assert_eq!(
            lines,
            [
                "[ 1/10] ran     a  12 ms",
                "[ 2/10] cached  b",
                "[ 3/10] failed  c  exited with code 3",
                "[ 4/10] skipped d  because `c` failed"
            ]
        );
    }

    /// The text without styles.
    fn strip(text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('\u{1b}') {
            plain.push_str(&rest[..at]);
            rest = rest[at..].split_once('m').map_or("", |(_, after)| after);
        }
        plain + rest
    }
}
