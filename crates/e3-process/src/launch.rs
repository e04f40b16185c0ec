//! The launcher: puts limits on itself and becomes the program, or starts it in a sandbox.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::Command,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::confine::{Confinement, Launch};

/// The exit code of a launcher that could not do it. Whoever started it reads the complaint.
pub(crate) const FAILED: i32 = 125;

/// Does what the arguments behind `LAUNCH` say. Returns, with an exit code, only if that cannot be done, or if the program ran
/// in a sandbox and has ended with that code.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    // If nobody has said where to complain, or it cannot be done there, the exit code has to do.
    let Ok(launch) = Launch::from_arguments(arguments) else { return FAILED };
    let Ok(complaint) = File::create(&launch.complaint) else { return FAILED };
    let ended = if launch.confinement.sandbox.is_some() {
        crate::sandbox::run(&launch, &complaint)
    } else {
        become_program(&launch).map(|never| match never {})
    };
    ended.unwrap_or_else(|error| complain(&complaint, &error))
}

fn become_program(launch: &Launch) -> io::Result<std::convert::Infallible> {
    limit(&launch.confinement)?;
    let error = Command::new(&launch.program).args(&launch.arguments).exec();
    Err(starting(launch, &error))
}

pub(crate) fn starting(launch: &Launch, error: &io::Error) -> io::Error {
    let program = launch.program.display();
    let hint = match launch.confinement.sandbox {
        Some(_) if error.kind() == io::ErrorKind::NotFound => {
            ": its sandbox shows its inputs, its code and the folders of the system, and no other"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("starting `{program}`: {error}{hint}"))
}

/// Says what went wrong where it is looked for.
pub(crate) fn complain(mut complaint: &File, error: &io::Error) -> i32 {
    // On a full disk there is only the exit code to say that something went wrong.
    let _unsaid = complaint.write_all(error.to_string().as_bytes());
    FAILED
}

/// Limits this process and all that it starts.
pub(crate) fn limit(confinement: &Confinement) -> io::Result<()> {
    set("memory", Resource::As, confinement.memory, 0)?;
    set("open files", Resource::Nofile, confinement.open_files, 0)?;
    // A second after SIGXCPU, which can be caught, comes SIGKILL.
    set("CPU time", Resource::Cpu, confinement.cpu.as_ref().map(Duration::as_secs), 1)
}

fn set(what: &str, resource: Resource, limit: Option<u64>, more: u64) -> io::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    // Nobody may allow more than was allowed to it.
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let wanted =
        Rlimit { current: Some(limit.min(most)), maximum: Some(limit.saturating_add(more).min(most)) };
    setrlimit(resource, wanted)
        .map_err(|error| io::Error::other(format!("limiting {what} to {limit}: {error}")))
}
