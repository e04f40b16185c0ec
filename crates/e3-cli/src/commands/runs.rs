//! `e3 runs`: the history of a workspace.

use e3_console::human_duration;
use e3_core::{RunRecord, runs};
use e3_types::{RunId, RunState, RunSummary, Timestamp, WorkspaceName};
use serde::Serialize;

use crate::{
    args::RunsArgs,
    context::Context,
    error::{Exit, Result},
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

pub(crate) async fn runs(context: &Context, args: &RunsArgs) -> Result<Exit> {
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
        context.console.note(&format!("more: e3 runs --before {}", last.run));
    }
    Ok(())
}
