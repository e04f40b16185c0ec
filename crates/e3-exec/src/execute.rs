//! `task_execute`: the one implementation of executing a task.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use e3_core::{
    Clock, ExecutionContext, Holder, LogError, LogStream, Outcome, OutputSink, StorageBackend,
    TaskExecuteOptions, TaskResult, Unavailable, Usage, packages, perform,
};
use e3_process::{Command, Ended, Exit, RunError, Stop};
use e3_types::{CommandLine, ErrorClass, ExecutionId, Failure, Hash, Name, ObjectRef, TaskObject, Template};

use crate::{
    environment, output,
    stage::{OUTPUT, StagedFile, stage_inputs, staged_path},
};

/// Where and how the tasks of one process run.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The folder for scratch folders; best on the file system of the objects. It must be there.
    pub scratch: PathBuf,
    /// The variables that every task inherits: see `inherited`.
    pub environment: Vec<(OsString, OsString)>,
    /// How long a task may take to end after SIGTERM.
    pub grace: Duration,
    /// Where scratch folders go when their task has ended; they are removed if there is no such place. It must be on the
    /// file system of `scratch`.
    pub keep_in: Option<PathBuf>,
    /// On whose behalf.
    pub holder: Holder,
    /// The runner's name, for the record.
    pub runner: String,
}

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
        let mut usage = Usage::default();
        let work = Execution { storage, workshop, execution, options };
        let verdict = work.carry_out(task, inputs, &mut usage).await.map_err(|stopped| stopped.0);
        Outcome { verdict, usage }
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
struct Stopped(Failure);

impl Stopped {
    fn error(class: ErrorClass, message: impl Into<String>) -> Self {
        Self(Failure::Error { class, message: message.into() })
    }
}

impl From<Unavailable> for Stopped {
    fn from(error: Unavailable) -> Self {
        Self::error(ErrorClass::Environment, error.to_string())
    }
}

impl Execution<'_> {
    async fn carry_out(&self, task: Hash, inputs: &[Hash], usage: &mut Usage) -> Result<ObjectRef, Stopped> {
        let scratch = self.workshop.scratch.join(self.execution.to_string());
        let verdict = self.in_scratch(&scratch, task, inputs, usage).await;
        let keep_in = self.workshop.keep_in.clone();
        let cleared = blocking("clearing a scratch folder", move || match (&keep_in, scratch.file_name()) {
            (Some(kept), Some(name)) => {
                fs::create_dir_all(kept).and_then(|()| fs::rename(&scratch, kept.join(name)))
            }
            _ => remove(&scratch),
        });
        if let Err(error) = cleared.await {
            // The result stands; what is left goes with the next start.
            tracing::warn!(%error, execution = %self.execution, "a scratch folder was left behind");
        }
        verdict
    }

    async fn in_scratch(
        &self,
        scratch: &Path,
        task: Hash,
        inputs: &[Hash],
        usage: &mut Usage,
    ) -> Result<ObjectRef, Stopped> {
        let task = packages::load_task(self.storage, task)
            .await
            .map_err(|error| Stopped::error(error.class(), error.to_string()))?;
        if task.inputs.len() != inputs.len() {
            let (wanted, given) = (task.inputs.len(), inputs.len());
            let message = format!("the task has {wanted} inputs, but was given {given}");
            return Err(Stopped::error(ErrorClass::Internal, message));
        }
        let work = scratch.join("work");
        let temporary = scratch.join("tmp");
        let folders = [work.join("inputs"), temporary.clone()];
        blocking("making a scratch folder", move || folders.iter().try_for_each(fs::create_dir_all)).await?;
        let staged = stage_inputs(self.storage, &task, inputs, &work)
            .await
            .map_err(|error| Stopped::error(error.class(), format!("staging the inputs: {error}")))?;

        let command =
            command(&task, &work, environment::of_task(&task, &self.workshop.environment, &temporary))?;
        let ended = self.spawn(&command).await?;
        *usage = usage_of(&ended);
        // Looked at in any case: an altered file must be known, however the task ended.
        let changed = blocking("looking at the staged files", move || first_changed(&staged)).await?;
        self.judge(&ended)?;
        if let Some(path) = changed {
            let path = path.strip_prefix(&work).unwrap_or(&path).display().to_string();
            let input = path.strip_prefix("inputs/").and_then(|path| path.split('/').next());
            let hint = input.map(|name| format!(": `writable = [\"{name}\"]` gives it a private copy"));
            let message = format!(
                "the task changed its staged file `{path}`, which is read-only{}",
                hint.unwrap_or_default()
            );
            return Err(Stopped::error(ErrorClass::User, message));
        }
        output::adopt(self.storage, task.output, &work)
            .await
            .map_err(|error| Stopped::error(error.class(), error.to_string()))
    }

    async fn spawn(&self, command: &Command) -> Result<Ended, Stopped> {
        let stop = Stop {
            politely: self.options.cancellation.stop.clone(),
            at_once: self.options.cancellation.kill.clone(),
            timeout: self.options.timeout,
            grace: self.workshop.grace,
        };
        let log = |stream, sink: &Option<OutputSink>| Log {
            storage: self.storage,
            execution: self.execution,
            stream,
            sink: sink.clone(),
        };
        let stdout = log(LogStream::Stdout, &self.options.stdout);
        let stderr = log(LogStream::Stderr, &self.options.stderr);
        let program = command.program.to_string_lossy();
        e3_process::run(command, &stop, stdout, stderr).await.map_err(|error| match error {
            RunError::Spawn(error) => cannot_start(&program, &error),
            RunError::Wait(error) => {
                Stopped::error(ErrorClass::Environment, format!("waiting for `{program}`: {error}"))
            }
            RunError::Output(error) => Stopped::error(ErrorClass::Environment, error.to_string()),
        })
    }

    /// What the end of the process means, if it is not success.
    fn judge(&self, ended: &Ended) -> Result<(), Stopped> {
        if ended.leaked {
            tracing::warn!(execution = %self.execution, "a process that left its group kept the output open");
        }
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
}

