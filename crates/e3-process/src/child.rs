//! A child process as something that cannot be forgotten: it is waited for in any case.

use std::{io, os::unix::process::CommandExt, process, process::ExitStatus, sync::Arc};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    drain::Drain,
    run::Command,
    supervisor::Supervisor,
    wait::{Usage, take_status, until_ended},
};

/// How often a process is looked at that may have stopped.
#[cfg(target_os = "linux")]
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// A process in a group of its own. Dropping it kills the group and waits for the process.
pub(crate) struct Child {
    group: Pid,
    taken: bool,
    supervisor: Option<Arc<Supervisor>>,
}

impl Child {
    /// Starts a process; returns it with its two streams.
    pub(crate) fn spawn(command: &Command) -> io::Result<(Self, Drain, Drain)> {
        let (program, arguments) = command.to_start()?;
        let mut start = process::Command::new(program);
        start
            .args(arguments)
            .env_clear()
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&command.folder)
            .stdin(process::Stdio::null())
            .stdout(process::Stdio::piped())
            .stderr(process::Stdio::piped())
            .process_group(0);
        let supervisor = command.supervisor.clone();
        let mut child = match &supervisor {
            Some(supervisor) => supervisor.spawn(&mut start)?,
            None => start.spawn()?,
        };
        let group =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id is a positive i32");
        // From here on the process is waited for, whatever happens.
        let this = Self { group, taken: false, supervisor };
        let stdout = Drain::new(child.stdout.take().expect("stdout is a pipe"))?;
        let stderr = Drain::new(child.stderr.take().expect("stderr is a pipe"))?;
        Ok((this, stdout, stderr))
    }

    /// Returns when the process itself has ended, and whether it had to be killed because it wanted the terminal; the rest of
    /// its group may still be there.
    pub(crate) fn ended(&self) -> impl Future<Output = io::Result<bool>> + use<> {
        until_ended_async(self.group)
    }

    /// Sends a signal to the group. That nobody is left to receive it is fine.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match kill_process_group(self.group, signal) {
            // macOS answers EPERM when only zombies are left.
            Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the status of the process, which must have ended.
    pub(crate) fn take_status(mut self) -> io::Result<(ExitStatus, Usage)> {
        self.take()
    }

    fn take(&mut self) -> io::Result<(ExitStatus, Usage)> {
        self.taken = true;
        match &self.supervisor {
            Some(supervisor) => supervisor.take_status(self.group, || take_status(self.group)),
            None => take_status(self.group),
        }
    }
}

/// Waits without a thread, where the system has handles for processes that can be waited for like files: `pidfd_open(2)`.
#[cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "tokio asks for a promise about what is waited for")
)]
async fn until_ended_async(pid: Pid) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open};
        use tokio::io::{Interest, unix::AsyncFd};
        let handle = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` names one file for as long as it lives, and it is never taken out of here.
        let handle = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?;
        loop {
            // A process that stops makes no handle readable.
            match tokio::time::timeout(LOOK_EVERY, handle.readable()).await {
                Ok(ended) => return ended.map(|_| false),
                Err(_) if crate::wait::has_stopped_for_terminal(pid)? => {
                    return until_ended(pid).map(|_| true);
                }
                Err(_) => {}
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    tokio::task::spawn_blocking(move || until_ended(pid)).await?
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        // The backstop, for a future that was dropped in the middle. SIGKILL cannot be refused, so this is short.
        let killed = self.signal(Signal::KILL).and_then(|()| self.take().map(drop));
        if let Err(error) = killed {
            tracing::error!(%error, pid = self.group.as_raw_nonzero().get(), "could not end a process");
        }
    }
}
