//! The journal of a run: events become durable in groups, then they are shown. The loop never waits for it.

use e3_types::{Event, EventKind, RunId};
use tokio::sync::mpsc;

use crate::{EventSink, RefChange, StorageBackend, StorageError, runs};

/// How many events may be on their way before the loop has to wait for the storage.
pub(super) const CAPACITY: usize = 4096;
/// How many events are made durable together.
const GROUP: usize = 512;

/// An event with the changes of records that belong to it: they happen together.
pub(super) struct Entry {
    pub(super) event: Event,
    pub(super) changes: Vec<RefChange>,
}

/// Writes entries until the last sender is gone. The end of a run is shown only when everything is on disk.
pub(super) async fn keep(
    storage: &dyn StorageBackend,
    run: RunId,
    mut entries: mpsc::Receiver<Entry>,
    sink: &dyn EventSink,
) -> Result<(), StorageError> {
    let mut group = Vec::with_capacity(GROUP);
    let mut events = Vec::with_capacity(GROUP);
    while entries.recv_many(&mut group, GROUP).await > 0 {
        let mut changes = Vec::with_capacity(group.len() + 1);
        for Entry { event, changes: belonging } in group.drain(..) {
            events.push(event);
            changes.extend(belonging);
        }
        changes.extend(runs::record_events(run, &events));
        storage.refs().write(changes).await?;
        if events.iter().any(|event| matches!(event.kind, EventKind::RunEnded { .. })) {
            storage.sync().await?;
        }
        for event in events.drain(..) {
            sink.emit(&event);
        }
    }
    Ok(())
}
