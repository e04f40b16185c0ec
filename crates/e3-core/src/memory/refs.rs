//! `MemoryRefs`: refs in a sorted map.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Mutex,
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::WorkspaceName;
use tokio::sync::Notify;

use super::lock;
use crate::{RefChange, RefError, RefName, RefStore, Scan};

/// Refs in a sorted map.
#[derive(Debug, Default)]
pub struct MemoryRefs {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<RefName, Bytes>,
    counters: HashMap<String, u64>,
}

#[async_trait]
impl RefStore for MemoryRefs {
    async fn read(&self, names: &[RefName]) -> Result<Vec<Option<Bytes>>, RefError> {
        let state = lock(&self.state);
        Ok(names.iter().map(|name| state.values.get(name).cloned()).collect())
    }

    async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError> {
        let mut state = lock(&self.state);
        for change in &changes {
            if !change.precondition.holds(state.values.get(&change.name).map(AsRef::as_ref)) {
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
                Some(value) => state.values.insert(change.name, value),
                None => state.values.remove(&change.name),
            };
        }
        drop(state);
        if wakes {
            self.written.notify_waiters();
        }
        Ok(())
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<(RefName, Bytes)>, RefError> {
        let state = lock(&self.state);
        let first = RefName::from_stored(scan.prefix.clone());
        let (mut low, mut high) = (Bound::Included(&first), Bound::Unbounded);
        if let Some(after) = &scan.after {
            if scan.reverse {
                high = Bound::Excluded(after);
            } else if *after >= first {
                low = Bound::Excluded(after);
            }
        }
        if let Bound::Excluded(after) = high
            && *after <= first
        {
            return Ok(Vec::new());
        }
        let inside = state
            .values
            .range((low, high))
            .map(|(name, value)| (name.clone(), value.clone()))
            .skip_while(|(name, _)| name.as_str() < scan.prefix.as_str())
            .take_while(|(name, _)| name.as_str().starts_with(&scan.prefix));
        Ok(if scan.reverse {
            let mut all: Vec<_> = inside.collect();
            all.reverse();
            all.truncate(scan.limit);
            all
        } else {
            inside.take(scan.limit).collect()
        })
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
