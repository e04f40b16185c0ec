//! Which processor a thread is on that starts processes.
//!
//! The kernel looks for a processor when a thread starts or wakes, and when a process gets its program; later an idle processor
//! takes work from another one at a tick of the clock, every few milliseconds. A process that takes a tenth of a millisecond
//! is over by then. So where as many threads start processes as there are processors, two of them are often on one, with all that
//! they start, and the other processor is idle. Each keeps to one of its own instead; what they start goes wherever
//! this process may go, which is what its main thread may: that one never keeps to any.
//!
//! A thread that has waited for its processor far longer than it has run lets go of it when it starts the next process: something is
//! there that counts for more.

use std::{
    cell::Cell,
    fs, io,
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::{
    process::getpid,
    thread::{CpuSet, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity},
};

/// After so many starts a thread asks whether it does well on its processor.
const STARTS: u32 = 16;
/// It does not if it has waited so many times as long as it has run. Behind what it has started itself it waits about as long, and
/// where two others want all of the processor, twice.
const TOO_LONG: u64 = 4;

/// The processors that no thread has yet, of as many as there are threads that start processes.
struct Apart(Mutex<CpuSet>);

static APART: OnceLock<Apart> = OnceLock::new();

/// How a thread does that keeps to a processor.
#[derive(Clone, Copy)]
struct Kept {
    starts: u32,
    then: Times,
}

/// How long a thread has run, and has waited for a processor, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    run: u64,
    waited: u64,
}

#[derive(Clone, Copy)]
enum State {
    New,
    /// It has never kept to a processor.
    Free,
    Kept(Kept),
    /// It did, and goes where the main thread may go.
    LetGo,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::New) };
}

/// Has the threads that start processes each keep to a processor of its own, if there are as many processors as these `threads`. To
/// be called once, before any of them is there. A thread that one of them starts calls `use_all_processors`. Outside of Linux
/// this does nothing.
pub fn keep_threads_apart(threads: usize) {
    match sched_getaffinity(None) {
        Ok(all) => {
            if let Some(apart) = Apart::new(all, threads) {
                APART.get_or_init(|| apart);
            }
        }
        // There are more processors than a set can hold.
        Err(error) => tracing::debug!(%error, "threads are left to the scheduler"),
    }
}

/// For a thread that starts no processes: it may use all processors, whoever has started it.
pub fn use_all_processors() {
    if APART.get().is_some() {
        go_anywhere();
    }
}

/// Has this thread keep to its processor. Returns what a process that it starts has to be allowed instead.
pub(crate) fn keep_to_one() -> Option<CpuSet> {
    APART.get()?.keep_to_one()
}

/// Calls `start` while this thread may use all processors, as will what it starts.
pub(crate) fn on_all<T>(start: impl FnOnce() -> T) -> T {
    let (state, own) = (STATE.get(), sched_getaffinity(None));
    if matches!(state, State::Kept(_) | State::LetGo) {
        go_anywhere();
    }
    let started = start();
    if matches!(state, State::Kept(_))
        && let Err(error) = own.and_then(|own| sched_setaffinity(None, &own))
    {
        tracing::debug!(%error, "a thread is left to the scheduler");
    }
    started
}

fn go_anywhere() {
    if let Err(error) = all().and_then(|all| Ok(sched_setaffinity(None, &all)?)) {
        tracing::debug!(%error, "a thread stays on one processor");
    }
}

/// Lets a process go where the threads of this one may, before it has its program: no more than system calls. Nobody is refused
/// that who may keep to one.
pub(crate) fn widen(all: &CpuSet) {
    let _done = sched_setaffinity(None, all);
}

/// Where this process may go: asked each time, since its user may say otherwise at any time.
fn all() -> io::Result<CpuSet> {
    Ok(sched_getaffinity(Some(getpid()))?)
}

impl Apart {
    fn new(all: CpuSet, threads: usize) -> Option<Self> {
        let are_as_many = threads > 1 && all.count() as usize == threads;
        are_as_many.then(|| Self(Mutex::new(all)))
    }

    fn keep_to_one(&self) -> Option<CpuSet> {
        let state = match STATE.get() {
            State::New => self.begin().map_or(State::Free, State::Kept),
            State::Kept(Kept { starts, then }) if starts >= STARTS => look_again(then, Times::now().ok()),
            State::Kept(kept) => State::Kept(Kept { starts: kept.starts + 1, ..kept }),
            other => other,
        };
        STATE.set(state);
        if matches!(state, State::LetGo) {
            // Each time: where that is may have changed.
            go_anywhere();
        }
        if matches!(state, State::Free) { None } else { all().ok() }
    }

    /// The first time. What it cannot know of itself it does not keep to.
    fn begin(&self) -> Option<Kept> {
        if gettid() == getpid() {
            return None;
        }
        let then = Times::now().ok()?;
        sched_setaffinity(None, &self.take(sched_getcpu())?).ok()?;
        Some(Kept { starts: 0, then })
    }

