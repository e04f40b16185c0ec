//! Executing a workspace and telling how it ended: what `run` and `start` share.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::Arc,
};

use e3_console::{FailureReport, FailureSummary, RunDocument, View, failures, totals};
use e3_core::{
    Cancellation, DataflowError, DataflowOptions, Force, LogStream, OnFailure, RunReport, Standing,
    StorageBackend, TaskFailure, WorkspaceLease, dataflow_execute_held, packages, workspaces,
};
use e3_pipeline::{RunSettings, most_similar};
use e3_store::LocalStorage;
use e3_types::{DatasetPath, ErrorClass, ExecutionId, Failure, Name, ObjectRef, Package, RunState};
use tokio::task::JoinSet;

use crate::{
    args::{ExecuteArgs, Limit, Progress, SelectArgs},
    context::{Context, kept_scratch},
    error::{CliError, Exit, Result},
    format,
    interrupt::Interrupts,
    screen::Screen,
};

/// How many lines of its log are shown of a task that failed.
const LOG_LINES: usize = 20;
/// How much of a log is read for that, in bytes.
const LOG_TAIL: u64 = 64 << 10;

/// A run that is over.
pub(crate) struct Finished {
    pub(crate) report: RunReport,
    view: View,
    pub(crate) interrupted: Option<Exit>,
}

/// What is known before a run of the pipeline that is to be run.
pub(crate) struct Given {
    pub(crate) settings: RunSettings,
    /// A package that is in memory already.
    pub(crate) package: Option<(ObjectRef, Package)>,
    /// What stands of the last complete run, if that was found out already.
    pub(crate) standing: Option<Box<Standing>>,
}

impl From<RunSettings> for Given {
    fn from(settings: RunSettings) -> Self {
        Self { settings, package: None, standing: None }
    }
}

pub(crate) async fn execute(
    context: &Context,
    storage: Arc<LocalStorage>,
    lease: &WorkspaceLease,
    args: &ExecuteArgs,
    Given { settings, package, standing }: Given,
    interrupts: &mut Interrupts,
    cancellation: Cancellation,
) -> Result<Finished> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let keep_going = args.select.keep_going || settings.keep_going.unwrap_or(false);
    let lines = context.progress != Progress::None;
    let screen = Arc::new(Screen::new(context.console, lines, args.events.as_deref())?);
    let options = DataflowOptions {
        runner: Arc::new(context.local_runner(&storage, &settings, args.keep_scratch)?),
        clock: Arc::clone(&context.clock),
        holder: context.holder.clone(),
        events: Arc::clone(&screen) as _,
        slots: args.select.jobs.or(settings.jobs).unwrap_or(cores),
        on_failure: match (args.select.fail_fast, keep_going) {
            (true, _) => OnFailure::Cancel,
            (false, true) => OnFailure::KeepGoing,
            (false, false) => OnFailure::Finish,
        },
        force: Force::from_option(args.select.force.clone()),
        limits: limits(settings.limits, &args.select),
        targets: args.select.targets.clone(),
        restart_on_change: args.restart_on_change,
        run: args.run_id,
        cancellation: cancellation.clone(),
        package,
        standing,
    };
    if args.keep_scratch {
        let kept = kept_scratch(&storage);
        context.console.note(&format!("scratch folders are kept in {}, by execution", kept.display()));
    }
    let (repository, held) = (Arc::clone(&storage) as _, lease.clone());
    // On a thread of the runtime: what a task says to the loop is heard there without another thread waking.
    let mut run = JoinSet::new();
    run.spawn(async move { Box::pin(dataflow_execute_held(repository, &held, options)).await });
    let (ended, interrupted) = interrupts.guard(context.console, &cancellation, run.join_next()).await;
    let report =
        match ended.expect("one was spawned").unwrap_or_else(|error| resume_unwind(error.into_panic())) {
            Ok(report) => report,
            Err(error) => {
                let record = workspaces::find(&*storage, lease.workspace()).await?;
                let package = packages::load(&*storage, record.package).await?;
                return Err(no_match_in(&package, error));
            }
        };
    let view = screen.finish()?;
    Ok(Finished { report, view, interrupted })
}

/// What is limited: by the machine, by the pipeline file, by the command line; the later wins.
pub(crate) fn limits(settings: BTreeMap<Name, u64>, args: &SelectArgs) -> BTreeMap<Name, u64> {
    let mut limits = BTreeMap::new();
    if let Some(memory) = memory_of_this_machine() {
        limits.insert("memory".parse().expect("this is a name"), memory);
    }
    limits.extend(settings);
    limits.extend(args.limit.iter().map(|Limit { resource, amount }| (resource.clone(), *amount)));
    limits
}

