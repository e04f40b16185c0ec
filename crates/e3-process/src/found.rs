//! Finding the processes of a folder, and ending them.
//!
//! A process belongs to a folder if its environment, as it was started, names something in it, or if it works in it; and
//! so does every process below one that belongs, and every one in its group. That finds what has left its group and
//! its session, as daemons do. What has also cleared its environment, changed its folder and lost its parent is not
//! found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal},
};

/// How long a process may take to be gone after SIGKILL; one that waits for a disk can take some time.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a search is repeated that keeps finding processes: they can start others while they are looked for.
const ROUNDS: usize = 100;

/// What the system says about a process: `proc_pid_stat(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) is_zombie: bool,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// In clock ticks since boot: tells two processes with one number apart.
    started: u64,
}

impl Stat {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name stands in parentheses, and may contain any character.
    fn parse(text: &str) -> Option<Self> {
        let (start, end) = (text.find('(')?, text.rfind(')')?);
        let mut fields = text.get(end + 1..)?.split_ascii_whitespace();
        let is_zombie = matches!(fields.next()?, "Z" | "X");
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self { name: text.get(start + 1..end)?.to_owned(), is_zombie, parent, group, started })
    }
}

/// Whether a process names the folder in its environment or works in it. Those of other users cannot be read, and are not
/// ours.
fn is_marked(pid: i32, folder: &Path) -> bool {
    let folder = folder.as_os_str().as_bytes();
    let at_border = |rest: &[u8]| matches!(rest.first(), None | Some(b'/' | b'\0' | b':'));
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut rest = &environment[..];
    while let Some(at) = rest.windows(folder.len()).position(|part| part == folder) {
        rest = &rest[at + folder.len()..];
        if at_border(rest) {
            return true;
        }
    }
    let works_in = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    works_in.as_os_str().as_bytes().strip_prefix(folder).is_some_and(at_border)
}

/// The living processes of a folder, but for this one.
fn belonging_to(folder: &Path) -> io::Result<BTreeMap<i32, Stat>> {
    let own = getpid().as_raw_nonzero().get();
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).filter(|pid| *pid != own) else {
            continue;
        };
        // One that has ended meanwhile is none.
        all.extend(Stat::of(pid).filter(|stat| !stat.is_zombie).map(|stat| (pid, stat)));
    }
    let mut found: BTreeSet<i32> = all.keys().copied().filter(|pid| is_marked(*pid, folder)).collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, stat)| {
                !found.contains(pid) && (found.contains(&stat.parent) || found.contains(&stat.group))
            })
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    all.retain(|pid, _| found.contains(pid));
    Ok(all)
}

/// Ends the processes of a folder with SIGKILL, and those that they start meanwhile. Returns the names of those that it
/// ended when all are gone.
pub fn end_processes_in(folder: &Path) -> io::Result<Vec<String>> {
    // As the system shows it to others.
    let folder = match fs::canonicalize(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for _ in 0..ROUNDS {
        let found = belonging_to(&folder)?;
        if found.is_empty() {
            return Ok(names);
        }
        for (pid, stat) in found {
            if end(pid, &stat)? {
                names.push(format!("{} (process {pid})", stat.name));
            }
        }
    }
    Err(io::Error::other(format!(
        "processes in `{}` keep starting others: {}",
        folder.display(),
        names.join(", ")
    )))
}

/// Ends one process, and waits until it is gone; whether it was still there.
fn end(pid: i32, stat: &Stat) -> io::Result<bool> {
    let Some(number) = Pid::from_raw(pid) else { return Ok(false) };
    let handle = match pidfd_open(number, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        other => other?,
    };
    // The handle is for whoever has the number now; that must be the one that was found.
    if Stat::of(pid).is_none_or(|now| now.started != stat.started) {
        return Ok(false);
    }
    match pidfd_send_signal(&handle, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        other => other?,
    }
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut ended = [PollFd::new(&handle, PollFlags::IN)];
    loop {
        match poll(&mut ended, Some(&patience)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                let message = format!("{} (process {pid}) does not end, although it was killed", stat.name);
                return Err(io::Error::other(message));
            }
            other => return Ok(other.map(|_| true)?),
        }
    }
}

/// The children of this process: those that it has started in its main thread, and those that it has inherited.
pub(crate) fn inherited_children() -> io::Result<Vec<i32>> {
    let own = getpid().as_raw_nonzero().get();
    let listed = match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => return Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()),
        // A kernel without CONFIG_PROC_CHILDREN: look at all processes.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read_dir("/proc")?,
        Err(error) => return Err(error),
    };
    let mut children = Vec::new();
    for entry in listed {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        children.extend(pid.filter(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == own)));
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "77 (a ) (b) S 5 70 70 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 200";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent, stat.group, stat.started), ("a ) (b", 5, 70, 4711));
        assert!(!stat.is_zombie);
        assert_eq!(Stat::parse("77 (a"), None);
        assert!(Stat::of(std::process::id().cast_signed()).is_some());
    }
}
