//! A sandbox: namespaces hide other processes, the network and all files but those that are named.
//!
//! Three processes: the launcher, which waits and ends as the program does, with its code or its signal; an init, the first
//! process of the new namespace, whose end is the end of everything in it; and the program. A request for an end that
//! is sent to the group reaches the program alone, and it has its time to clean up.
//!
//! Files are fenced twice: mounts hide what is not to be seen (`hide`), and Landlock denies what would still be reachable.

use std::{
    fs,
    fs::File,
    io,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};
use rustix::{
    mount::{MountFlags, mount},
    process::{
        Pid, Signal, WaitOptions, getgid, getpid, getuid, kill_process, set_parent_process_death_signal,
        wait, waitpid,
    },
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::{
    confine::{Launch, Sandbox},
    hide::{SYSTEM, hide},
    launch,
};

/// The devices that every program may use.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// The rights that are asked for; a kernel that knows fewer denies fewer, but at least those of the first version.
const RIGHTS: ABI = ABI::V5;

/// Runs the program in its sandbox; returns its exit code. If a signal killed it, that signal kills this process.
pub(crate) fn run(launch: &Launch, complaint: &File) -> io::Result<i32> {
    let sandbox = launch.confinement.sandbox.clone().unwrap_or_default();
    separate(&sandbox)?;
    let (mut from_init, to_launcher) = io::pipe()?;
    // What asks for an end is for the program.
    ignore_requests(true);
    match fork()? {
        None => {
            drop(from_init);
            ignore_requests(false);
            let code = match init(launch, &sandbox, to_launcher) {
                Ok(()) => 0,
                Err(error) => launch::complain(complaint, &error),
            };
            end_now(code)
        }
        Some(init) => {
            drop(to_launcher);
            let mut status = [0; 4];
            let told = from_init.read_exact(&mut status);
            let init_status = waited(init)?;
            match told {
                Ok(()) => end_as(ExitStatus::from_raw(i32::from_ne_bytes(status))),
                // It has said why, or somebody has killed it.
                Err(_) => end_as(init_status),
            }
        }
    }
}

/// The first process of the namespace: confines itself, starts the program, and buries whoever is left to it.
fn init(launch: &Launch, sandbox: &Sandbox, mut to_launcher: io::PipeWriter) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let doing = |what: &str| {
        let what = what.to_owned();
        move |error: rustix::io::Errno| unavailable(&format!("{what}: {error}"))
    };
    hide(sandbox).map_err(|error| unavailable(&format!("hiding files: {error}")))?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", safe, None).map_err(doing("mounting a /proc of its own"))?;
    allow_only(sandbox)?;
    launch::limit(&launch.confinement)?;
    let program = Command::new(&launch.program)
        .args(&launch.arguments)
        .spawn()
        .map_err(|error| launch::starting(launch, &error))?;
    let program = program.id().cast_signed();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == program => {
                return to_launcher.write_all(&status.as_raw().to_ne_bytes());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Leaves the namespaces of the others; the next process that is started is the first of the new one.
fn separate(sandbox: &Sandbox) -> io::Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let mut flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    flags.set(UnshareFlags::NEWNET, !sandbox.network);
    leave(flags).map_err(|error| {
        unavailable(&format!(
            "making namespaces: {error} (are unprivileged user namespaces allowed? see kernel.unprivileged_userns_clone, \
             user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns)"
        ))
    })?;
    // user_namespaces(7): groups can be mapped without privileges only when nobody can leave one any more.
    let mapped = fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")));
    mapped.map_err(|error| unavailable(&format!("staying the same user: {error}")))
}

/// Denies this process, and all that it starts, every file but those that a sandbox shows.
fn allow_only(sandbox: &Sandbox) -> io::Result<()> {
    let status =
        restrict(sandbox).map_err(|error| unavailable(&format!("denying access to files: {error}")))?;
    if status == RulesetStatus::NotEnforced {
        return Err(unavailable(
            "this kernel does not know Landlock (Linux 5.13 or newer, with `landlock` in its `lsm=` list)",
        ));
    }
    Ok(())
}

fn restrict(sandbox: &Sandbox) -> Result<RulesetStatus, landlock::RulesetError> {
    let (all, read) = (AccessFs::from_all(RIGHTS), AccessFs::from_read(RIGHTS));
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
    let readable = SYSTEM.iter().map(std::path::Path::new).chain(sandbox.readable.iter().map(|path| &**path));
    let readable = readable.map(|path| (path, read));
    let devices = DEVICES.iter().map(|path| (std::path::Path::new(*path), AccessFs::from_file(RIGHTS)));
    let writable = sandbox.writable.iter().map(|path| (&**path, all));
    let found = readable.chain(devices).chain(writable).filter_map(|(path, access)| {
        // What is not there cannot be shown.
        PathFd::new(path).ok().map(|place| (place, access, path))
    });
    let found = found.map(|(place, access, path)| {
        // Rights on folders mean nothing for a file.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(RIGHTS) };
        Ok::<_, landlock::RulesetError>(PathBeneath::new(place, access))
    });
    Ok(rules.add_rules(found)?.restrict_self()?.ruleset)
}

fn unavailable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("a strict sandbox cannot be had: {what}"))
}

/// Ends this process as another one has ended.
fn end_as(status: ExitStatus) -> io::Result<i32> {
    let Some(signal) = status.signal() else { return Ok(status.code().unwrap_or(launch::FAILED)) };
    // The program has left its own memory image, if it was to leave one.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)?;
    ignore_requests(false);
    default_action(signal);
    let signal = Signal::from_named_raw(signal).unwrap_or(Signal::KILL);
    kill_process(getpid(), signal)?;
    Ok(launch::FAILED)
}

fn waited(pid: Pid) -> io::Result<ExitStatus> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ignores the signals that ask for an end, or not any more.
fn ignore_requests(ignore: bool) {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        if ignore { set_action(signal, libc::SIG_IGN) } else { default_action(signal) }
    }
}

fn default_action(signal: i32) {
    set_action(signal, libc::SIG_DFL);
}

#[expect(unsafe_code, reason = "neither std nor rustix sets the action of a signal")]
fn set_action(signal: i32, action: libc::sighandler_t) {
    // SAFETY: no handler is installed, only one of the two fixed actions; a signal that cannot be set is left alone.
    unsafe { libc::signal(signal, action) };
}

#[expect(unsafe_code, reason = "std and rustix have no fork")]
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the launcher has one thread, so the child's memory is whole and no lock is held by anybody else.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

#[expect(unsafe_code, reason = "the flags could take away from other threads what they rely on")]
fn leave(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: the launcher has one thread, and no flag here unshares file descriptors.
    unsafe { unshare_unsafe(flags) }
}

#[expect(unsafe_code, reason = "std's exit would run what the launcher has registered, a second time")]
fn end_now(code: i32) -> ! {
    // SAFETY: ends this process at once; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}
