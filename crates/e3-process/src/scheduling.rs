//! Who goes on when a process has been started.
//!
//! The thread that starts a process sleeps until the process has its program. Then the kernel wakes it, and as a thread that has slept
//! it takes the processor from the process at once, which has to wait until the thread has done whatever there is to do: two
//! changes more for each process, and a process that begins late. A thread that is scheduled as `SCHED_BATCH` does not do that
//! when it wakes: see sched(7). So it is for as long as it starts a process; and only for as long, since on a machine that is
//! busy with other things it would wait for them whenever it wakes.

use libc::c_int;

/// Calls `start`, which starts a process and is told whether that is to be scheduled as usual, other than this thread meanwhile.
pub(crate) fn giving_way<T>(start: impl FnOnce(bool) -> T) -> T {
    // Asked each time: a user may ask for another policy at any time, and it stays. Where a change is not allowed, all is as it was.
    let gives_way = policy() == libc::SCHED_OTHER && set_policy(libc::SCHED_BATCH);
    let started = start(gives_way);
    if gives_way && !set_policy(libc::SCHED_OTHER) {
        tracing::debug!("a thread that has started a process gives way from now on");
    }
    started
}

pub(crate) fn policy() -> c_int {
    #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
    // SAFETY: it only asks, about this thread.
    unsafe {
        libc::sched_getscheduler(0)
    }
}

/// Changes how this thread is scheduled; its nice value stays as it is. No more than a system call, so that a child can do it before
/// it has its program.
pub(crate) fn set_policy(policy: c_int) -> bool {
    #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
    // SAFETY: all zeroes is a value of `sched_param`: the priority that these policies have. It lives until the call returns.
    unsafe {
        let priority: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, policy, &raw const priority) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_only_meanwhile_and_only_if_it_is_scheduled_as_usual() {
        let of_another = std::thread::spawn(|| {
            let meanwhile = || giving_way(|gives_way| (gives_way, policy()));
            // Whatever the tests were started with.
            assert!(set_policy(libc::SCHED_OTHER));
            assert_eq!(meanwhile(), (true, libc::SCHED_BATCH));
            assert_eq!(policy(), libc::SCHED_OTHER);
            assert!(set_policy(libc::SCHED_IDLE));
            (meanwhile(), policy())
        });
        assert_eq!(of_another.join().unwrap(), ((false, libc::SCHED_IDLE), libc::SCHED_IDLE));
    }
}
