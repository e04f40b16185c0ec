//! Starting a process, as cheaply as the system can: the child borrows this process's memory until it has become its program, so
//! nothing is copied, and it does what a child has to do in a dozen system calls.
//!
//! The standard library goes through `posix_spawn(3)`, which does the same; but it makes a stack for each child, asks about each
//! of 64 signals, and the handle by which the child is waited for is a call of its own. For tasks that take a tenth of a
//! millisecond that was a third of the cost of starting them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    mem::MaybeUninit,
    ops::Range,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering},
    },
};

use libc::{c_char, c_int, c_void};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    pipe::{PipeFlags, pipe_with},
    process::Pid,
    thread::CpuSet,
};

use crate::{
    processors,
    scheduling::{giving_way, set_policy},
};

/// A process that was started, with the other ends of its streams.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// Its handle, by which it can be waited for: `pidfd_open(2)`.
    pub(crate) handle: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What the child needs, made before it is there: it must not allocate.
struct Plan {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    folder: *const c_char,
    streams: [RawFd; 3],
    /// Whether it is to be scheduled as usual, other than the thread that starts it.
    is_usual: bool,
    /// Where it may go, other than the thread that starts it.
    processors: Option<CpuSet>,
    /// Where the child says why it could not become its program.
    error: AtomicI32,
}

/// Ample for a child that only makes system calls.
const STACK: usize = 32 << 10;

thread_local! {
    static CHILD_STACK: RefCell<Box<[MaybeUninit<u8>]>> = RefCell::new(Box::new_uninit_slice(STACK));
}

/// Starts `program`, which is a path, in a group of its own, without input.
pub(crate) fn start(
    program: &Path,
    arguments: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
    folder: &Path,
) -> io::Result<Started> {
    let mut texts = Texts::new();
    let folder = texts.add(&[folder.as_os_str()])?;
    let program = texts.add(&[program.as_os_str()])?;
    for word in arguments {
        texts.add(&[word])?;
    }
    let after_words = texts.starts.len();
    for (name, value) in environment {
        texts.add(&[name, OsStr::new("="), value])?;
    }
    let arguments = texts.list(program..after_words);
    let environment = texts.list(after_words..texts.starts.len());
    let nothing = nothing()?;
    // None of these is one of the three standard streams: the standard library sees to it that those are open.
    let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let processors = processors::keep_to_one();
    let plan = |is_usual| Plan {
        program: texts.get(program),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        folder: texts.get(folder),
        streams: [nothing.as_raw_fd(), their_stdout.as_raw_fd(), their_stderr.as_raw_fd()],
        is_usual,
        processors,
        error: AtomicI32::new(0),
    };
    let (started, error) = giving_way(|is_usual| {
        let plan = plan(is_usual);
        let started = CHILD_STACK.with_borrow_mut(|stack| clone(become_program, &plan, stack));
        (started, plan.error.into_inner())
    });
    let (pid, handle) = started?;
    match error {
        0 => Ok(Started { pid, handle, stdout, stderr }),
        error => {
            crate::wait::take_status(pid)?;
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// Starts a child that does `work`; returns when it has become its program, or has ended.
#[expect(
    unsafe_code,
    reason = "no safe interface starts a process without copying this one and with its handle"
)]
fn clone(
    work: extern "C" fn(*mut c_void) -> c_int,
    plan: &Plan,
    stack: &mut [MaybeUninit<u8>],
) -> io::Result<(Pid, OwnedFd)> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut handle: c_int = -1;
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are written before they are read. CLONE_VFORK: this thread stands still until the child has another memory
    // or is gone, so `plan` and `stack` outlive its use of them and nobody else has them meanwhile; the stack's top is
    // within it, and aligned to 16 bytes as every ABI wants it. All signals but SIGCHLD are blocked, so that no handler runs in
    // the child while it shares this memory: it has no child of its own, whose end that would tell. The handle is a file that
    // nobody else knows, if there is a child.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        // What is blocked is not ignored: the end of another child meanwhile would wake the main thread for nothing.
        libc::sigdelset(all.as_mut_ptr(), libc::SIGCHLD);
        let blocked = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        let end = stack.as_mut_ptr_range().end;
        let top = end.wrapping_sub(end.addr() % 16);
        let argument = ptr::from_ref(plan).cast_mut().cast::<c_void>();
        let pid = libc::clone(work, top.cast(), flags, argument, &raw mut handle);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        // -1 is no process id, and `from_raw` wants one.
        match Pid::from_raw(pid.max(0)) {
            // Linux before 5.2 does not know of handles, nor says so.
            Some(pid) if handle < 0 => {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
                crate::wait::take_status(pid)?;
                Err(io::ErrorKind::Unsupported.into())
            }
            Some(pid) => Ok((pid, OwnedFd::from_raw_fd(handle))),
            None => Err(error),
        }
    }
}

