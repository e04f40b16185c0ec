//! Which processor a thread is on that starts processes.
//!
//! The kernel looks for a processor when a thread starts or wakes, and when a process gets its program; later an idle processor
//! takes work from another one at a tick of the clock, every few milliseconds. A process that takes a tenth of a millisecond
//! is over by then. So where as many threads start processes as there are processors, two of them are often on one, with all that
//! they start, and the other processor is idle. Each keeps to one of its own instead; what they start goes wherever
//! this process may go.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::{
    io::Errno,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// As many processors as there are threads that start processes.
struct Apart {
    /// Where this process may go.
    all: CpuSet,
    /// How many of these threads have their processor.
    settled: AtomicUsize,
}

static APART: OnceLock<Apart> = OnceLock::new();

thread_local! {
    /// The processor to which this thread keeps.
    static OWN: Cell<Option<CpuSet>> = const { Cell::new(None) };
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
    if let Some(apart) = APART.get()
        && let Err(error) = sched_setaffinity(None, &apart.all)
    {
        tracing::debug!(%error, "a thread stays on the processor of another one");
    }
}

/// Has this thread keep to its processor. Returns what a process that it starts has to be allowed instead.
pub(crate) fn keep_to_one() -> Option<CpuSet> {
    APART.get()?.keep_to_one()
}

/// Lets a process go where this one may, before it has its program: no more than system calls.
pub(crate) fn widen(all: &CpuSet) -> Result<(), Errno> {
    sched_setaffinity(None, all).or_else(|error| {
        // None of them may be used any more, in a container that was moved: all that are left, then.
        if error == Errno::INVAL { sched_setaffinity(None, &every()) } else { Err(error) }
    })
}

fn every() -> CpuSet {
    let mut every = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|processor| every.set(processor));
    every
}

impl Apart {
    fn new(all: CpuSet, threads: usize) -> Option<Self> {
        let are_as_many = threads > 1 && all.count() as usize == threads;
        are_as_many.then(|| Self { all, settled: AtomicUsize::new(0) })
    }

    fn keep_to_one(&self) -> Option<CpuSet> {
        let own = OWN.get().unwrap_or_else(|| {
            let own = self.next();
            OWN.set(Some(own));
            if let Err(error) = sched_setaffinity(None, &own) {
                tracing::debug!(%error, "a thread is left to the scheduler");
            }
            own
        });
        // Asked each time: a user may move a thread at any time, and what it starts goes there, too.
        (sched_getaffinity(None).ok()? == own).then_some(self.all)
    }

    /// A processor that no other of these threads has, as long as there is one; else it may use all.
    fn next(&self) -> CpuSet {
        let number = self.settled.fetch_add(1, Ordering::Relaxed);
        let Some(processor) = (0..CpuSet::MAX_CPU).filter(|at| self.all.is_set(*at)).nth(number) else {
            return self.all;
        };
        let mut own = CpuSet::new();
        own.set(processor);
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> CpuSet {
        sched_getaffinity(None).unwrap()
    }

    fn first_of(all: CpuSet) -> CpuSet {
        let mut first = CpuSet::new();
        first.set((0..CpuSet::MAX_CPU).find(|at| all.is_set(*at)).unwrap());
        first
    }

    #[test]
    fn each_thread_has_a_processor_of_its_own_and_what_it_starts_has_all() {
        let all = all();
        let count = all.count() as usize;
        let Some(apart) = Apart::new(all, count) else {
            assert_eq!(count, 1);
            return;
        };
        let own = || std::thread::spawn(move || sched_getaffinity(None).unwrap()).join().unwrap();
        let mut union = CpuSet::new();
        std::thread::scope(|scope| {
            for _ in 0..count {
                let kept = scope.spawn(|| {
                    assert_eq!(apart.keep_to_one(), Some(all));
                    assert_eq!(apart.keep_to_one(), Some(all), "it is given one once");
                    // So does a thread that it starts, which does not say otherwise.
                    assert_eq!(own(), sched_getaffinity(None).unwrap());
                    own()
                });
                let kept = kept.join().unwrap();
                assert_eq!(kept.count(), 1);
                (0..CpuSet::MAX_CPU).filter(|at| kept.is_set(*at)).for_each(|at| union.set(at));
            }
            scope.spawn(|| {
                assert_eq!(apart.keep_to_one(), Some(all));
                assert_eq!(own(), all, "there is none left");
            });
        });
        assert_eq!(union, all);
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
    fn a_thread_that_somebody_has_moved_stays_there_and_so_does_what_it_starts() {
        let all = all();
        let Some(apart) = Apart::new(all, all.count() as usize) else { return };
        let kept = std::thread::spawn(move || {
            assert_eq!(apart.keep_to_one(), Some(all));
            sched_setaffinity(None, &all).unwrap();
            (apart.keep_to_one(), sched_getaffinity(None).unwrap())
        });
        assert_eq!(kept.join().unwrap(), (None, all));
    }

    #[test]
    fn a_process_goes_where_it_still_may() {
        let all = all();
        let widened = std::thread::spawn(move || {
            sched_setaffinity(None, &first_of(all)).unwrap();
            let mut none = CpuSet::new();
            // No machine has that one.
            none.set(CpuSet::MAX_CPU - 1);
            widen(&none).unwrap();
            let after_none = sched_getaffinity(None).unwrap();
            sched_setaffinity(None, &first_of(all)).unwrap();
            widen(&all).unwrap();
            [after_none, sched_getaffinity(None).unwrap()]
        });
        // The test itself may have been started on some of them.
        assert!(widened.join().unwrap().into_iter().all(|now| now == all || now.count() > all.count()));
    }
}
