//! `MemoryRefs`: refs in a sorted map.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Mutex,
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::WorkspaceName;

use super::lock;
use crate::{RefChange, RefError, RefName, RefStore, Scan};

/// Refs in a sorted map.
#[derive(Debug, Default)]
pub struct MemoryRefs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<RefName, Bytes>,
    counters: HashMap<String, u64>,
}

#[async_trait]
impl RefStore for MemoryRefs {
    async fn read(&self, names: &[RefName]) -> Result<Vec<Option<Bytes>>, RefError> {
        let state = lock(&self.0);
        Ok(names.iter().map(|name| state.values.get(name).cloned()).collect())
    }

    async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError> {
        let mut state = lock(&self.0);
        for change in &changes {
            if !change.precondition.holds(state.values.get(&change.name).map(AsRef::as_ref)) {
                return Err(RefError::Conflict(change.name.clone()));
            }
        }
        let touched: HashSet<_> =
            changes.iter().filter_map(|change| change.name.workspace()).map(str::to_owned).collect();
        for workspace in touched {
            *state.counters.entry(workspace).or_default() += 1;
        }
        for change in changes {
            match change.value {
                Some(value) => state.values.insert(change.name, value),
                None => state.values.remove(&change.name),
            };
        }
        Ok(())
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<(RefName, Bytes)>, RefError> {
        let state = lock(&self.0);
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
        Ok(lock(&self.0).counters.get(workspace.as_str()).copied().unwrap_or(0))
    }
}
