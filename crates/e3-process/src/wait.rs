//! Waiting for one process: first noticing that it has ended, then, separately, taking its status away.
//!
//! Between the two the process is a zombie that still owns its process id, and with it the id of its group. That is
//! the moment to signal the rest of the group: the number cannot mean anybody else yet.

use std::{io, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::memory;

/// What a process used, its children that it waited for included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The largest resident set of one process, in bytes; none if that is not known. To Linux what the process was before it
    /// had its program counts as well, which is this one: so nothing is known of who has not had more than this has.
    pub peak_memory: Option<u64>,
}

/// Blocks until the process has ended, and leaves its status to be taken. One that stops because it wants to use the
/// terminal, which is not its own, would wait for ever: it is killed. Returns whether that was so.
pub(crate) fn until_ended(pid: Pid) -> io::Result<bool> {
    let mut wants_terminal = false;
    loop {
        let wanted = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), wanted) {
            Ok(Some(status)) if status.stopped() => wants_terminal |= has_stopped_for_terminal(pid)?,
            Ok(_) => return Ok(wants_terminal),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a process has ended. Leaves its status to be taken.
pub(crate) fn has_ended(pid: Pid) -> io::Result<bool> {
    let wanted = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(pid), wanted) {
        Ok(status) => Ok(status.is_some()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process has stopped because it wants to use the terminal; then it is killed. That it has stopped is told once:
/// who stopped for another reason may be let go on.
pub(crate) fn has_stopped_for_terminal(pid: Pid) -> io::Result<bool> {
    match waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) if [libc::SIGTTIN, libc::SIGTTOU].map(Some).contains(&status.stopping_signal()) => {
            kill_process_group(pid, Signal::KILL)?;
            Ok(true)
        }
        // One that has just ended is no child of which there is anything to tell but its end.
        Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::CHILD) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the status of a child away if it has ended; whether it had, or is no child.
pub(crate) fn bury(pid: i32) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(true) };
    match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(status) => Ok(status.is_some()),
        Err(rustix::io::Errno::CHILD) => Ok(true),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the status of a process that has ended. Its process id is free afterwards.
#[expect(
    unsafe_code,
    reason = "neither std nor rustix offers wait4, the only call that tells the usage of one child"
)]
pub(crate) fn take_status(pid: Pid) -> io::Result<(ExitStatus, Usage)> {
    let mut status = 0;
    // SAFETY: rusage is a plain C struct of integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, writable values of the types that wait4 asks for.
        let taken = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
        if taken >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // Linux counts in KiB, macOS in bytes (getrusage(2) of each).
    let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0) * if cfg!(target_os = "macos") { 1 } else { 1024 };
    let usage = Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        peak_memory: Some(peak).filter(|peak| !memory::has_had(*peak)),
    };
    Ok((ExitStatus::from_raw(status), usage))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u32::try_from(time.tv_usec).unwrap_or(0);
    Duration::new(seconds, micros * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It may end in the moment in which somebody looks whether it has stopped.
    #[test]
    fn a_process_that_has_ended_has_not_stopped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        assert!(!until_ended(pid).unwrap());
        assert!(has_ended(pid).unwrap());
        assert!(!has_stopped_for_terminal(pid).unwrap());
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_process_that_runs_has_not_ended() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        assert!(!has_ended(pid).unwrap());
        drop(child.stdin.take());
        assert!(!until_ended(pid).unwrap());
        assert!(child.wait().unwrap().success());
    }
}
