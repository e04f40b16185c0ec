//! How the memory of this process is divided among its threads.

/// Has all threads but the first take memory from one arena. To be called before there are others.
///
/// The C library of GNU gives each thread an arena of its own, and what is freed in one is lost for the others: a program that
/// reads a lot in one thread and then works in another holds twice what it needs. See `mallopt(3)`. Others have no arenas.
pub fn share_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
        // SAFETY: it sets a number that is read when a thread first takes memory.
        let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
        debug_assert_eq!(is_set, 1, "two arenas are as good as any");
    }
}
