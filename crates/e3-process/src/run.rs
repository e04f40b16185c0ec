//! `run`: one process from start to end.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    future::poll_fn,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    child::Child,
    confine::{Confinement, Launch},
    launch::FAILED,
    outlet::{Failure, Outlet},
    supervisor::Supervisor,
    wait::Usage,
};

/// What to start. Nothing is inherited but the user, the limits and the root folder.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program: a path, or a name that is looked up in the `PATH` of `environment`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// All environment variables that it sees; each once, as programs differ in which of two they take.
    pub environment: BTreeMap<OsString, OsString>,
    /// Its working folder.
    pub folder: PathBuf,
    /// What it may use and see.
    pub confinement: Confinement,
    /// The launcher, for a process that is confined: a program that calls `launch` if its first argument is `LAUNCH`.
    pub launcher: Option<PathBuf>,
    /// Who watches over it and over what it leaves behind.
    pub supervisor: Option<Arc<Supervisor>>,
    /// The folder by which what it leaves behind is known: the working folder is in it, or a variable names it.
    pub home: PathBuf,
}

impl Command {
    /// The program and the arguments that are started: its own, or those of the launcher.
    pub(crate) fn to_start(&self) -> io::Result<(PathBuf, Cow<'_, [OsString]>)> {
        let program = self.find_program()?;
        if self.confinement.is_none() {
            return Ok((program, Cow::Borrowed(&self.arguments)));
        }
        let launcher = self.launcher.clone().ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "there is no launcher that could confine a process")
        })?;
        let launch = Launch {
            confinement: self.confinement.clone(),
            complaint: self.complaint_file(),
            program: program.into(),
            arguments: self.arguments.clone(),
        };
        Ok((launcher, Cow::Owned(launch.to_arguments())))
    }

    fn complaint_file(&self) -> PathBuf {
        self.home.join("launcher")
    }

    /// What the launcher has said, if it has.
    fn complaint(&self) -> io::Result<Option<String>> {
        if self.confinement.is_none() {
            return Ok(None);
        }
        match std::fs::read_to_string(self.complaint_file()) {
            Ok(complaint) => Ok(Some(complaint).filter(|complaint| !complaint.is_empty())),
            // It makes the file before anything else.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Some("the launcher failed, and could not even say why".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// The path of the program, looked up as it will see the file system.
    pub(crate) fn find_program(&self) -> io::Result<PathBuf> {
        if self.program.as_encoded_bytes().contains(&b'/') {
            return Ok(self.folder.join(&self.program));
        }
        let path = self.environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
        let candidates = std::env::split_paths(path.unwrap_or_default())
            .map(|folder| self.folder.join(folder).join(&self.program));
        let mut found = io::Error::from(io::ErrorKind::NotFound);
        for candidate in candidates {
            match rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK) {
                Ok(()) if candidate.is_file() => return Ok(candidate),
                Err(rustix::io::Errno::ACCESS) if candidate.is_file() => {
                    found = io::Error::from(io::ErrorKind::PermissionDenied);
                }
                _ => {}
            }
        }
        Err(found)
    }
}

/// When to stop a process before it ends by itself.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Asks for a polite end: SIGTERM, and SIGKILL after the grace. Who has stopped is let go on, to hear of it.
    pub politely: CancellationToken,
    /// Asks for an end at once: SIGKILL.
    pub at_once: CancellationToken,
    /// How long the process may take; then it is stopped politely.
    pub timeout: Option<Duration>,
    /// How long a process may take to end after SIGTERM.
    pub grace: Duration,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Ended {
    /// What its status says.
    pub exit: Exit,
    /// Whether it was stopped because it took too long.
    pub timed_out: bool,
    /// Whether it was stopped on request.
    pub stopped: bool,
    /// Whether it was killed because it wanted to use the terminal, and would have waited for that for ever.
    pub wants_terminal: bool,
    /// Whether a process that could not be found kept the output open, so that its last part may be missing.
    pub leaked: bool,
    /// The processes that had left the group and were found and ended, by name.
    pub strays: Vec<String>,
    /// Whether there is a child now that nobody knows: of a process that still runs, or one that hides, and may be this one's.
    pub unexplained: bool,
    /// What it used.
    pub usage: Usage,
}

/// What the status of a process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It ended with a code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

