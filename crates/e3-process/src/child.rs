//! A child process as something that cannot be forgotten: it is waited for in any case.

#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, OwnedFd};
use std::{io, process::ExitStatus, sync::Arc};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    drain::Drain,
    run::Command,
    spawn,
    supervisor::Supervisor,
    wait::{Usage, take_status, until_ended},
};

/// How often a process is looked at that may have stopped.
#[cfg(target_os = "linux")]
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// A process in a group of its own. Dropping it kills the group and waits for the process.
pub(crate) struct Child {
    group: Pid,
    #[cfg(target_os = "linux")]
    handle: OwnedFd,
    taken: bool,
    supervisor: Option<Arc<Supervisor>>,
}

impl Child {
    /// Starts a process; returns it with its two streams.
    pub(crate) fn spawn(command: &Command) -> io::Result<(Self, Drain, Drain)> {
        let (program, arguments) = command.to_start()?;
        let start = || spawn::start(&program, &arguments, &command.environment, &command.folder);
        let supervisor = command.supervisor.clone();
        let started = match &supervisor {
            Some(supervisor) => supervisor.spawn(start)?,
            None => start()?,
        };
        // From here on the process is waited for, whatever happens.
        let this = Self {
            group: started.pid,
            #[cfg(target_os = "linux")]
            handle: started.handle,
            taken: false,
            supervisor,
        };
        Ok((this, Drain::new(started.stdout)?, Drain::new(started.stderr)?))
    }

    /// Returns when the process itself has ended, and whether it had to be killed because it wanted the terminal; the rest of
    /// its group may still be there. Waits without a thread, where the system has handles for processes that can be waited
    /// for like files.
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "tokio asks for a promise about what is waited for")]
    pub(crate) async fn ended(&self) -> io::Result<bool> {
        use tokio::io::{Interest, unix::AsyncFd};
        let handle = self.handle.as_fd();
        // SAFETY: the handle is open, and names one process, for as long as this child lives, which is borrowed here.
        let handle = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?;
        loop {
            // A process that stops makes no handle readable.
            match tokio::time::timeout(LOOK_EVERY, handle.readable()).await {
                Ok(ended) => return ended.map(|_| false),
                Err(_) if crate::wait::has_stopped_for_terminal(self.group)? => {
                    return until_ended(self.group).map(|_| true);
                }
                Err(_) => {}
            }
        }
    }

    /// Returns when the process itself has ended, and whether it had to be killed because it wanted the terminal; the rest of
    /// its group may still be there.
    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn ended(&self) -> io::Result<bool> {
        let group = self.group;
        tokio::task::spawn_blocking(move || until_ended(group)).await?
    }

    /// Whether the process itself has ended.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        crate::wait::has_ended(self.group)
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
