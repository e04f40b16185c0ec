//! The journal of a run: events become durable in groups, then they are shown. The loop never waits for it.

use std::{sync::Arc, time::Duration};

use e3_types::{Event, EventKind, RunId};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{EventSink, Lease, RefChange, RefError, StorageBackend, StorageError, runs};

/// How many events may be on their way before the loop has to wait for the storage.
const CAPACITY: usize = 4096;
/// How many events are made durable together.
const GROUP: usize = 512;
/// How long more of them are waited for.
const LINGER: Duration = Duration::from_millis(10);
/// How often, and how long apart, it is tried again to write.
const PATIENCE: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// An event with the changes of records that belong to it: they happen together.
pub(super) struct Entry {
    pub(super) event: Event,
    pub(super) changes: Vec<RefChange>,
    /// What nobody else may execute until they are written.
    pub(super) lease: Option<Arc<Lease>>,
}

/// What the journal is sent.
pub(super) enum Message {
    Entry(Entry),
    /// Asks to be told when everything before it is durable.
    Flush(oneshot::Sender<()>),
}

/// Where messages are handed in.
pub(super) struct Journal {
    messages: mpsc::Sender<Message>,
    hurry: Arc<Notify>,
}

/// Where they come out.
pub(super) struct Messages {
    messages: mpsc::Receiver<Message>,
    /// Told when there is one that somebody waits for.
    hurry: Arc<Notify>,
}

/// Nobody keeps the journal any more.
#[derive(Debug)]
pub(super) struct Stopped;

/// A journal that nobody keeps yet.
pub(super) fn open() -> (Journal, Messages) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let hurry = Arc::new(Notify::new());
    (Journal { messages: sender, hurry: Arc::clone(&hurry) }, Messages { messages: receiver, hurry })
}

impl Journal {
    pub(super) async fn send(&self, message: Message) -> Result<(), Stopped> {
        let hurries = is_waited_for(&message);
        self.messages.send(message).await.map_err(|_| Stopped)?;
        if hurries {
            self.hurry.notify_one();
        }
        Ok(())
    }

    /// Returns when nobody keeps it any more.
    pub(super) async fn closed(&self) {
        self.messages.closed().await;
    }
}

/// Writes entries until the last sender is gone. The end of a run is shown only when everything is on disk.
pub(super) async fn keep(
    storage: &dyn StorageBackend,
    run: RunId,
    Messages { mut messages, hurry }: Messages,
    sink: &dyn EventSink,
) -> Result<(), StorageError> {
    let mut group = Vec::with_capacity(GROUP);
    while messages.recv_many(&mut group, GROUP).await > 0 {
        if group.len() < GROUP && !group.iter().any(is_waited_for) {
            // A transaction costs about the same whatever is in it, and nobody waits but who looks on.
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = hurry.notified() => {}
            }
            while group.len() < GROUP
                && let Ok(more) = messages.try_recv()
            {
                group.push(more);
            }
        }
        let (mut changes, mut events) =
            (Vec::with_capacity(group.len() + 1), Vec::with_capacity(group.len()));
        let (mut leases, mut waiting) = (Vec::new(), Vec::new());
        for message in group.drain(..) {
            match message {
                Message::Entry(Entry { event, changes: belonging, lease }) => {
                    events.push(event);
                    changes.extend(belonging);
                    leases.extend(lease);
                }
                Message::Flush(told) => waiting.push(told),
            }
        }
        changes.extend(runs::record_events(run, &events));
        write(storage, changes).await?;
        drop(leases);
        if events.iter().any(|event| matches!(event.kind, EventKind::RunEnded { .. })) {
            storage.sync().await?;
        }
        for event in events {
            sink.emit(&event);
        }
        for told in waiting {
            // Who does not wait any more does not want to know.
            let _gone = told.send(());
        }
    }
    Ok(())
}

fn is_waited_for(message: &Message) -> bool {
    match message {
        Message::Entry(entry) => matches!(entry.event.kind, EventKind::RunEnded { .. }),
        Message::Flush(_) => true,
    }
}

/// Writes, and tries again for a while where that may help: a task that fills the disk ends, and then there is room.
async fn write(storage: &dyn StorageBackend, changes: Vec<RefChange>) -> Result<(), StorageError> {
    for _ in 0..PATIENCE {
        match storage.refs().write(changes.clone()).await {
            Err(RefError::Unavailable(error)) if error.retryable => tokio::time::sleep(PAUSE).await,
            other => return Ok(other?),
        }
    }
    Ok(storage.refs().write(changes).await?)
}
