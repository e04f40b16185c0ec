//! `EventSink`: where the events of a run are shown.

use e3_types::Event;

/// Sees the events of a run, in order, after they are durable.
///
/// Sync, never blocks for long, never fails: what a sink cannot show is the sink's problem, not the run's.
pub trait EventSink: Send + Sync {
    /// One event.
    fn emit(&self, event: &Event);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _: &Event) {}
}
