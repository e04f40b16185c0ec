//! `task_execute`: the one implementation of executing a task.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use e3_core::{
    Clock, ExecutionContext, Holder, LogError, LogStream, ObjectError, Outcome, OutputSink, StorageBackend,
    TaskExecuteOptions, TaskResult, Unavailable, Usage, perform, step_back,
};
use e3_process::{Command, Ended, Exit, RunError, Stop, Supervisor};
use e3_types::{ErrorClass, ExecutionId, Failure, Hash, ObjectRef, TaskLimits};

use crate::{
    guard, output,
    prepare::{Job, Prepared},
    scratch::Scratches,
    stage::{StageError, StagedFile, StagingError},
};

/// Where and how the tasks of one process run.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The folders in which they run.
    pub scratches: Arc<Scratches>,
    /// The variables that every task inherits: see `inherited`.
    pub environment: Vec<(OsString, OsString)>,
    /// How long a task may take to end after SIGTERM.
    pub grace: Duration,
    /// Where scratch folders go when their task has ended; they are removed if there is no such place. It must be on the
    /// file system of `scratches`.
    pub keep_in: Option<PathBuf>,
    /// Who watches over the processes of tasks and what they leave behind. Without one, what leaves the group of its task is
    /// not found, and nobody is there when this process is killed.
    pub supervisor: Option<Arc<Supervisor>>,
    /// The program that confines tasks which have limits or a sandbox: see `e3_process::LAUNCH`.
    pub launcher: Option<PathBuf>,
    /// The folders that tasks in a sandbox may read beside those of the system.
    pub sandbox_readable: Vec<PathBuf>,
    /// How much is kept of each stream that a task prints, in bytes.
    pub log_limit: u64,
    /// On whose behalf.
    pub holder: Holder,
    /// The runner's name, for the record.
    pub runner: String,
}

const LOOKING: &str = "looking at the staged files";

/// With fewer bytes than this a disk counts as full: some file systems keep a little that nobody can use.
const FULL: u64 = 16 << 10;

/// Executes a task, or finds that it was done before: stage, look up, spawn, capture, store, record. What is asked for ahead of
/// its time is staged at once, and the rest is done in time.
pub async fn task_execute(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    workshop: &Workshop,
    task: Hash,
    inputs: &[Hash],
    options: &TaskExecuteOptions,
) -> TaskResult {
    let job = Job { storage, workshop, task, inputs, options };
    let mut ahead = if options.is_time() { None } else { job.prepare_ahead().await };
    let context = ExecutionContext { storage, clock, holder: &workshop.holder, runner: &workshop.runner };
    let result = perform(context, task, inputs, options, |execution| {
        let (job, ahead) = (&job, ahead.take());
        async move {
            let mut outcome =
                Outcome { verdict: Err(Failure::Cancelled), usage: Usage::default(), notes: Vec::new() };
            outcome.verdict =
                job.carry_out(execution, ahead, &mut outcome).await.map_err(|stopped| stopped.0);
            outcome
        }
    })
    .await;
    if let Some(unused) = ahead {
        job.clear(unused.scratch, None).await;
    }
    result
}

/// Why there is no output.
pub(crate) struct Stopped(Failure);

impl Stopped {
    pub(crate) fn error(class: ErrorClass, message: impl Into<String>) -> Self {
        Self(Failure::Error { class, message: message.into() })
    }

    /// A task that has failed where there was no space left can do nothing for it.
    fn on_a_full_disk(self) -> Self {
        match self.0 {
            failure @ Failure::Exit { .. } => {
                let message =
                    format!("{failure}, and its scratch folder has no space left: is the disk full?");
                Self::error(ErrorClass::Environment, message)
            }
            other => Self(other),
        }
    }

    pub(crate) fn staging(error: StagingError) -> Self {
        let StagingError { input, name, source } = error;
        let message = format!("staging {name}: {source}");
        match (input, source) {
            (
                Some(input),
                StageError::Object(ObjectError::NotFound(object) | ObjectError::Corrupt { hash: object, .. }),
            ) => Self(Failure::InputMissing { input, object, message }),
            (_, other) => Self::error(other.class(), message),
        }
    }
}

impl From<Unavailable> for Stopped {
    fn from(error: Unavailable) -> Self {
        Self::error(ErrorClass::Environment, error.to_string())
    }
}

