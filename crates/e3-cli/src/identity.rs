//! Who we are, for the record and for those who wait for us.

use std::{fs, os::unix::fs::MetadataExt};

use e3_core::{Clock, Holder, ProcessIdentity};

/// This process as a holder of leases.
pub(crate) fn holder(clock: &dyn Clock) -> Holder {
    let process = ProcessIdentity {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        boot: boot_id(),
        pid: std::process::id(),
        started: start_time(),
    };
    Holder { owner: clock.new_owner(), process: Some(process), since: clock.now() }
}

/// The file of this program as it looks: another one may understand a pipeline otherwise, even if its version is the same.
pub(crate) fn program() -> Option<String> {
    let file = std::env::current_exe().and_then(fs::metadata).ok()?;
    Some(format!("{} {} {} {}.{:09}", file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

/// Linux: see random(4). Other systems do not tell.
fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

/// Linux: field 22 of /proc/PID/stat, see proc(5); the second field may contain anything, but ends with the last `)`.
fn start_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_boot_and_start() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(start_time().unwrap() > 0);
    }
}