/// Why a process could not be run, or its output not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// It could not be started.
    #[error("{0}")]
    Spawn(#[source] io::Error),
    /// It could not be confined as it was to be.
    #[error("{0}")]
    Confine(String),
    /// Waiting for it, or reading from it, failed.
    #[error("{0}")]
    Wait(#[source] io::Error),
    /// Whoever takes the output failed. The process has been killed.
    #[error(transparent)]
    Output(E),
}

/// What takes a stream of output, piece by piece.
pub trait Output: Send {
    /// What can go wrong with that.
    type Error: Send;

    /// Takes the next piece. The process does not wait for this until the pipe is full.
    fn take(&mut self, piece: &[u8]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// How long the output may stay open after everybody who should be writing to it is dead.
const LEAK_GRACE: Duration = Duration::from_secs(1);

/// A process that ends sooner is not looked at before: its pipes hold what it has said. One that says more has to wait for so long.
const QUIET: Duration = Duration::from_millis(2);

/// Runs a process to its end.
///
/// Both streams are handed over as they come, each in order. When the process ends, what is left of its group is
/// killed. Dropping the future kills the group.
pub async fn run<Error: Send>(
    command: &Command,
    stop: &Stop,
    stdout: impl Output<Error = Error>,
    stderr: impl Output<Error = Error>,
) -> Result<Ended, RunError<Error>> {
    let (child, out, err) = Child::spawn(command).map_err(RunError::Spawn)?;
    let (over, failure) = (AtomicBool::new(false), Failure::default());
    let mut drains =
        pin!(async {
            let mut quiet = pin!(tokio::time::sleep(QUIET));
            // Who sets `over` looks here next: there is nobody to be woken.
            poll_fn(|context| {
                if over.load(Ordering::Relaxed) { Poll::Ready(()) } else { quiet.as_mut().poll(context) }
            })
            .await;
            let (stdout, stderr) = (Outlet::new(stdout, &failure), Outlet::new(stderr, &failure));
            tokio::try_join!(out.run(stdout), err.run(stderr)).map(drop).map_err(RunError::Wait)
        });
    let mut drained = false;

    // 1. The process itself.
    let mut timed_out = false;
    let mut stopped = false;
    let mut killed = false;
    let deadline = stop.timeout.map(|timeout| Instant::now() + timeout);
    let mut kill_at = None;
    // The shortest have ended before whoever has started them goes on: then there is nothing to be waited for.
    let wants_terminal = if child.has_ended().map_err(RunError::Wait)? {
        false
    } else {
        let mut ended = pin!(child.ended());
        loop {
            let signal = tokio::select! {
                done = &mut ended => break done.map_err(RunError::Wait)?,
                done = &mut drains, if !drained => {
                    drained = true;
                    done?;
                    continue;
                }
                () = failure.happened(), if !killed => Signal::KILL,
                () = stop.at_once.cancelled(), if !killed => {
                    stopped |= !timed_out;
                    Signal::KILL
                }
                () = stop.politely.cancelled(), if kill_at.is_none() => {
                    stopped = true;
                    Signal::TERM
                }
                () = until(deadline), if kill_at.is_none() => {
                    timed_out = true;
                    Signal::TERM
                }
                () = until(kill_at), if !killed => Signal::KILL,
            };
            killed |= signal == Signal::KILL;
            kill_at = kill_at.or(Some(Instant::now() + stop.grace));
            child.signal(signal).map_err(RunError::Wait)?;
            if signal == Signal::TERM {
                // Who has stopped hears of it only when it goes on.
                child.signal(Signal::CONT).map_err(RunError::Wait)?;
            }
        }
    };
    over.store(true, Ordering::Relaxed);

    // 2. The rest of its group, while the zombie keeps the group's number.
    child.signal(Signal::KILL).map_err(RunError::Wait)?;

    // 3. What has left the group.
    let (mut strays, mut unexplained) = (Vec::new(), false);
    if let Some(supervisor) = command.supervisor.clone()
        && supervisor.may_have_strays().map_err(RunError::Wait)?
    {
        let home = command.home.clone();
        let search = move || Ok((supervisor.end_strays(&home)?, supervisor.may_have_strays()?));
        let searched = tokio::task::spawn_blocking(search).await;
        (strays, unexplained) = searched.map_err(io::Error::other).flatten().map_err(RunError::Wait)?;
    }

    // 4. The rest of the output. Only a process that was not found can still hold it open.
    let mut leaked = false;
    if !drained {
        match tokio::time::timeout(LEAK_GRACE, &mut drains).await {
            Ok(done) => done?,
            Err(_) => leaked = true,
        }
    }

    let (status, usage) = child.take_status().map_err(RunError::Wait)?;
    if let Some(error) = failure.take() {
        return Err(RunError::Output(error));
    }
    if status.code() == Some(FAILED)
        && let Some(complaint) = command.complaint().map_err(RunError::Wait)?
    {
        return Err(RunError::Confine(complaint));
    }
    let exit = match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => return Err(RunError::Wait(io::Error::other(format!("unexpected status {status}")))),
    };
    Ok(Ended { exit, timed_out, stopped, wants_terminal, leaked, strays, unexplained, usage })
}

/// Waits until a moment, or for ever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests take their PATH from the environment")]
mod tests;