/// What the child does. It shares its parent's memory: it only makes system calls, and changes nothing but `error`.
#[expect(unsafe_code, reason = "the calls between the start of a process and its program")]
extern "C" fn become_program(plan: *mut c_void) -> c_int {
    // SAFETY: `clone` has passed a plan, which is there for as long as this function runs; all calls are async-signal-safe.
    unsafe {
        let plan = &*plan.cast::<Plan>();
        if let Some(all) = &plan.processors {
            processors::widen(all);
        }
        let is_ready = libc::setpgid(0, 0) == 0
            && default_signals()
            && (!plan.is_usual || set_policy(libc::SCHED_OTHER))
            && libc::chdir(plan.folder) == 0
            && (0..).zip(plan.streams).all(|(place, stream)| libc::dup2(stream, place) == place)
            && unblock_signals();
        if is_ready {
            libc::execve(plan.program, plan.arguments, plan.environment);
        }
        plan.error.store(*libc::__errno_location(), Ordering::Relaxed);
        libc::_exit(127)
    }
}

/// A program starts without handlers in any case; here none may run either, when the signals are unblocked. One could only run for
/// a signal that waits already, of those that were sent to this process and its group (Ctrl-C) before the child had a group
/// of its own: nobody sends one to a process of which nobody knows yet. So handlers are looked for only if one waits.
/// What is ignored stays so (`nohup`), but for SIGPIPE, which only the standard library ignores.
#[expect(unsafe_code, reason = "neither std nor rustix changes what signals do")]
unsafe fn default_signals() -> bool {
    let mut waiting = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is written before it is read; all zeroes is a value of `sigaction`: the default, with an empty mask.
    unsafe {
        if libc::sigpending(waiting.as_mut_ptr()) != 0 {
            return false;
        }
        let waiting = waiting.assume_init();
        let default: libc::sigaction = std::mem::zeroed();
        let reset = |signal| libc::sigaction(signal, &raw const default, ptr::null_mut()) == 0;
        reset(libc::SIGPIPE)
            && (1..=libc::SIGRTMAX())
                .filter(|signal| libc::sigismember(&raw const waiting, *signal) == 1)
                .all(|signal| {
                    let mut now: libc::sigaction = std::mem::zeroed();
                    libc::sigaction(signal, ptr::null(), &raw mut now) == 0
                        && (now.sa_sigaction == libc::SIG_IGN || reset(signal))
                })
    }
}

#[expect(unsafe_code, reason = "neither std nor rustix changes which signals are blocked")]
unsafe fn unblock_signals() -> bool {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is written before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) == 0
    }
}

/// Texts as C has them, each of which ends with a NUL byte; all in one piece, as there are dozens for a process.
struct Texts {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
}

impl Texts {
    fn new() -> Self {
        // Room for what most processes are given.
        Self { bytes: Vec::with_capacity(1024), starts: Vec::with_capacity(32) }
    }

