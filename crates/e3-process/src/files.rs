//! The files that this process was started with are its own.

use std::{fs, io, os::fd::BorrowedFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Keeps open files that this process has inherited, but for the three standard streams, from everything that it starts.
/// To be called before anything is opened or started.
#[expect(unsafe_code, reason = "a number out of the list of open files has no owner in this process")]
pub fn keep_files() -> io::Result<()> {
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
