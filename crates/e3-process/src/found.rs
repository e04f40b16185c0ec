//! Finding the processes of a folder, and ending them.
//!
//! A process belongs to a folder if its temporary folder (`TMPDIR` as it was started) is in it; nobody has that who is not a
//! task, or was started by one. So does a child of this process that works in it, and every process below one that
//! belongs, and every one in the group that it leads. That finds what has left its group and its session, as daemons
//! do. Nobody else is touched: a shell that somebody has opened in the folder, or whose variables name it, is not a task's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
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

/// The names under which a folder may be known.
fn names_of(folder: &Path) -> Vec<PathBuf> {
    let mut names = vec![folder.to_owned()];
    // Gone or renamed, it has only the name under which it was known.
    names.extend(fs::canonicalize(folder).ok().filter(|other| other != folder));
    names
}

/// Whether a path, and what follows it, is a folder or something in it.
fn is_inside(path: &[u8], folder: &Path) -> bool {
    let rest = path.strip_prefix(folder.as_os_str().as_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// Whether a process was started with its temporary folder in one of these. Those of other users cannot be read, and are
/// not ours.
fn is_marked(pid: i32, folders: &[PathBuf]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    let temporary = variables.find_map(|variable| variable.strip_prefix(b"TMPDIR="));
    temporary.is_some_and(|path| folders.iter().any(|folder| is_inside(path, folder)))
}

fn works_in(pid: i32, folders: &[PathBuf]) -> bool {
    let path = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    folders.iter().any(|folder| is_inside(path.as_os_str().as_bytes(), folder))
}

/// The living processes of a folder, but for this one and those that it descends from.
fn belonging_to(folders: &[PathBuf]) -> io::Result<BTreeMap<i32, Stat>> {
    let own = getpid().as_raw_nonzero().get();
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that has ended meanwhile is none.
        all.extend(Stat::of(pid).filter(|stat| !stat.is_zombie).map(|stat| (pid, stat)));
    }
    let mut ancestor = Some(own);
    while let Some(stat) = ancestor.and_then(|pid| all.remove(&pid)) {
        ancestor = Some(stat.parent);
    }
    let belongs = |(pid, stat): &(&i32, &Stat)| {
        is_marked(**pid, folders) || (stat.parent == own && works_in(**pid, folders))
    };
    let mut found: BTreeSet<i32> = all.iter().filter(belongs).map(|(pid, _)| *pid).collect();
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
    let folders = names_of(folder);
    let mut names = Vec::new();
    for _ in 0..ROUNDS {
        let found = belonging_to(&folders)?;
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
    let listed = match children_text(own) {
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

/// What the system tells of the children of the main thread. Asked for after every task, so the file stays open: whoever reads it
/// from its beginning, and alone, is told anew.
fn children_text(own: i32) -> io::Result<String> {
    static FILE: Mutex<Option<File>> = Mutex::new(None);
    let mut file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = match &mut *file {
        Some(file) => file,
        none => none.insert(File::open(format!("/proc/self/task/{own}/children"))?),
    };
    read_anew(file)
}

/// All of a file that the system makes up as it is read, from its beginning.
fn read_anew(file: &File) -> io::Result<String> {
    // Less than a page: only the end of the file makes a read shorter.
    let (mut text, mut piece) = (Vec::new(), [0; 1 << 10]);
    loop {
        match file.read_at(&mut piece, text.len() as u64) {
            Ok(read) => {
                text.extend_from_slice(&piece[..read]);
                if read < piece.len() {
                    return String::from_utf8(text).map_err(io::Error::other);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_and_to_its_end() {
        let file = tempfile::tempfile().unwrap();
        for size in [0, 5, 1023, 1024, 1025, 2048, 3000] {
            file.set_len(0).unwrap();
            let text: String = ('a'..='z').cycle().take(size).collect();
            file.write_all_at(text.as_bytes(), 0).unwrap();
            assert_eq!(read_anew(&file).unwrap(), text);
        }
    }

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
