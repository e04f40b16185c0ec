//! `Supervisor`: whatever the processes of this process do, none outlives it or its own task.
//!
//! Three things work together. This process is a *subreaper* (prctl(2)): what loses its parent becomes its child, and is
//! found when the task that started it ends. What is found belongs to the folder in which that task ran. And a *watchdog*,
//! a small process of its own, does the same for all folders when this process dies, however it dies: it holds the
//! other end of a pipe that the kernel closes then.
//!
//! None of this costs a started process anything: there is nothing of it between the process and its program. A
//! parent-death signal would be, and would not reach the children of a child.
//!
//! There is one supervisor for a process, and everything that the process starts is started with it: what it does not know, it
//! takes for something that was left behind.
//!
//! Limits: if the watchdog is killed together with this process, what is left is found by whoever next asks for the folder
//! (`end_processes_in`). Outside of Linux there is neither subreaper nor /proc, and a process that leaves its group is
//! not found.

use std::{
    collections::HashSet,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
};

use rustix::process::Pid;

use crate::spawn::Started;

/// Watches over the processes that are started with it.
#[derive(Debug)]
pub struct Supervisor {
    /// The folder that all of them belong to.
    folder: PathBuf,
    /// How to start the watchdog.
    watchdog_program: Option<PathBuf>,
    watchdog: Mutex<Option<process::Child>>,
    /// Shared while a process is started or its status taken, so that who holds it alone knows all children.
    children: RwLock<()>,
    /// The children that somebody waits for.
    known: Mutex<HashSet<i32>>,
    /// The children that were there before, which are nobody's business.
    foreign: OnceLock<HashSet<i32>>,
}

/// The argument with which a program is started that is to call `watch`.
pub const WATCHDOG: &str = "internal-watchdog";

impl Supervisor {
    /// A supervisor for processes that run in folders below `folder`. `watchdog_program` is a program that calls `watch` if its
    /// first argument is `WATCHDOG`; without one, nobody is there when this process is killed.
    pub fn new(folder: PathBuf, watchdog_program: Option<PathBuf>) -> Self {
        Self {
            folder,
            watchdog_program,
            watchdog: Mutex::default(),
            children: RwLock::default(),
            known: Mutex::default(),
            foreign: OnceLock::new(),
        }
    }

    /// Starts a process and remembers that somebody waits for it.
    pub(crate) fn spawn(&self, start: impl FnOnce() -> io::Result<Started>) -> io::Result<Started> {
        self.begin()?;
        let _shared = self.children.read().unwrap_or_else(PoisonError::into_inner);
        let started = start()?;
        lock(&self.known).insert(started.pid.as_raw_nonzero().get());
        Ok(started)
    }

    /// Calls `take`, which takes the status of a process that was started here.
    pub(crate) fn take_status<T>(&self, pid: Pid, take: impl FnOnce() -> T) -> T {
        let _shared = self.children.read().unwrap_or_else(PoisonError::into_inner);
        // Before its number is free for another one.
        lock(&self.known).remove(&pid.as_raw_nonzero().get());
        take()
    }

    /// Before a process is started: there is somebody to watch over it, or nobody was asked for.
    fn begin(&self) -> io::Result<()> {
        let mut watchdog = lock(&self.watchdog);
        if self.foreign.get().is_none() {
            let before = children()?;
            become_subreaper()?;
            self.foreign.get_or_init(|| before.into_iter().collect());
        }
        match watchdog.as_mut().map(process::Child::try_wait).transpose()? {
            Some(None) => return Ok(()),
            // Somebody has ended it; the next one knows as much.
            Some(Some(_)) => {
                let number = watchdog.as_ref().map(|child| child.id().cast_signed());
                lock(&self.known).retain(|pid| Some(*pid) != number);
                tracing::info!("the watchdog has ended: starting another one");
            }
            None => {}
        }
        *watchdog = self.start_watchdog()?;
        Ok(())
    }

    fn start_watchdog(&self) -> io::Result<Option<process::Child>> {
        let Some(program) = self.watchdog_program.as_ref().filter(|_| cfg!(target_os = "linux")) else {
            return Ok(None);
        };
        let mut command = process::Command::new(program);
        command
            .arg(WATCHDOG)
            .arg(&self.folder)
            .env_clear()
            .current_dir("/")
            .stdin(process::Stdio::piped())
            .stdout(process::Stdio::null())
            .stderr(process::Stdio::null())
            // A Ctrl-C in the terminal is not meant for it.
            .process_group(0);
        let _shared = self.children.read().unwrap_or_else(PoisonError::into_inner);
        let child = crate::processors::on_all(|| command.spawn())?;
        lock(&self.known).insert(child.id().cast_signed());
        Ok(Some(child))
    }