impl Job<'_> {
    /// Does it; what is known of it beside its verdict is written to `outcome`.
    async fn carry_out(
        &self,
        execution: ExecutionId,
        ahead: Option<Box<Prepared>>,
        outcome: &mut Outcome,
    ) -> Result<ObjectRef, Stopped> {
        let mut prepared = self.prepared(ahead, execution).await?;
        let verdict = self.in_scratch(execution, &mut prepared, outcome).await;
        self.clear(prepared.scratch, Some(execution)).await;
        verdict
    }

    async fn in_scratch(
        &self,
        execution: ExecutionId,
        prepared: &mut Prepared,
        outcome: &mut Outcome,
    ) -> Result<ObjectRef, Stopped> {
        let Prepared { scratch, task, staged, stays, command, otherwise } = prepared;
        let work = command.folder.clone();
        // Until it is known that nothing of this task can still be at work in it.
        scratch.retire(true);
        let mut ended = self.spawn(execution, command, &mut outcome.notes).await;
        if let (Err(RunError::Spawn(_)), Some(words)) = (&ended, otherwise.take()) {
            (command.program, command.arguments) = words;
            ended = self.spawn(execution, command, &mut outcome.notes).await;
        }
        let ended = ended.map_err(|error| not_run(command, error));
        // Looked at in any case: an altered file must be known, however the task ended.
        let staged = std::mem::take(staged);
        let (changed, gone) = if staged.len() <= guard::FEW {
            guard::look(&work, staged).map_err(|error| Unavailable::new(LOOKING, error))?
        } else {
            let work = work.clone();
            blocking(LOOKING, move || guard::look(&work, staged)).await?
        };
        let changed = guard::altered(self.storage, changed, gone).await.map_err(|error| {
            Stopped::error(error.class(), format!("looking at objects that a task may have changed: {error}"))
        })?;
        let ended = ended?;
        scratch.retire(ended.unexplained || ended.leaked || !ended.strays.is_empty());
        outcome.usage = usage_of(&ended);
        outcome.notes.extend(notes_of(&ended, &self.options.limits));
        let full = matches!(ended.exit, Exit::Code(1..)) && {
            let scratch = scratch.path().to_owned();
            blocking("asking how full the disk is", move || is_full(&scratch)).await?
        };
        self.judge(&ended).map_err(|stopped| if full { stopped.on_a_full_disk() } else { stopped })?;
        if let Some(released) = &self.options.released
            && released()
        {
            // Whoever hears of that is to start the next process before this output is stored.
            step_back().await;
        }
        if let Some(StagedFile { path, .. }) = changed.first() {
            let path = path.strip_prefix(&work).unwrap_or(path).display().to_string();
            let input = path.strip_prefix("inputs/").and_then(|path| path.split('/').next());
            let hint = input.map(|name| format!(": `writable = [\"{name}\"]` gives it a private copy"));
            let message = format!(
                "its staged file `{path}` was changed, by it or by another task that reads the same: what is staged is \
                 read-only{}",
                hint.unwrap_or_default()
            );
            return Err(Stopped::error(ErrorClass::User, message));
        }
        if *stays {
            scratch.stay_for(self.task);
        }
        output::adopt(self.storage, task.output, &work)
            .await
            .map_err(|error| Stopped::error(error.class(), error.to_string()))
    }

    async fn spawn(
        &self,
        execution: ExecutionId,
        command: &Command,
        notes: &mut Vec<String>,
    ) -> Result<Ended, RunError<LogError>> {
        let stop = Stop {
            politely: self.options.cancellation.stop.clone(),
            at_once: self.options.cancellation.kill.clone(),
            timeout: self.options.timeout,
            grace: self.workshop.grace,
        };
        let cut = [AtomicU64::new(0), AtomicU64::new(0)];
        let log = |stream, sink: &Option<OutputSink>, cut| Log {
            storage: self.storage,
            execution,
            stream,
            sink: sink.clone(),
            left: self.workshop.log_limit,
            cut,
        };
        let stdout = log(LogStream::Stdout, &self.options.stdout, &cut[0]);
        let stderr = log(LogStream::Stderr, &self.options.stderr, &cut[1]);
        let ended = e3_process::run(command, &stop, stdout, stderr).await;
        for (stream, cut) in [LogStream::Stdout, LogStream::Stderr].iter().zip(cut) {
            let (cut, kept) = (cut.into_inner(), self.workshop.log_limit);
            if cut > 0 {
                notes.push(format!(
                    "its {stream} was cut: the first {kept} bytes are kept, {cut} more are not"
                ));
            }
        }
        ended
    }

    /// What the end of the process means, if it is not success.
    fn judge(&self, ended: &Ended) -> Result<(), Stopped> {
        if ended.stopped {
            return Err(Stopped(Failure::Cancelled));
        }
        if ended.timed_out {
            let after = self.options.timeout.unwrap_or_default();
            return Err(Stopped(Failure::Timeout {
                after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            }));
        }
        match ended.exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(Stopped(Failure::Exit { code })),
            Exit::Signal(signal) => Err(Stopped(Failure::Signal { signal })),
        }
    }
}

