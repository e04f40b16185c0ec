//! The files that this process was started with are its own.

use std::{fs, io, os::fd::BorrowedFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Keeps open files that this process has inherited, but for the three standard streams, from everything that it starts.
/// To be called before anything is opened or started.
pub fn keep_files() -> io::Result<()> {
    if all_at_once() { Ok(()) } else { one_by_one() }
}

/// Linux 5.11 and newer: `close_range(2)`. Whether it could be done.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither std nor rustix has this call")]
fn all_at_once() -> bool {
    // SAFETY: nothing is closed, only a flag of each open file is set.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn all_at_once() -> bool {
    false
}

#[expect(unsafe_code, reason = "a number out of the list of open files has no owner in this process")]
fn one_by_one() -> io::Result<()> {
    let list = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    for entry in fs::read_dir(list)? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(number) = number.filter(|number| *number > 2) else { continue };
        // SAFETY: it was open a moment ago, nobody else closes files now, and it is only borrowed for these two calls.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        match fcntl_getfd(file) {
            Ok(flags) => fcntl_setfd(file, flags | FdFlags::CLOEXEC)?,
            // The one through which the list is read, or another that is closed by now.
            Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