impl e3_process::Output for Log<'_> {
    type Error = LogError;

    async fn take(&mut self, piece: &[u8]) -> Result<(), LogError> {
        self.storage.logs().append(self.execution, self.stream, piece).await?;
        if let Some(sink) = &self.sink {
            sink(piece);
        }
        Ok(())
    }
}

fn command(
    task: &TaskObject,
    work: &Path,
    environment: Vec<(OsString, OsString)>,
) -> Result<Command, Stopped> {
    let staged: Vec<(&Name, String)> = task
        .inputs
        .iter()
        .filter_map(|input| Some((input.name.as_ref()?, staged_path(input.name.as_ref()?))))
        .collect();
    let place = |name: &Name| {
        let input = staged.iter().find(|(input, _)| *input == name).map(|(_, path)| path.as_str());
        input.or_else(|| (name.as_str() == OUTPUT).then_some(OUTPUT))
    };
    let mut words = match &task.command {
        CommandLine::Shell(_) => vec![OsString::from("sh"), OsString::from("-ec")],
        CommandLine::Argv(_) => Vec::new(),
    };
    for word in task.command.words() {
        let expanded = Template::parse(word).expand(place).map_err(|name| {
            Stopped::error(
                ErrorClass::User,
                format!("the command asks for `{{{name}}}`, which is not an input"),
            )
        })?;
        words.push(expanded.into());
    }
    let mut words = words.into_iter();
    let program = words.next().ok_or_else(|| Stopped::error(ErrorClass::User, "the command is empty"))?;
    Ok(Command { program, arguments: words.collect(), environment, folder: work.to_owned() })
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

fn first_changed(staged: &[StagedFile]) -> io::Result<Option<PathBuf>> {
    for file in staged {
        if file.was_changed()? {
            return Ok(Some(file.path.clone()));
        }
    }
    Ok(None)
}

fn usage_of(ended: &Ended) -> Usage {
    let ms = |time: Duration| Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let usage = &ended.usage;
    Usage { user_ms: ms(usage.user), system_ms: ms(usage.system), peak_memory: Some(usage.peak_memory) }
}

/// Removes a scratch folder, also one in which the task has taken permissions away.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_folders(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Unavailable> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Unavailable::new(doing, error))?;
    done.map_err(|error| Unavailable::new(doing, error))
}