/// Takes a stream of output to the log, and to whoever looks on.
struct Log<'a> {
    storage: &'a dyn StorageBackend,
    execution: ExecutionId,
    stream: LogStream,
    sink: Option<OutputSink>,
    /// How much more is kept, in bytes.
    left: u64,
    /// How much was not kept.
    cut: &'a AtomicU64,
}

impl e3_process::Output for Log<'_> {
    type Error = LogError;

    async fn take(&mut self, piece: &[u8]) -> Result<(), LogError> {
        let kept = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if kept > 0 {
            self.storage.logs().append(self.execution, self.stream, &piece[..kept]).await?;
            self.left -= kept as u64;
        }
        self.cut.fetch_add((piece.len() - kept) as u64, Ordering::Relaxed);
        if let Some(sink) = &self.sink {
            sink(piece);
        }
        Ok(())
    }
}

fn not_run(command: &Command, error: RunError<LogError>) -> Stopped {
    let program = command.program.to_string_lossy();
    let message = match error {
        RunError::Spawn(error) => return cannot_start(&program, &error),
        RunError::Confine(complaint) => format!("the command `{program}` cannot be started: {complaint}"),
        RunError::Wait(error) => format!("waiting for `{program}`: {error}"),
        RunError::Output(error) => error.to_string(),
    };
    Stopped::error(ErrorClass::Environment, message)
}

fn cannot_start(program: &str, error: &io::Error) -> Stopped {
    let (class, message) = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => (
            ErrorClass::User,
            format!(
                "the command `{program}` was not found: a task sees only its inputs and what `code` names"
            ),
        ),
        io::ErrorKind::NotFound => (
            ErrorClass::User,
            format!("the command `{program}` was not found in any folder of PATH: is it installed?"),
        ),
        io::ErrorKind::PermissionDenied => {
            (ErrorClass::User, format!("the command `{program}` is not executable (permission denied)"))
        }
        _ => (ErrorClass::Environment, format!("the command `{program}` cannot be started: {error}")),
    };
    Stopped::error(class, message)
}

/// What the user of a task should know of its end.
fn notes_of(ended: &Ended, limits: &TaskLimits) -> Vec<String> {
    let mut notes = Vec::new();
    let some = ended.strays.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    match ended.strays.len() {
        0 => {}
        1..=3 => notes.push(format!("ended what it had left running: {some}")),
        count => notes.push(format!("ended {count} processes that it had left running: {some}, ...")),
    }
    if ended.leaked {
        notes.push("something that it started still holds its output open; it was not waited for".to_owned());
    }
    if ended.wants_terminal {
        notes.push("killed, because it wanted to use the terminal, which no task has".to_owned());
    }
    if ended.exit != Exit::Code(0) && !limits.is_none() {
        let mut words = Vec::new();
        words.extend(limits.memory.map(|bytes| format!("memory {bytes} B")));
        words.extend(limits.open_files.map(|files| format!("open_files {files}")));
        words.extend(limits.cpu_ms.map(|ms| format!("cpu_time {ms} ms")));
        notes.push(format!("it ran with limits: {}", words.join(", ")));
    }
    notes
}

fn usage_of(ended: &Ended) -> Usage {
    let ms = |time: Duration| Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let usage = &ended.usage;
    Usage { user_ms: ms(usage.user), system_ms: ms(usage.system), peak_memory: usage.peak_memory }
}

/// Whether there is no space left for a file on the file system of a folder.
fn is_full(folder: &Path) -> io::Result<bool> {
    let free = rustix::fs::statvfs(folder)?;
    Ok(free.f_bavail.saturating_mul(free.f_frsize) < FULL)
}

pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Unavailable> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Unavailable::new(doing, error))?;
    done.map_err(|error| Unavailable::new(doing, error))
}
