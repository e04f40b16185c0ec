//! `Gate`: what an execution waits for that was asked for ahead of its time.

use std::sync::Arc;

use tokio::sync::SetOnce;

/// Opened once, by whoever has asked for an execution, when there is room for it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<SetOnce<()>>);

impl Gate {
    /// Opens it.
    pub fn open(&self) {
        // It may be open already.
        let _was_closed = self.0.set(());
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.0.initialized()
    }

    /// Returns when it is open.
    pub async fn opened(&self) {
        self.0.wait().await;
    }

    /// Whether another one is this one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
