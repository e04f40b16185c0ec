//! The memory of this process.

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
