//! `e3 executions`: what was executed, newest first.

use e3_console::human_duration;
use e3_core::{ExecutionRecord, executions as records, history};
use e3_types::{ExecutionId, ExecutionState, Hash, Name, ObjectRef, Timestamp};
use serde::Serialize;

use crate::{
    args::ExecutionsArgs,
    context::Context,
    error::{Exit, Result},
    format,
};

/// How many entries of the history are read at once.
const PAGE: usize = 64;

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    executions: Vec<Execution>,
}

#[derive(Serialize)]
struct Execution {
    execution: ExecutionId,
    label: String,
    state: &'static str,
    attempt: u32,
    started: Timestamp,
    ended: Option<Timestamp>,
    task: Hash,
    inputs: Vec<Hash>,
    output: Option<ObjectRef>,
    failure: Option<String>,
    user_ms: Option<u64>,
    system_ms: Option<u64>,
    peak_memory: Option<u64>,
    runner: String,
    notes: Vec<String>,
}

pub(crate) async fn executions(context: &Context, args: &ExecutionsArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    let found = match &args.task {
        None => records::list(&*storage, args.before, args.limit).await?,
        Some(task) => of_task(context, &*storage, task, args).await?,
    };
    let mut states = Vec::with_capacity(found.len());
    for record in &found {
        let lost = record.state == ExecutionState::Running && !records::is_running(&*storage, record).await?;
        states.push(if lost { "lost" } else { state(record.state) });
    }
    if context.console.json {
        let executions =
            found.into_iter().zip(states).map(|(record, state)| execution(record, state)).collect();
        context.console.document(&Document { schema: "e3.executions/1", executions })?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = found
        .iter()
        .zip(states)
        .map(|(record, state)| {
            let took = record
                .ended
                .map_or_else(|| "-".to_owned(), |ended| human_duration(ended.ms_since(record.started)));
            [
                record.execution.to_string(),
                state.to_owned(),
                format::time(record.started),
                took,
                record.label.clone(),
                failure(record).and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default(),
            ]
        })
        .collect();
    context.console.result(&format::table(["EXECUTION", "STATE", "STARTED", "TOOK", "WHAT", ""], &rows))?;
    if let (true, Some(last), None) = (found.len() == args.limit, found.last(), &args.task) {
        let next = format!("executions --before {}", last.execution);
        context.console.note(&format!("more: {}", context.command(&next)));
    }
    Ok(Exit::Done)
}

/// What the workspace has come to know of a task.
async fn of_task(
    context: &Context,
    storage: &dyn e3_core::StorageBackend,
    task: &Name,
    args: &ExecutionsArgs,
) -> Result<Vec<ExecutionRecord>> {
    let mut found: Vec<ExecutionRecord> = Vec::new();
    let mut before = None;
    loop {
        let page = history::list(storage, &context.workspace, task, before, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        before = Some((last.run, last.seq));
        for entry in page {
            if found.len() == args.limit {
                return Ok(found);
            }
            if args.item.is_some() && args.item.as_deref() != entry.record.item.as_deref() {
                continue;
            }
            if let Some(execution) = entry.record.execution
                && let Some(record) = records::find(storage, execution).await?
            {
                found.push(record);
            }
        }
    }
}

fn failure(record: &ExecutionRecord) -> Option<String> {
    match &record.outcome {
        Some(Err(failure)) => Some(failure.to_string()),
        _ => None,
    }
}

fn state(state: ExecutionState) -> &'static str {
    match state {
        ExecutionState::Running => "running",
        ExecutionState::Success => "success",
        ExecutionState::Failed => "failed",
        ExecutionState::Error => "error",
        ExecutionState::Cancelled => "cancelled",
    }
}

fn execution(record: ExecutionRecord, state: &'static str) -> Execution {
    Execution {
        execution: record.execution,
        state,
        attempt: record.attempt,
        started: record.started,
        ended: record.ended,
        task: record.task,
        output: match &record.outcome {
            Some(Ok(output)) => Some(*output),
            _ => None,
        },
        failure: failure(&record),
        user_ms: record.usage.user_ms,
        system_ms: record.usage.system_ms,
        peak_memory: record.usage.peak_memory,
        label: record.label,
        inputs: record.inputs,
        runner: record.runner,
        notes: record.notes,
    }
}
