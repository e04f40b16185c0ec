//! The memory of this process.

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