    /// Whether there may be something that a task has left. Costs one look at one small file, and holds nobody up.
    pub(crate) fn may_have_strays(&self) -> io::Result<bool> {
        let children = children()?;
        let known = lock(&self.known);
        Ok(children.iter().any(|pid| !known.contains(pid) && !self.is_foreign(*pid)))
    }

    fn is_foreign(&self, pid: i32) -> bool {
        self.foreign.get().is_some_and(|foreign| foreign.contains(&pid))
    }

    /// Ends what a task has left that ran in `folder` and whose own process has ended. Returns the names.
    pub(crate) fn end_strays(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut seen = self.inherited()?;
        let mut names = Vec::new();
        while !seen.is_empty() {
            names.extend(crate::found::end_processes_in(folder)?);
            // Buries them. Who is still there is a child of a task that runs, or hides; but who was inherited meanwhile may have been
            // left by one that ended while it was looked at, and by whom it would have been found.
            let now = self.inherited()?;
            if now.iter().all(|pid| seen.contains(pid)) {
                break;
            }
            seen = now;
        }
        Ok(names)
    }

    /// The inherited children that live; those that have ended are buried.
    fn inherited(&self) -> io::Result<Vec<i32>> {
        let _alone = self.children.write().unwrap_or_else(PoisonError::into_inner);
        let known = lock(&self.known);
        loop {
            let (mut alive, mut has_buried) = (Vec::new(), false);
            for pid in children()? {
                if known.contains(&pid) || self.is_foreign(pid) {
                    continue;
                }
                if crate::wait::bury(pid)? {
                    has_buried = true;
                } else {
                    alive.push(pid);
                }
            }
            // What one has left that has ended since they were listed is inherited now.
            if !has_buried {
                return Ok(alive);
            }
        }
    }
}

/// The children that this process has inherited, and perhaps others.
fn children() -> io::Result<Vec<i32>> {
    if cfg!(target_os = "linux") { crate::found::inherited_children() } else { Ok(Vec::new()) }
}

impl Supervisor {
    /// Ends all that was inherited: no task runs any more that it could belong to. Where there were children before, it could be
    /// theirs as well; then only what is known by its folder is ended.
    fn end_rest(&self) -> io::Result<()> {
        if self.foreign.get().is_some_and(|foreign| !foreign.is_empty()) {
            crate::found::end_processes_in(&self.folder)?;
            return self.inherited().map(drop);
        }
        loop {
            let rest = self.inherited()?;
            if rest.is_empty() {
                return Ok(());
            }
            for pid in rest.into_iter().filter_map(Pid::from_raw) {
                // A child that nobody has buried: the number is its own.
                match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
                match crate::wait::until_ended(pid) {
                    Err(error) if error.raw_os_error() != Some(libc::ECHILD) => return Err(error),
                    _ => {}
                }
            }
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.foreign.get().is_none() {
            return;
        }
        if let Err(error) = self.end_rest() {
            tracing::warn!(%error, folder = %self.folder.display(), "could not end all processes");
        }
        let Some(mut child) = lock(&self.watchdog).take() else { return };
        // A word instead of the end of the pipe: nothing is to be done.
        let told = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(b"."));
        if let Err(error) = told.and_then(|()| child.wait().map(drop)) {
            tracing::debug!(%error, "the watchdog has ended before");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn become_subreaper() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// What a watchdog does: waits on standard input until the process that started it says that all is well or dies, and
/// ends the processes in its folder if it has died.
pub fn watch(folder: &Path) -> io::Result<()> {
    let mut word = [0];
    loop {
        match io::Read::read(&mut io::stdin(), &mut word) {
            Ok(0) => break,
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // One that was just being started has the folder in its environment a moment later.
    for _ in 0..3 {
        crate::found::end_processes_in(folder)?;
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        rustix::event::poll(&mut [], Some(&moment))?;
    }
    crate::found::end_processes_in(folder).map(drop)
}