    /// Adds the pieces as one text; returns its number.
    fn add(&mut self, pieces: &[&OsStr]) -> io::Result<usize> {
        if pieces.iter().any(|piece| piece.as_bytes().contains(&0)) {
            let message = "a NUL byte in the command, the environment or the folder";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.starts.push(self.bytes.len());
        for piece in pieces {
            self.bytes.extend_from_slice(piece.as_bytes());
        }
        self.bytes.push(0);
        Ok(self.starts.len() - 1)
    }

    /// One of them; not for longer than until the next is added.
    fn get(&self, number: usize) -> *const c_char {
        self.bytes[self.starts[number]..].as_ptr().cast()
    }

    /// Some of them as a list of C, which ends with a null pointer; for as long as each of them.
    fn list(&self, some: Range<usize>) -> Vec<*const c_char> {
        some.map(|number| self.get(number)).chain([ptr::null()]).collect()
    }
}

/// An input that is empty, opened once.
fn nothing() -> io::Result<&'static OwnedFd> {
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(file) = NOTHING.get() {
        return Ok(file);
    }
    let file = openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(NOTHING.get_or_init(|| file))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::unix::process::ExitStatusExt};

    use super::*;

    /// What a shell prints, started with one variable.
    fn printed(script: &str, folder: &Path) -> String {
        let started = start(
            Path::new("/bin/sh"),
            &["-c".into(), script.into()],
            &[("A".into(), "b=c".into())].into(),
            folder,
        )
        .unwrap();
        let mut text = String::new();
        File::from(started.stdout).read_to_string(&mut text).unwrap();
        let (status, _) = crate::wait::take_status(started.pid).unwrap();
        assert!(status.success(), "{text}");
        text
    }

    #[test]
    fn a_child_has_default_signals_and_no_files_but_its_streams() {
        // This process ignores SIGPIPE, as every program of the standard library does; signal 13 is bit 12.
        let told = printed(
            "while read name value; do case $name in Sig*) echo $name $value;; esac; done < /proc/self/status",
            Path::new("/"),
        );
        let mask = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!((mask("SigBlk:"), mask("SigIgn:") & (1 << 12)), (0, 0), "{told}");
        crate::keep_files().unwrap();
        // And the folder that is just being listed.
        assert_eq!(printed("cd /proc/self/fd; echo *", Path::new("/")), "0 1 2 3\n");
    }

    /// What a child does that gets a signal while all are blocked.
    #[expect(unsafe_code, reason = "the calls between the start of a process and its program")]
    extern "C" fn get_signal(_: *mut c_void) -> c_int {
        // SAFETY: only system calls.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGUSR2);
            let _ = default_signals() && unblock_signals();
            libc::_exit(0)
        }
    }

    #[test]
    fn a_child_is_scheduled_as_whoever_starts_it() {
        let told = printed("cat /proc/self/stat", Path::new("/"));
        // What follows the name begins with the third field; the 41st is the policy: proc_pid_stat(5).
        let policy = told.rsplit(')').next().unwrap().split_whitespace().nth(41 - 3).unwrap();
        assert_eq!(policy, crate::scheduling::policy().to_string());
    }

    #[test]
    fn no_handler_runs_in_a_child_for_a_signal_that_came_early() {
        static HANDLED: AtomicI32 = AtomicI32::new(0);
        extern "C" fn handle(_: c_int) {
            HANDLED.fetch_add(1, Ordering::Relaxed);
        }
        let handler = handle as extern "C" fn(c_int) as libc::sighandler_t;
        #[expect(unsafe_code, reason = "neither std nor rustix sets handlers")]
        // SAFETY: the handler only adds to a number.
        let before = unsafe { libc::signal(libc::SIGUSR2, handler) };
        assert_ne!(before, libc::SIG_ERR);
        let plan = Plan {
            program: ptr::null(),
            arguments: ptr::null(),
            environment: ptr::null(),
            folder: ptr::null(),
            streams: [-1; 3],
            is_usual: false,
            processors: None,
            error: AtomicI32::new(0),
        };
        let (pid, _handle) = CHILD_STACK.with_borrow_mut(|stack| clone(get_signal, &plan, stack)).unwrap();
        let (status, _) = crate::wait::take_status(pid).unwrap();
        // The signal has done what it does to a process that knows nothing of it.
        assert_eq!(status.signal(), Some(libc::SIGUSR2));
        assert_eq!(HANDLED.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_child_has_its_folder_its_environment_and_a_group_of_its_own() {
        let folder = tempfile::tempdir().unwrap().keep();
        let told =
            printed("pwd -P; echo $A; read a b c d group f < /proc/self/stat; test $$ = $group", &folder);
        assert_eq!(told, format!("{}\nb=c\n", folder.canonicalize().unwrap().display()));
        std::fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_started_is_told_and_leaves_no_process() {
        let start = |program: &str, folder: &str| {
            start(Path::new(program), &[], &BTreeMap::new(), Path::new(folder)).map(drop)
        };
        assert_eq!(start("/nowhere/program", "/").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(start("/etc/passwd", "/").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(start("/bin/sh", "/nowhere").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(start("/bin/\0sh", "/").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mine = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(mine, "", "one of them was not waited for");
    }
}
