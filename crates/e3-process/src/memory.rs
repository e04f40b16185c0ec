//! The memory of this process.

#[cfg(target_os = "linux")]
use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
};

/// A larger block of memory is taken from the system alone, in bytes, and given back to it as soon as it is free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 1 << 20;
/// So much that is free is kept where it is, in bytes: to ask for it again costs more than to have it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 8 << 20;

/// Keeps large blocks of memory apart from small ones, from now on. The allocator of the GNU C library does so at first, but with
/// each large block that is freed it takes larger ones for small: what lies between them then cannot be given back. See
/// `mallopt(3)`. Elsewhere this does nothing.
pub fn keep_large_memory_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)] {
        #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
        // SAFETY: it changes two numbers of the allocator, under its own lock.
        let _done = unsafe { libc::mallopt(what, bytes) };
    }
}

/// Gives back to the system what was freed, as far as it is whole pages. The allocator of the GNU C library keeps what was freed
/// below something that is still used, and has an arena for each thread: what was needed to read something large in one thread is
/// lost for the others. See `malloc_trim(3)`. Elsewhere this does nothing.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
        // SAFETY: nothing that is in use is touched.
        let _was_any = unsafe { libc::malloc_trim(0) };
    }
}

/// Whether this process has ever had so much in memory, in bytes, so that what Linux tells of a child may be what the child was
/// before it had its program. Elsewhere that does not count, and is not asked.
#[cfg(target_os = "linux")]
pub(crate) fn has_had(bytes: u64) -> bool {
    /// As far as it is known: it only grows, and to ask costs more than a small process.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    if bytes <= KNOWN.load(Ordering::Relaxed) {
        return true;
    }
    match peak() {
        Ok(now) => bytes <= KNOWN.fetch_max(now, Ordering::Relaxed).max(now),
        Err(error) => {
            tracing::debug!(%error, "what this process has had in memory is not known, nor what tasks have");
            true
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn has_had(_bytes: u64) -> bool {
    false
}

/// The largest resident set since this process has its program, in bytes: see `proc_pid_status(5)`. What `getrusage(2)` tells is at
/// least what its parent had.
#[cfg(target_os = "linux")]
fn peak() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    peak.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("`/proc/self/status` has no line `VmHWM: N kB`"))
}