    /// A processor that nobody has; this one, if it is.
    fn take(&self, here: usize) -> Option<CpuSet> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = Some(here).filter(|here| free.is_set(*here));
        let taken = taken.or_else(|| (0..CpuSet::MAX_CPU).find(|at| free.is_set(*at)))?;
        free.unset(taken);
        let mut own = CpuSet::new();
        own.set(taken);
        Some(own)
    }
}

/// Whether a thread does well where it is.
fn look_again(then: Times, now: Option<Times>) -> State {
    match now {
        Some(now) if !now.is_too_long_since(then) => State::Kept(Kept { starts: 0, then: now }),
        _ => {
            tracing::debug!("a thread lets go of its processor");
            State::LetGo
        }
    }
}

impl Times {
    fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/thread-self/schedstat")?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(run)), Some(Ok(waited))) => Ok(Self { run, waited }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn is_too_long_since(self, then: Self) -> bool {
        let (waited, run) = (self.waited.saturating_sub(then.waited), self.run.saturating_sub(then.run));
        // A system that does not count says nothing of it.
        run == 0 || waited > run.saturating_mul(TOO_LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> CpuSet {
        sched_getaffinity(None).unwrap()
    }

    #[test]
    fn each_thread_has_a_processor_of_its_own_and_what_it_starts_has_all() {
        let everywhere = all().unwrap();
        let count = everywhere.count() as usize;
        let Some(apart) = Apart::new(everywhere, count) else {
            assert_eq!(count, 1);
            return;
        };
        let mut union = CpuSet::new();
        std::thread::scope(|scope| {
            for _ in 0..count {
                let kept = scope.spawn(|| {
                    assert_eq!(apart.keep_to_one(), Some(everywhere));
                    let first = own();
                    assert_eq!(apart.keep_to_one(), Some(everywhere));
                    assert_eq!(own(), first, "it is given one once");
                    first
                });
                let kept = kept.join().unwrap();
                assert_eq!(kept.count(), 1);
                (0..CpuSet::MAX_CPU).filter(|at| kept.is_set(*at)).for_each(|at| union.set(at));
            }
            scope.spawn(|| {
                assert_eq!(apart.keep_to_one(), None);
                assert_eq!(own(), everywhere, "there is none left");
            });
        });
        assert_eq!(union, everywhere);
    }

    #[test]
    fn only_as_many_threads_as_processors_are_kept_apart() {
        let mut all = CpuSet::new();
        all.set(3);
        assert!(Apart::new(all, 1).is_none(), "one thread is apart anyway");
        assert!(Apart::new(all, 2).is_none());
        all.set(70);
        assert!(Apart::new(all, 2).is_some());
        all.set(71);
        assert!(Apart::new(all, 2).is_none());
    }

    #[test]
    fn a_thread_takes_the_processor_that_it_is_on_if_nobody_has_it() {
        let mut all = CpuSet::new();
        all.set(3);
        all.set(70);
        let apart = Apart::new(all, 2).unwrap();
        let place = |own: Option<CpuSet>| own.and_then(|own| (0..CpuSet::MAX_CPU).find(|at| own.is_set(*at)));
        assert_eq!([70, 70, 70].map(|here| place(apart.take(here))), [Some(70), Some(3), None]);
    }

    #[test]
    fn a_thread_lets_go_of_a_processor_for_which_it_waits() {
        let then = Times { run: 1000, waited: 5000 };
        let lets_go = |run, waited| matches!(look_again(then, Some(Times { run, waited })), State::LetGo);
        assert!(!lets_go(1100, 5000));
        assert!(!lets_go(1100, 5400));
        assert!(lets_go(1100, 5401));
        assert!(lets_go(1000, 5000), "nothing is counted here");
        assert!(matches!(look_again(then, None), State::LetGo));
    }

    #[test]
    fn a_thread_that_does_not_do_well_may_go_anywhere_and_so_may_what_it_starts() {
        let everywhere = all().unwrap();
        let Some(apart) = Apart::new(everywhere, everywhere.count() as usize) else { return };
        let told = std::thread::spawn(move || {
            let first = (apart.keep_to_one(), own().count());
            // It has not run since then, as far as it knows.
            STATE.set(State::Kept(Kept { starts: STARTS, then: Times { run: u64::MAX, waited: 0 } }));
            [first, (apart.keep_to_one(), own().count()), (apart.keep_to_one(), own().count())]
        });
        let anywhere = (Some(everywhere), everywhere.count());
        assert_eq!(told.join().unwrap(), [(Some(everywhere), 1), anywhere, anywhere]);
    }

    #[test]
    fn what_is_started_on_all_processors_may_go_anywhere_and_the_thread_stays() {
        let everywhere = all().unwrap();
        let Some(apart) = Apart::new(everywhere, everywhere.count() as usize) else { return };
        let told = std::thread::spawn(move || {
            assert!(apart.keep_to_one().is_some());
            let before = own();
            (on_all(own), own() == before)
        });
        assert_eq!(told.join().unwrap(), (everywhere, true));
    }
}
