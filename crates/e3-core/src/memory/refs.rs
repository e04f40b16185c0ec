//! `MemoryRefs`: refs in maps, one for each folder of names.
//!
//! A run of a million tasks asks for millions of names that all begin alike: looked up by hash they cost the same however
//! many there are. Only who lists names pays for their order.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Mutex,
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::WorkspaceName;
use tokio::sync::Notify;

use super::lock;
use crate::{RefChange, RefError, RefName, RefStore, Scan};

/// Refs in maps.
#[derive(Debug, Default)]
pub struct MemoryRefs {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What comes before the last `/` of a name -> what comes after it -> the value.
    folders: HashMap<String, HashMap<String, Bytes>>,
    /// The folders in the order of their names.
    order: BTreeSet<String>,
    counters: HashMap<String, u64>,
}

/// The folder of a name, and the name in it.
fn split(name: &RefName) -> (&str, &str) {
    name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()))
}

impl State {
    fn get(&self, name: &RefName) -> Option<&Bytes> {
        let (folder, leaf) = split(name);
        self.folders.get(folder)?.get(leaf)
    }

    fn set(&mut self, name: &RefName, value: Bytes) {
        let (folder, leaf) = split(name);
        if !self.folders.contains_key(folder) {
            self.folders.insert(folder.to_owned(), HashMap::new());
            self.order.insert(folder.to_owned());
        }
        if let Some(found) = self.folders.get_mut(folder) {
            found.insert(leaf.to_owned(), value);
        }
    }

    fn remove(&mut self, name: &RefName) {
        let (folder, leaf) = split(name);
        if let Some(found) = self.folders.get_mut(folder) {
            found.remove(leaf);
            if found.is_empty() {
                self.folders.remove(folder);
                self.order.remove(folder);
            }
        }
    }

    /// All names that start with a prefix, in no order.
    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (RefName, &'a Bytes)> {
        // The prefix ends somewhere in a folder's name, or after it.
        let around = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let inside =
            self.order.range(prefix.to_owned()..).take_while(move |folder| folder.starts_with(prefix));
        let folders =
            std::iter::once(around).chain(inside.map(String::as_str).filter(move |name| *name != around));
        folders.flat_map(move |folder| {
            let full = move |leaf: &str| {
                if folder.is_empty() { leaf.to_owned() } else { format!("{folder}/{leaf}") }
            };
            let found = self.folders.get(folder).into_iter().flatten();
            found
                .map(move |(leaf, value)| (full(leaf), value))
                .filter(move |(name, _)| name.starts_with(prefix))
                .map(|(name, value)| (RefName::from_stored(name), value))
        })
    }
}

#[async_trait]
impl RefStore for MemoryRefs {
    async fn read(&self, names: &[RefName]) -> Result<Vec<Option<Bytes>>, RefError> {
        let state = lock(&self.state);
        Ok(names.iter().map(|name| state.get(name).cloned()).collect())
    }

    async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError> {
        let mut state = lock(&self.state);
        for change in &changes {
            if !change.precondition.holds(state.get(&change.name).map(AsRef::as_ref)) {
                return Err(RefError::Conflict(change.name.clone()));
            }
        }
        let touched: HashSet<_> =
            changes.iter().filter_map(|change| change.name.workspace()).map(str::to_owned).collect();
        let wakes = !touched.is_empty();
        for workspace in touched {
            *state.counters.entry(workspace).or_default() += 1;
        }
        for change in changes {
            match change.value {
                Some(value) => state.set(&change.name, value),
                None => state.remove(&change.name),
            }
        }
        drop(state);
        if wakes {
            self.written.notify_waiters();
        }
        Ok(())
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<(RefName, Bytes)>, RefError> {
        let state = lock(&self.state);
        let beyond = |name: &RefName| match &scan.after {
            None => true,
            Some(after) if scan.reverse => name < after,
            Some(after) => name > after,
        };
        let mut found: Vec<_> = state.under(&scan.prefix).filter(|(name, _)| beyond(name)).collect();
        found.sort_unstable_by(
            |(one, _), (other, _)| if scan.reverse { other.cmp(one) } else { one.cmp(other) },
        );
        found.truncate(scan.limit);
        Ok(found.into_iter().map(|(name, value)| (name, value.clone())).collect())
    }

    async fn change_counter(&self, workspace: &WorkspaceName) -> Result<u64, RefError> {
        Ok(lock(&self.state).counters.get(workspace.as_str()).copied().unwrap_or(0))
    }

    async fn changed(&self, workspace: &WorkspaceName, seen: u64) -> Result<u64, RefError> {
        loop {
            // Asked for before looking, so that a write in between is not missed.
            let written = self.written.notified();
            let now = self.change_counter(workspace).await?;
            if now != seen {
                return Ok(now);
            }
            written.await;
        }
    }
}
