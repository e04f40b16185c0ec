//! `task_execute`: the one implementation of executing a task.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use e3_core::{
    Clock, ExecutionContext, Holder, LogError, LogStream, ObjectError, Outcome, OutputSink, StorageBackend,
    TaskExecuteOptions, TaskResult, Unavailable, Usage, packages, perform,
};
use e3_process::{Command, Confinement, Ended, Exit, RunError, Stop, Supervisor};
use e3_types::{
    ErrorClass, ExecutionId, Failure, Hash, Kind, ObjectRef, Sandbox, TaskInput, TaskLimits, TaskObject,
};

use crate::{
    command::{self, ToStart},
    environment, guard, output,
    scratch::{Scratch, Scratches},
    stage::{StageError, StagedFile, StagingError, stage_inputs},
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
const CLEARING: &str = "clearing a scratch folder";

/// With fewer bytes than this a disk counts as full: some file systems keep a little that nobody can use.
const FULL: u64 = 16 << 10;

/// Executes a task, or finds that it was done before: look up, stage, spawn, capture, store, record.
pub async fn task_execute(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    workshop: &Workshop,
    task: Hash,
    inputs: &[Hash],
    options: &TaskExecuteOptions,
) -> TaskResult {
    let context = ExecutionContext { storage, clock, holder: &workshop.holder, runner: &workshop.runner };
    perform(context, task, inputs, options, |execution| async move {
        let mut outcome =
            Outcome { verdict: Err(Failure::Cancelled), usage: Usage::default(), notes: Vec::new() };
        let work = Execution { storage, workshop, execution, options };
        outcome.verdict = work.carry_out(task, inputs, &mut outcome).await.map_err(|stopped| stopped.0);
        outcome
    })
    .await
}

struct Execution<'a> {
    storage: &'a dyn StorageBackend,
    workshop: &'a Workshop,
    execution: ExecutionId,
    options: &'a TaskExecuteOptions,
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

    fn staging(error: StagingError) -> Self {
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

impl Execution<'_> {
    /// Does it; what is known of it beside its verdict is written to `outcome`.
    async fn carry_out(
        &self,
        task: Hash,
        inputs: &[Hash],
        outcome: &mut Outcome,
    ) -> Result<ObjectRef, Stopped> {
        let scratches = &self.workshop.scratches;
        let mut scratch = scratches
            .take_for(task, inputs.len())
            .map_err(|error| Unavailable::new(making(scratches.folder()), error))?;
        let verdict = self.in_scratch(&mut scratch, task, inputs, outcome).await;
        if let Err(error) = self.clear(scratch).await {
            // The result stands; what is left goes with the next start.
            tracing::warn!(%error, execution = %self.execution, "a scratch folder was left behind");
        }
        verdict
    }

    /// Makes a scratch folder ready for the next task.
    async fn clear(&self, mut scratch: Scratch) -> Result<(), Unavailable> {
        let scratches = Arc::clone(&self.workshop.scratches);
        // A few files; a task that makes folders may have made large ones.
        let is_quick = scratch.examine();
        let keep_in = self.workshop.keep_in.clone().map(|folder| (folder, self.execution.to_string()));
        let clear = move || match keep_in {
            Some((folder, name)) => {
                fs::create_dir_all(&folder).and_then(|()| scratch.keep(&folder.join(name)))
            }
            None => scratches.give_back(scratch),
        };
        if is_quick {
            return clear().map_err(|error| Unavailable::new(CLEARING, error));
        }
        blocking(CLEARING, clear).await
    }

    async fn in_scratch(
        &self,
        scratch: &mut Scratch,
        task: Hash,
        inputs: &[Hash],
        outcome: &mut Outcome,
    ) -> Result<ObjectRef, Stopped> {
        let hash = task;
        let task = packages::load_task(self.storage, hash)
            .await
            .map_err(|error| Stopped::error(error.class(), error.to_string()))?;
        if task.inputs.len() != inputs.len() {
            let (wanted, given) = (task.inputs.len(), inputs.len());
            let message = format!("the task has {wanted} inputs, but was given {given}");
            return Err(Stopped::error(ErrorClass::Internal, message));
        }
        let (work, temporary) = (scratch.work(), scratch.temporary());
        let stays = self.may_stay(scratch, &task)?;
        let again = scratch.has_inputs();
        let staged =
            stage_inputs(self.storage, &task, inputs, &work, again).await.map_err(Stopped::staging)?;

        let mut environment = environment::of_task(&task, &self.workshop.environment, &temporary);
        let ToStart { words, otherwise } = command::to_start(&task)?;
        let confinement = self.confinement(&work, &temporary);
        let (words, otherwise) = match otherwise {
            // A launcher cannot tell what a shell would have made of it.
            Some(in_shell) if !confinement.is_none() => (in_shell, None),
            other => (words, other),
        };
        if otherwise.is_some() {
            // As the shell tells it, which is not there; like a shell, whatever the task has declared.
            environment.insert("PWD".into(), work.clone().into());
        }
        let mut command = Command {
            program: words.0,
            arguments: words.1,
            environment,
            folder: work.clone(),
            confinement,
            launcher: self.workshop.launcher.clone(),
            supervisor: self.workshop.supervisor.clone(),
            home: scratch.path().to_owned(),
        };
        // Until it is known that nothing of this task can still be at work in it.
        scratch.retire(true);
        let mut ended = self.spawn(&command, &mut outcome.notes).await;
        if let (Err(RunError::Spawn(_)), Some(words)) = (&ended, otherwise) {
            (command.program, command.arguments) = words;
            ended = self.spawn(&command, &mut outcome.notes).await;
        }
        let ended = ended.map_err(|error| not_run(&command, error));
        // Looked at in any case: an altered file must be known, however the task ended.
        let (changed, gone) = if staged.len() <= guard::FEW {
            guard::look(staged).map_err(|error| Unavailable::new(LOOKING, error))?
        } else {
            blocking(LOOKING, move || guard::look(staged)).await?
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
        if let Some(released) = &self.options.released {
            released();
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
        if stays {
            scratch.stay_for(hash);
        }
        output::adopt(self.storage, task.output, &work)
            .await
            .map_err(|error| Stopped::error(error.class(), error.to_string()))
    }

    /// Whether the inputs may be left where they are staged, for the next execution of the task: if they are many and all
    /// alike, links to objects. What is left of the last one and does not belong to this one is removed.
    fn may_stay(&self, scratch: &mut Scratch, task: &TaskObject) -> Result<bool, Unavailable> {
        let names: Option<HashSet<&str>> = task.inputs.iter().map(name_of_a_link).collect();
        let stays = names.is_some() && self.workshop.scratches.leaves(task.inputs.len());
        if scratch.has_inputs() {
            let cleared = scratch.keep_inputs(&names.unwrap_or_default());
            cleared.map_err(|error| Unavailable::new(CLEARING, error))?;
        }
        Ok(stays)
    }

    fn confinement(&self, work: &Path, temporary: &Path) -> Confinement {
        let TaskLimits { memory, open_files, cpu_ms } = self.options.limits;
        let sandbox = match self.options.sandbox {
            Sandbox::Off => None,
            Sandbox::Strict { network } => Some(e3_process::Sandbox {
                writable: vec![work.to_owned(), temporary.to_owned()],
                readable: self.workshop.sandbox_readable.clone(),
                network,
            }),
        };
        Confinement { memory, open_files, cpu: cpu_ms.map(Duration::from_millis), sandbox }
    }

    async fn spawn(&self, command: &Command, notes: &mut Vec<String>) -> Result<Ended, RunError<LogError>> {
        let stop = Stop {
            politely: self.options.cancellation.stop.clone(),
            at_once: self.options.cancellation.kill.clone(),
            timeout: self.options.timeout,
            grace: self.workshop.grace,
        };
        let cut = [AtomicU64::new(0), AtomicU64::new(0)];
        let log = |stream, sink: &Option<OutputSink>, cut| Log {
            storage: self.storage,
            execution: self.execution,
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

/// The name of an input that is staged as a link to its object.
fn name_of_a_link(input: &TaskInput) -> Option<&str> {
    match input {
        TaskInput { name: Some(name), kind: Kind::File | Kind::Json, writable: false } => Some(name.as_str()),
        _ => None,
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
    Usage { user_ms: ms(usage.user), system_ms: ms(usage.system), peak_memory: Some(usage.peak_memory) }
}

/// Whether there is no space left for a file on the file system of a folder.
fn is_full(folder: &Path) -> io::Result<bool> {
    let free = rustix::fs::statvfs(folder)?;
    Ok(free.f_bavail.saturating_mul(free.f_frsize) < FULL)
}

fn making(folder: &Path) -> String {
    format!("making a scratch folder in `{}`", folder.display())
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Unavailable> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Unavailable::new(doing, error))?;
    done.map_err(|error| Unavailable::new(doing, error))
}
