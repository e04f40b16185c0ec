//! Leases as locks on ranges of one file. The kernel takes them away from a process that dies, and taking one costs a system
//! call, so a task can have one without anybody noticing.
//!
//! Each resource has a range of its own in `leases.lock`, at a place that its hash decides; nothing is ever written there. Who
//! holds it alone locks the range, who shares it locks one byte in it: the byte, or the length of the range, is the number of
//! the process, its *slot*, so that whoever finds a lock finds its holder. The locks belong to an open file, not to a
//! process (`F_OFD_SETLK`, fcntl(2)), where the system has that. Locks of one open file do not exclude each other, so what this
//! process holds is in a map as well.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use e3_core::{Acquired, Holder, Lease, LeaseError, LeaseMode, LeaseStore, Unavailable};
use e3_types::Hash;
use nix::fcntl::{FcntlArg, fcntl};
use serde::{Deserialize, Serialize};

use crate::owner::Owners;

/// How many processes there can be at once; slots are numbered below.
const SLOTS: i64 = 1 << 20;
/// The length of a resource's range, twice as long as there are slots.
const RANGE: i64 = 2 * SLOTS;

/// How often a lease is asked for again that somebody has who is not known, a millisecond apart.
const PATIENCE: usize = 100;

/// Leases of one repository.
#[derive(Debug)]
pub(crate) struct LocalLeases(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    owners: Arc<Owners>,
    own: OnceLock<Own>,
    held: Mutex<Held>,
}

/// The lock file as this process has opened it.
#[derive(Debug)]
struct Own {
    file: File,
    slot: i64,
}

#[derive(Debug, Default)]
struct Held {
    /// Those of this process, by resource.
    here: HashMap<String, Vec<(u64, LeaseMode, Holder)>>,
    drawn: u64,
    /// Who others are told that we are.
    told: Option<Holder>,
}

/// What is written down of a process for those who wait for it.
#[derive(Serialize, Deserialize)]
struct Note {
    slot: i64,
    holder: Holder,
}

impl LocalLeases {
    pub(crate) fn new(path: PathBuf, owners: Arc<Owners>) -> Self {
        Self(Arc::new(Inner { path, owners, own: OnceLock::new(), held: Mutex::default() }))
    }
}

#[async_trait]
impl LeaseStore for LocalLeases {
    async fn acquire(
        &self,
        resource: &str,
        mode: LeaseMode,
        holder: &Holder,
    ) -> Result<Acquired, LeaseError> {
        let inner = &self.0;
        let acquire = || inner.acquire(resource, mode, holder).map_err(|error| inner.failed("taking", error));
        let mut granted = acquire()?;
        for _ in 0..PATIENCE {
            // Nobody: whoever has it has not yet written down who that is, or has just given it back.
            if !matches!(&granted, Err(holders) if holders.is_empty()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            granted = acquire()?;
        }
        Ok(match granted {
            Err(holders) => Acquired::Held(holders),
            Ok(number) => {
                let (inner, resource) = (Arc::clone(inner), resource.to_owned());
                Acquired::Lease(Lease::new(move || inner.give_back(&resource, number)))
            }
        })
    }

    async fn inspect(&self, resource: &str) -> Result<Vec<Holder>, LeaseError> {
        let inner = &self.0;
        let here = inner.lock().here.get(resource).map(|held| holders(held)).unwrap_or_default();
        let elsewhere = inner.elsewhere(resource).map_err(|error| inner.failed("reading", error))?;
        Ok(here.into_iter().chain(elsewhere).collect())
    }
}

fn holders(held: &[(u64, LeaseMode, Holder)]) -> Vec<Holder> {
    held.iter().map(|(_, _, holder)| holder.clone()).collect()
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str, error: io::Error) -> LeaseError {
        Unavailable::new(format!("{doing} a lease in `{}`", self.path.display()), error).into()
    }

    /// Takes a lease, or says who has it.
    fn acquire(
        &self,
        resource: &str,
        mode: LeaseMode,
        holder: &Holder,
    ) -> io::Result<Result<u64, Vec<Holder>>> {
        let own = self.own()?;
        let mut held = self.lock();
        let here = held.here.get(resource).map_or(&[][..], |held| held);
        let alone =
            mode == LeaseMode::Exclusive || here.iter().any(|(_, mode, _)| *mode == LeaseMode::Exclusive);
        if alone && !here.is_empty() {
            let mut all = holders(here);
            drop(held);
            all.extend(self.elsewhere(resource)?);
            return Ok(Err(all));
        }
        if here.is_empty() && !own.try_lock(resource, mode)? {
            drop(held);
            return Ok(Err(self.elsewhere(resource)?));
        }
        if held.told.as_ref() != Some(holder) {
            self.tell(own, holder)?;
            held.told = Some(holder.clone());
        }
        held.drawn += 1;
        let number = held.drawn;
        held.here.entry(resource.to_owned()).or_default().push((number, mode, holder.clone()));
        Ok(Ok(number))
    }

    fn give_back(&self, resource: &str, number: u64) {
        let mut held = self.lock();
        let Some(here) = held.here.get_mut(resource) else { return };
        here.retain(|(other, _, _)| *other != number);
        if !here.is_empty() {
            return;
        }
        held.here.remove(resource);
        if let Some(own) = self.own.get()
            && let Err(error) = own.unlock(resource)
        {
            // The kernel does it when this process ends, at the latest.
            tracing::warn!(%error, resource, "a lease could not be given back");
        }
    }

