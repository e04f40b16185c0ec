//! `Clock`: the only source of time stamps and ids, so that tests can decide both.

use std::sync::atomic::{AtomicU64, Ordering};

use e3_types::{ExecutionId, OwnerId, RunId, Timestamp};

/// Where time stamps and the random part of ids come from. Waiting is not done here but with tokio's time.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Ten bytes that differ at every call.
    fn entropy(&self) -> [u8; 10];

    /// A new execution id.
    fn new_execution(&self) -> ExecutionId {
        ExecutionId::from_parts(self.now().unix_ms(), self.entropy())
    }

    /// A new run id.
    fn new_run(&self) -> RunId {
        RunId::from_parts(self.now().unix_ms(), self.entropy())
    }

    /// A new owner id.
    fn new_owner(&self) -> OwnerId {
        OwnerId::from_parts(self.now().unix_ms(), self.entropy())
    }
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that everything else takes the time from"
        )]
        let now = std::time::SystemTime::now();
        let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn entropy(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
        bytes
    }
}

/// A clock that follows tokio's time, which tests pause and advance, and that counts instead of drawing random bytes.
///
/// It starts at 2023-11-14T22:13:20Z. Make it inside the runtime whose time it is to follow.
#[derive(Debug)]
pub struct TestClock {
    start: tokio::time::Instant,
    drawn: AtomicU64,
}

impl Default for TestClock {
    fn default() -> Self {
        Self { start: tokio::time::Instant::now(), drawn: AtomicU64::new(0) }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_unix_ms(1_700_000_000_000 + passed)
    }

    fn entropy(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        bytes
    }
}
