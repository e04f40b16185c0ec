//! Starting a process where the system has no handles for them: as the standard library does, through `posix_spawn`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Pid;

/// A process that was started, with the other ends of its streams.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts `program`, which is a path, in a group of its own, without input.
pub(crate) fn start(
    program: &Path,
    arguments: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
    folder: &Path,
) -> io::Result<Started> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    Ok(Started {
        pid: i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id is a positive i32"),
        stdout: child.stdout.take().expect("stdout is a pipe").into(),
        stderr: child.stderr.take().expect("stderr is a pipe").into(),
    })
}
