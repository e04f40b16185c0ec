//! What a sandbox shows of the file system: its own mounts, in a mount namespace of its own.
//!
//! Every folder at the root that is not one of the system's is covered by an empty one, what is to be seen is put back at its
//! place, and everything but what may be written is made read-only. So what is not shown is not there: it can be neither
//! opened nor connected to, and no file outside can have its mode, owner or times changed.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change},
};

use crate::confine::Sandbox;

/// The folders of the system that every program may read, where they are there.
pub(crate) const SYSTEM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/run/current-system",
    "/proc",
    "/sys",
];

/// Hides what a sandbox does not show. The working folder is one that is shown.
pub(crate) fn hide(sandbox: &Sandbox) -> io::Result<()> {
    let working_folder = std::env::current_dir()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let asked = sandbox.readable.iter().chain(&sandbox.writable).map(PathBuf::as_path);
    // Whose names are to be resolved is often told by a link to somewhere else.
    let names = sandbox.network.then_some(Path::new("/etc/resolv.conf"));
    let wanted: Vec<&Path> = asked.chain(deep_system()).chain(names).collect();
    let mut shown = Vec::new();
    for path in wanted {
        // What is shown is shown at its own place, so that links to it lead there, and at the place that was asked for.
        match fs::canonicalize(path)
            .and_then(|real| Ok((open(&real, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?, real)))
        {
            Ok((file, real)) => shown.push((path.to_owned(), real, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
    let kept: BTreeSet<PathBuf> = SYSTEM
        .iter()
        .filter(|path| path.matches('/').count() == 1)
        .map(PathBuf::from)
        .chain(["/dev".into()])
        .collect();
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !kept.contains(&entry.path()) {
            cover(&entry.path())?;
        }
    }
    for (path, real, file) in &shown {
        show(real, file)?;
        if !path.exists() {
            show(path, file)?;
        }
    }
    make_read_only(Path::new("/"), true)?;
    for path in &sandbox.writable {
        make_read_only(path, false)?;
    }
    // The folder of before is under a cover.
    std::env::set_current_dir(working_folder)
}

/// Those folders of the system that lie in a folder which is covered.
fn deep_system<'a>() -> impl Iterator<Item = &'a Path> {
    SYSTEM.iter().filter(|path| path.matches('/').count() > 1).map(Path::new)
}

fn cover(path: &Path) -> io::Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    let options = CString::new("mode=755,size=1m")?;
    mount("tmpfs", path, "tmpfs", safe, Some(&*options))
        .map_err(|error| io::Error::other(format!("covering `{}`: {error}", path.display())))
}

fn show(path: &Path, file: &OwnedFd) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let is_folder = fs::metadata(&from)?.is_dir();
    if !path.exists() {
        if is_folder {
            fs::create_dir_all(path)?;
        } else {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::File::create(path)?;
        }
    }
    mount_bind_recursive(&*from, path)
        .map_err(|error| io::Error::other(format!("showing `{}`: {error}", path.display())))
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

/// Makes a mount read-only with all below it, or one writable again.
#[expect(unsafe_code, reason = "neither std nor rustix has mount_setattr(2)")]
fn make_read_only(path: &Path, read_only: bool) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let (set, clear) = if read_only { (READ_ONLY, 0) } else { (0, READ_ONLY) };
    let attributes = Attributes { set, clear, propagation: 0, user_namespace: 0 };
    let flags = if read_only { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and the attributes are the struct that the call takes, of the size that is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            text.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(io::Error::new(error.kind(), format!("making `{}` read-only (Linux 5.12): {error}", path.display())))
}