/// In bytes, where the system tells.
fn memory_of_this_machine() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let info = rustix::system::sysinfo();
        info.totalram.checked_mul(u64::from(info.mem_unit))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The error of a run; for a pattern that means no task, with the name that was probably meant.
pub(crate) fn no_match_in(package: &Package, error: DataflowError) -> CliError {
    match error {
        DataflowError::NoMatch { pattern, .. } => {
            let similar = most_similar(&pattern, package.tasks.keys().map(Name::as_str)).map(str::to_owned);
            DataflowError::NoMatch { pattern, similar }.into()
        }
        other => other.into(),
    }
}

/// Tells how a run ended and with what exit code.
pub(crate) async fn tell(
    context: &Context,
    storage: &dyn StorageBackend,
    finished: &Finished,
) -> Result<Exit> {
    let Finished { report, view, interrupted } = finished;
    let console = context.console;
    if let Some(run) = report.lost {
        console
            .note(&format!("run {run} was found dead and recorded as lost; what it had finished was used"));
    }
    if console.json {
        let summaries = report.failures.iter();
        console.document(&RunDocument {
            schema: RunDocument::SCHEMA,
            run: report.run,
            workspace: report.workspace.clone(),
            state: report.state,
            summary: report.summary,
            failures: summaries
                .map(|failed| {
                    FailureSummary::new(
                        failed.task.clone(),
                        failed.item.clone(),
                        failed.execution,
                        &failed.failure,
                    )
                })
                .collect(),
        })?;
    }
    let summary = totals(report.state, &report.summary);
    if report.state == RunState::Completed {
        console.note(&summary);
    } else {
        console.warn(&summary);
    }
    if !report.failures.is_empty() {
        let mut told = Vec::new();
        for TaskFailure { task, item, attempt, execution, failure } in &report.failures {
            let log = log_tail(storage, *execution).await?;
            // There is more to see only of a task that has said something.
            let what = match item {
                Some(item) => format!("logs {task} --item {}", format::quoted(item)),
                None => format!("logs {task}"),
            };
            let next = (!log.is_empty()).then(|| context.command(&what));
            let (task, item, attempt, failure) = (task.clone(), item.clone(), *attempt, failure.clone());
            told.push(FailureReport { task, item, attempt, failure, log, next });
        }
        console.warn(failures(&told, &view.skipped).trim_end());
    }
    if !report.unassigned.is_empty() {
        console.warn(&unassigned(context, &report.unassigned));
    }
    Ok(exit_of(report, *interrupted))
}

fn exit_of(report: &RunReport, interrupted: Option<Exit>) -> Exit {
    match report.state {
        RunState::Completed => Exit::Done,
        RunState::Cancelled => interrupted.unwrap_or(Exit::Interrupted),
        _ if report.failures.is_empty() && !report.unassigned.is_empty() => Exit::Blocked,
        _ => {
            // A task that could not even be tried for want of disk or of an object says more than "a task failed".
            let classes: BTreeSet<u8> =
                report.failures.iter().map(|failed| class_exit(&failed.failure) as u8).collect();
            match (classes.len(), report.failures.first()) {
                (1, Some(failed)) => class_exit(&failed.failure),
                _ => Exit::TaskFailed,
            }
        }
    }
}

fn class_exit(failure: &Failure) -> Exit {
    match failure {
        Failure::Error { class: ErrorClass::Environment, .. } => Exit::Environment,
        Failure::Error { class: ErrorClass::Corrupt, .. } | Failure::InputMissing { .. } => Exit::Corrupt,
        Failure::Error { class: ErrorClass::Internal, .. } => Exit::Internal,
        _ => Exit::TaskFailed,
    }
}

fn unassigned(context: &Context, inputs: &BTreeSet<DatasetPath>) -> String {
    let lines: Vec<_> = inputs
        .iter()
        .map(|input| {
            format!(
                "blocked: input `{input}` has no value; next: {}",
                context.command(&format!("set {input} FILE"))
            )
        })
        .collect();
    lines.join("\n")
}

/// The last lines that an execution wrote, standard error after standard output.
async fn log_tail(storage: &dyn StorageBackend, execution: Option<ExecutionId>) -> Result<Vec<String>> {
    let Some(execution) = execution else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        let logs = storage.logs();
        let size = logs.size(execution, stream).await.map_err(e3_core::StorageError::from)?;
        let from = size.saturating_sub(LOG_TAIL);
        let bytes = logs.read(execution, stream, from..size).await.map_err(e3_core::StorageError::from)?;
        lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned));
    }
    let first = lines.len().saturating_sub(LOG_LINES);
    Ok(lines.split_off(first))
}
