//! Leases in the database. A lease whose owner's process is gone counts as free.

use std::sync::Arc;

use async_trait::async_trait;
use e3_core::{Acquired, Holder, LeaseError, LeaseMode, LeaseStore, Unavailable};

use crate::{
    database::Readers,
    owner::Owners,
    writer::{Writer, leases_of, living_holder},
};

/// Leases: granted by the one writer.
#[derive(Debug)]
pub(crate) struct LocalLeases {
    pub(crate) writer: Arc<Writer>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) owners: Arc<Owners>,
}

#[async_trait]
impl LeaseStore for LocalLeases {
    async fn acquire(
        &self,
        resource: &str,
        mode: LeaseMode,
        holder: &Holder,
    ) -> Result<Acquired, LeaseError> {
        Ok(self.writer.acquire(resource, mode, holder).await?)
    }

    async fn inspect(&self, resource: &str) -> Result<Vec<Holder>, LeaseError> {
        const DOING: &str = "reading leases";
        let (readers, owners, resource) =
            (Arc::clone(&self.readers), Arc::clone(&self.owners), resource.to_owned());
        let inspect = move || {
            let rows = readers.with(DOING, |connection| leases_of(connection, &resource))?;
            let mut holders = Vec::new();
            for row in &rows {
                holders.extend(living_holder(&owners, row)?);
            }
            Ok(holders)
        };
        let holders: Result<_, Unavailable> =
            tokio::task::spawn_blocking(inspect).await.map_err(|error| Unavailable::new(DOING, error))?;
        Ok(holders?)
    }
}
