//! `e3 runs`: the history of a workspace; one run of it; and looking on while one goes on.

use std::time::Duration;

use e3_console::{View, human_duration, totals};
use e3_core::{EventCursor, RunOptions, RunRecord, StorageBackend, runs};
use e3_types::{Event, RunId, RunState, RunSummary, Timestamp, WorkspaceName};
use serde::Serialize;

use crate::{
    args::{RunsAction, RunsArgs, RunsCommand},
    context::Context,
    error::{CliError, Exit, Result},
    format,
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    workspace: WorkspaceName,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Run {
    run: RunId,
    state: RunState,
    started: Timestamp,
    ended: Option<Timestamp>,
    summary: Option<RunSummary>,
}

/// How often somebody who looks on looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Shown<'a> {
    schema: &'static str,
    #[serde(flatten)]
    record: &'a RunRecord,
    events: &'a [Event],
}

pub(crate) async fn runs(context: &Context, command: RunsCommand) -> Result<Exit> {
    match command.action {
        None => list(context, &command.args.args).await,
        Some(RunsAction::Show(args)) => show_run(context, args.args.run).await,
        Some(RunsAction::Follow(args)) => follow(context, args.args.run).await,
    }
}

/// The record of a run, which may have died: then it is recorded as lost.
async fn find(context: &Context, storage: &dyn StorageBackend, run: RunId) -> Result<RunRecord> {
    runs::settle_lost(storage, &*context.clock, &context.workspace, None).await?;
    runs::find(storage, &context.workspace, run).await?.ok_or_else(|| {
        CliError::not_found(format!(
            "there is no run {run} in workspace `{}`: `e3 runs` shows what there is",
            context.workspace
        ))
    })
}

async fn show_run(context: &Context, run: RunId) -> Result<Exit> {
    let storage = context.open_repository()?;
    let record = find(context, &*storage, run).await?;
    let events = runs::events(&*storage, run).await?;
    if context.console.json {
        context.console.document(&Shown { schema: "e3.run.events/1", record: &record, events: &events })?;
        return Ok(Exit::Done);
    }
    let mut text = format!("run {run} of workspace {}, {}\n", record.workspace, record.state);
    text += &format!("started {} by {}", format::time(record.started), record.owner);
    let RunOptions { targets, force, slots } = &record.options;
    text += &format!(", {slots} at once");
    if !targets.is_empty() {
        text += &format!(", targets {}", targets.join(" "));
    }
    if !force.is_empty() {
        text += &format!(", forced {}", force.join(" "));
    }
    text += "\n\n";
    let mut view = View::default();
    for event in &events {
        if let Some(line) = view.line(event) {
            text += &format!("{}  {line}\n", format::time(event.at));
        }
    }
    if let Some(summary) = &record.summary {
        text += &format!("\n{}\n", totals(record.state, summary));
    }
    context.console.result(&text)?;
    Ok(Exit::Done)
}

/// Shows the events of a run until it has ended; the exit code is that of the run.
async fn follow(context: &Context, run: Option<RunId>) -> Result<Exit> {
    let storage = context.open_repository()?;
    let run = if let Some(run) = run {
        run
    } else {
        let last = runs::list(&*storage, &context.workspace, None, 1).await?.pop();
        let nothing = || CliError::not_found(format!("workspace `{}` has not run yet", context.workspace));
        last.ok_or_else(nothing)?.run
    };
    let mut cursor = EventCursor::default();
    let mut view = View::default();
    loop {
        // Asked before reading, so that what is written before the end is not missed.
        let record = find(context, &*storage, run).await?;
        loop {
            let events = runs::next_events(&*storage, run, &mut cursor).await?;
            if events.is_empty() {
                break;
            }
            for event in &events {
                if context.console.json {
                    context.console.line(event)?;
                } else if let Some(line) = view.line(event) {
                    context.console.result(&format!("{line}\n"))?;
                }
            }
        }
        if record.state != RunState::Running {
            return ended(context, &record);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn ended(context: &Context, record: &RunRecord) -> Result<Exit> {
    if !context.console.json {
        let text = match &record.summary {
            Some(summary) => totals(record.state, summary),
            None => format!("run {} is {}: its process is gone", record.run, record.state),
        };
        context.console.result(&format!("{text}\n"))?;
    }
    Ok(match (record.state, &record.summary) {
        (RunState::Completed, _) => Exit::Done,
        (RunState::Failed, Some(summary)) if summary.failed == 0 && summary.blocked > 0 => Exit::Blocked,
        (RunState::Cancelled, _) => Exit::Interrupted,
        _ => Exit::TaskFailed,
    })
}

async fn list(context: &Context, args: &RunsArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    runs::settle_lost(&*storage, &*context.clock, &context.workspace, None).await?;
    let found = runs::list(&*storage, &context.workspace, args.before, args.limit).await?;
    if context.console.json {
        let runs = found.into_iter().map(|RunRecord { run, state, started, ended, summary, .. }| Run {
            run,
            state,
            started,
            ended,
            summary,
        });
        let document =
            Document { schema: "e3.runs/1", workspace: context.workspace.clone(), runs: runs.collect() };
        context.console.document(&document)?;
    } else {
        show(context, &found, args.limit)?;
    }
    Ok(Exit::Done)
}

fn show(context: &Context, found: &[RunRecord], limit: usize) -> Result<()> {
    let count = |record: &RunRecord, field: fn(&RunSummary) -> u64| {
        record.summary.as_ref().map_or_else(|| "-".to_owned(), |summary| field(summary).to_string())
    };
    let rows: Vec<_> = found
        .iter()
        .map(|record| {
            [
                record.run.to_string(),
                record.state.to_string(),
                format::time(record.started),
                record.summary.map_or_else(|| "-".to_owned(), |summary| human_duration(summary.wall_ms)),
                count(record, |summary| summary.executed),
                count(record, |summary| summary.cached),
                count(record, |summary| summary.failed),
            ]
        })
        .collect();
    context
        .console
        .result(&format::table(["RUN", "STATE", "STARTED", "TOOK", "RAN", "CACHED", "FAILED"], &rows))?;
    if let (true, Some(last)) = (found.len() == limit, found.last()) {
        let next = format!("runs --before {}", last.run);
        context.console.note(&format!("more: {}", context.command(&next)));
    }
    Ok(())
}
