//! `MemoryLeases`: leases in a map. Their holders cannot die without dropping them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;

use super::lock;
use crate::{Acquired, Holder, Lease, LeaseError, LeaseMode, LeaseStore};

/// Leases in a map.
#[derive(Debug, Default)]
pub struct MemoryLeases(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    drawn: u64,
    held: HashMap<String, Vec<(u64, LeaseMode, Holder)>>,
}

#[async_trait]
impl LeaseStore for MemoryLeases {
    async fn acquire(
        &self,
        resource: &str,
        mode: LeaseMode,
        holder: &Holder,
    ) -> Result<Acquired, LeaseError> {
        let mut state = lock(&self.0);
        state.drawn += 1;
        let ticket = state.drawn;
        let held = state.held.entry(resource.to_owned()).or_default();
        if held.iter().any(|(_, theirs, _)| LeaseMode::Exclusive == *theirs || LeaseMode::Exclusive == mode) {
            return Ok(Acquired::Held(held.iter().map(|(_, _, holder)| holder.clone()).collect()));
        }
        held.push((ticket, mode, holder.clone()));
        let (shared, resource) = (Arc::clone(&self.0), resource.to_owned());
        Ok(Acquired::Lease(Lease::new(move || {
            let mut state = lock(&shared);
            if let Some(held) = state.held.get_mut(&resource) {
                held.retain(|(other, _, _)| *other != ticket);
                if held.is_empty() {
                    state.held.remove(&resource);
                }
            }
        })))
    }

    async fn inspect(&self, resource: &str) -> Result<Vec<Holder>, LeaseError> {
        let state = lock(&self.0);
        Ok(state.held.get(resource).into_iter().flatten().map(|(_, _, holder)| holder.clone()).collect())
    }
}
