//! The way of the output to whoever takes it. If that fails, the rest of the output is let go: the process is killed then, and
//! is over when everybody who held its output open is dead.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::run::Output;

/// What went wrong first, with one of the streams or the other.
pub(crate) struct Failure<E> {
    first: Mutex<Option<E>>,
    told: Notify,
}

impl<E> Default for Failure<E> {
    fn default() -> Self {
        Self { first: Mutex::default(), told: Notify::new() }
    }
}

impl<E> Failure<E> {
    /// Returns when there is one.
    pub(crate) async fn happened(&self) {
        self.told.notified().await;
    }

    pub(crate) fn take(&self) -> Option<E> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn tell(&self, error: E) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.told.notify_one();
    }
}

/// An output that takes everything.
pub(crate) struct Outlet<'a, O: Output> {
    output: Option<O>,
    failure: &'a Failure<O::Error>,
}

impl<'a, O: Output> Outlet<'a, O> {
    pub(crate) fn new(output: O, failure: &'a Failure<O::Error>) -> Self {
        Self { output: Some(output), failure }
    }
}

impl<O: Output> Output for Outlet<'_, O> {
    type Error = Infallible;

    async fn take(&mut self, piece: &[u8]) -> Result<(), Infallible> {
        if let Some(output) = &mut self.output
            && let Err(error) = output.take(piece).await
        {
            self.failure.tell(error);
            self.output = None;
        }
        Ok(())
    }
}
