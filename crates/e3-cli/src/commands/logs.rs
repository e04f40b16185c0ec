//! `e3 logs`: what a task printed.

use std::{collections::BTreeMap, time::Duration};

use e3_core::{DatasetRef, ExecutionKey, LogStream, StorageBackend, StorageError, executions, runs};
use e3_pipeline::most_similar;
use e3_types::{DatasetPath, EventKind, ExecutionId, Name, PackageTask, RunId};
use serde::Serialize;

use crate::{
    args::LogsArgs,
    console::write_bytes,
    context::{Context, Deployed},
    error::{CliError, Exit, Result},
};

/// How much is read at once, in bytes.
const CHUNK: u64 = 256 << 10;
/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    task: &'a Name,
    execution: ExecutionId,
    stdout: String,
    stderr: String,
}

pub(crate) async fn logs(context: &Context, args: &LogsArgs) -> Result<Exit> {
    let Deployed { storage, package, values, .. } = context.deployed().await?;
    let task = package.tasks.get(&args.task).ok_or_else(|| {
        let similar = most_similar(args.task.as_str(), package.tasks.keys().map(Name::as_str));
        let hint = similar.map(|name| format!(": did you mean `{name}`?")).unwrap_or_default();
        CliError::not_found(format!(
            "there is no task `{}` in workspace `{}`{hint}",
            args.task, context.workspace
        ))
    })?;
    let entry = args.item.as_deref();
    if task.each.is_some() && entry.is_none() {
        return Err(CliError::usage(format!(
            "`{}` runs once per entry of `{}`: `--item NAME` says which one",
            args.task,
            task.inputs[task.each.map_or(0, |each| each as usize)]
        )));
    }
    let execution = match args.run {
        Some(run) => in_run(&*storage, run, &args.task, entry).await?,
        None => newest(context, &*storage, &values, task, args).await?,
    };
    let execution = execution.ok_or_else(|| {
        let place = args.run.map_or_else(|| "yet".to_owned(), |run| format!("in run {run}"));
        CliError::not_found(format!("task `{}` has not been executed {place}", args.task))
    })?;
    if context.console.json {
        let [stdout, stderr] =
            [LogStream::Stdout, LogStream::Stderr].map(|stream| whole(&*storage, execution, stream));
        let (stdout, stderr) = (stdout.await?, stderr.await?);
        context.console.document(&Document {
            schema: "e3.logs/1",
            task: &args.task,
            execution,
            stdout,
            stderr,
        })?;
    } else {
        show(&*storage, execution, args).await?;
    }
    Ok(Exit::Done)
}

/// The last execution of a task, or of one of its entries, in a run.
async fn in_run(
    storage: &dyn StorageBackend,
    run: RunId,
    task: &Name,
    entry: Option<&str>,
) -> Result<Option<ExecutionId>> {
    let events = runs::events(storage, run).await?;
    if events.is_empty() {
        return Err(CliError::not_found(format!("there is no run {run}: `e3 runs` shows what there is")));
    }
    Ok(events.into_iter().rev().find_map(|event| match event.kind {
        EventKind::TaskCompleted { task: name, item, execution: Some(execution), .. }
        | EventKind::AttemptFailed { task: name, item, execution, .. }
        | EventKind::TaskFailed { task: name, item, execution: Some(execution), .. }
            if name == *task && item.as_deref() == entry =>
        {
            Some(execution)
        }
        _ => None,
    }))
}

/// The newest execution of a task on its inputs as they are now; failing that, the one of the last run that had one.
async fn newest(
    context: &Context,
    storage: &dyn StorageBackend,
    values: &BTreeMap<DatasetPath, DatasetRef>,
    wired: &PackageTask,
    args: &LogsArgs,
) -> Result<Option<ExecutionId>> {
    let entry = args.item.as_deref();
    let inputs: Option<Vec<_>> =
        wired.inputs.iter().map(|input| Some(values.get(input)?.object.hash)).collect();
    if let Some(inputs) = inputs.filter(|_| entry.is_none())
        && let Some(execution) = executions::latest(storage, &ExecutionKey::new(wired.task, &inputs)).await?
    {
        return Ok(Some(execution));
    }
    for run in runs::list(storage, &context.workspace, None, 20).await? {
        if let Some(execution) = in_run(storage, run.run, &args.task, entry).await? {
            return Ok(Some(execution));
        }
    }
    Ok(None)
}

/// A log as text, in full.
async fn whole(storage: &dyn StorageBackend, execution: ExecutionId, stream: LogStream) -> Result<String> {
    let bytes = storage.logs().read(execution, stream, 0..u64::MAX).await.map_err(StorageError::from)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn show(storage: &dyn StorageBackend, execution: ExecutionId, args: &LogsArgs) -> Result<()> {
    let mut at = [0; 2];
    loop {
        // Asked before reading, so that what is written before the end is not missed.
        let running = match executions::find(storage, execution).await? {
            Some(record) => executions::is_running(storage, &record).await?,
            None => false,
        };
        if args.stderr {
            at[1] = copy(storage, execution, LogStream::Stderr, at[1], write_bytes).await?;
        } else {
            at[0] = copy(storage, execution, LogStream::Stdout, at[0], write_bytes).await?;
            at[1] = copy(storage, execution, LogStream::Stderr, at[1], to_stderr).await?;
        }
        if !(args.follow && running) {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// Copies a log from an offset to its end; returns where that was.
async fn copy(
    storage: &dyn StorageBackend,
    execution: ExecutionId,
    stream: LogStream,
    mut from: u64,
    write: impl Fn(&[u8]) -> Result<()>,
) -> Result<u64> {
    loop {
        let bytes =
            storage.logs().read(execution, stream, from..from + CHUNK).await.map_err(StorageError::from)?;
        if bytes.is_empty() {
            return Ok(from);
        }
        write(&bytes)?;
        from += bytes.len() as u64;
    }
}

fn to_stderr(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    std::io::stderr()
        .write_all(bytes)
        .map_err(|error| CliError::environment("writing to standard error", error))
}
