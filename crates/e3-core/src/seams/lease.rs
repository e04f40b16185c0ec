//! `LeaseStore`: who is at work on what.
//!
//! Leases only avoid duplicate work. Correctness never needs them: objects are immutable and refs are compared and
//! swapped, so two holders of one lease would waste time and nothing else.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use e3_types::{OwnerId, Timestamp};
use serde::{Deserialize, Serialize};

use super::Unavailable;

/// Leases that end when they are dropped or when their holder dies.
///
/// * Atomicity: of two callers that ask for the same exclusive lease at once, one gets it.
/// * A lease whose holder is dead counts as free. How that is found out is the implementation's business.
/// * A dropped `acquire` holds nothing.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Takes the lease of `resource`, or says who has it.
    async fn acquire(&self, resource: &str, mode: LeaseMode, holder: &Holder)
    -> Result<Acquired, LeaseError>;

    /// Who holds `resource` now.
    async fn inspect(&self, resource: &str) -> Result<Vec<Holder>, LeaseError>;
}

/// How a lease can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseMode {
    /// By several holders at once.
    Shared,
    /// By one.
    Exclusive,
}

/// Who holds a lease, in words that help the one who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process or worker.
    pub owner: OwnerId,
    /// Where it runs, if it is a process that can be found.
    pub process: Option<ProcessIdentity>,
    /// Since when it is there.
    pub since: Timestamp,
}

/// A process, told apart from every other one that ever had its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The host's name.
    pub host: String,
    /// The boot of that host, where the system tells.
    pub boot: Option<String>,
    /// The process id.
    pub pid: u32,
    /// When the process started, in the unit of the system (Linux: clock ticks since boot), where it tells.
    pub started: Option<u64>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(process) => write!(f, "process {} on {}", process.pid, process.host),
            None => write!(f, "owner {}", self.owner),
        }
    }
}

/// The answer to `acquire`.
#[derive(Debug)]
pub enum Acquired {
    /// The caller holds it now.
    Lease(Lease),
    /// Somebody else does.
    Held(Vec<Holder>),
}

/// A lease that is held. It is given back when it is dropped.
pub struct Lease(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Lease {
    /// A lease that calls `release`, which must not block, when it is dropped.
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// What goes wrong with leases.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The store cannot answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl dyn LeaseStore + '_ {
    /// Takes the lease of `resource` exclusively, as soon as it is free.
    ///
    /// It asks again after 5 ms, then after ever longer waits up to 250 ms: the price of a wait is small beside that
    /// of the work which it avoids.
    pub async fn acquire_when_free(&self, resource: &str, holder: &Holder) -> Result<Lease, LeaseError> {
        let mut wait = Duration::from_millis(5);
        loop {
            match self.acquire(resource, LeaseMode::Exclusive, holder).await? {
                Acquired::Lease(lease) => return Ok(lease),
                Acquired::Held(_) => tokio::time::sleep(wait).await,
            }
            wait = (wait * 2).min(Duration::from_millis(250));
        }
    }
}