    /// The lock file; opened, with a slot of our own, the first time.
    fn own(&self) -> io::Result<&Own> {
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        self.owners.register()?;
        let file = open(&self.path)?;
        for slot in 0..SLOTS {
            if set_lock(&file, libc::F_WRLCK, slot, 1)? {
                // If another thread was faster, this file is closed, and its slot is free again.
                return Ok(self.own.get_or_init(|| Own { file, slot }));
            }
        }
        Err(io::Error::other(format!(
            "{SLOTS} processes are at work in this repository: no more can be told apart"
        )))
    }

    fn note_path(&self, owner: &str) -> PathBuf {
        self.path.with_file_name("owners").join(format!("{owner}.json"))
    }

    /// Writes down who we are, before anybody can have to wait for us for long.
    fn tell(&self, own: &Own, holder: &Holder) -> io::Result<()> {
        let owner = self.owners.own().to_string();
        let (path, aside) = (self.note_path(&owner), self.note_path(&format!(".{owner}")));
        let note = serde_json::to_vec(&Note { slot: own.slot, holder: holder.clone() })?;
        fs::write(&aside, note)?;
        fs::rename(&aside, path)
    }

    /// Who else holds a resource, in another process or through another handle.
    fn elsewhere(&self, resource: &str) -> io::Result<Vec<Holder>> {
        let opened;
        let file = match self.own.get() {
            Some(own) => &own.file,
            None if !self.path.exists() => return Ok(Vec::new()),
            None => {
                opened = open(&self.path)?;
                &opened
            }
        };
        let slots = slots_of(file, resource)?;
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path.with_file_name("owners"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            // One that has just ended has taken its note away. An old note with a slot that is in use again is followed by
            // the new one, and its owner is not alive.
            let Ok(text) = fs::read(&path) else { continue };
            let Ok(Note { slot, holder }) = serde_json::from_slice(&text) else { continue };
            let owner = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if slots.contains(&slot) && owner.is_some_and(|owner| self.owners.is_alive(owner).unwrap_or(true))
            {
                found.push(holder);
            }
        }
        Ok(found)
    }
}

impl Own {
    fn try_lock(&self, resource: &str, mode: LeaseMode) -> io::Result<bool> {
        let start = start_of(resource);
        match mode {
            LeaseMode::Exclusive => set_lock(&self.file, libc::F_WRLCK, start, SLOTS + self.slot),
            LeaseMode::Shared => set_lock(&self.file, libc::F_WRLCK, start + self.slot, 1),
        }
    }

    fn unlock(&self, resource: &str) -> io::Result<()> {
        set_lock(&self.file, libc::F_UNLCK, start_of(resource), RANGE).map(drop)
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Where the range of a resource begins: behind the range of the slots, below 2^62.
fn start_of(resource: &str) -> i64 {
    let hash = Hash::of(resource.as_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&hash.as_bytes()[..8]);
    let ranges = (1_i64 << 62) / RANGE;
    RANGE * (1 + (u64::from_be_bytes(number) % (ranges.cast_unsigned() - 1)).cast_signed())
}

fn range(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).expect("the three kinds of locks are small numbers"),
        l_whence: 0,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Locks or unlocks a range; false if somebody else has a lock in it.
fn set_lock(file: &File, kind: i32, start: i64, length: i64) -> io::Result<bool> {
    let range = range(kind, start, length);
    #[cfg(target_os = "linux")]
    let request = FcntlArg::F_OFD_SETLK(&range);
    #[cfg(not(target_os = "linux"))]
    let request = FcntlArg::F_SETLK(&range);
    match fcntl(file, request) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The slots of the others that have a lock in the range of a resource. The system tells any one of the locks in a range, so
/// what is before it and what is behind it are asked for in turn.
fn slots_of(file: &File, resource: &str) -> io::Result<Vec<i64>> {
    let start = start_of(resource);
    let (mut open, mut slots) = (vec![(start, start + RANGE)], Vec::new());
    while let Some((from, to)) = open.pop() {
        if from >= to {
            continue;
        }
        let mut found = range(libc::F_WRLCK, from, to - from);
        #[cfg(target_os = "linux")]
        let request = FcntlArg::F_OFD_GETLK(&mut found);
        #[cfg(not(target_os = "linux"))]
        let request = FcntlArg::F_GETLK(&mut found);
        fcntl(file, request)?;
        if i32::from(found.l_type) == libc::F_UNLCK {
            continue;
        }
        if found.l_start == start && found.l_len >= SLOTS {
            return Ok(vec![found.l_len - SLOTS]);
        }
        slots.push(found.l_start - start);
        open.extend([(from, found.l_start), (found.l_start + 1, to)]);
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_leave_room_for_the_slots() {
        for number in 0..1000 {
            let start = start_of(&format!("execution/{number}"));
            assert_eq!(start % RANGE, 0);
            assert!((RANGE..1 << 62).contains(&start));
            assert!(start.checked_add(RANGE).is_some());
        }
        assert_ne!(start_of("workspace/a"), start_of("workspace/b"));
    }
}
