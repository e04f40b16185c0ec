//! The one writer: a thread that makes the changes of all callers, as many as are waiting in one transaction.
//!
//! A transaction costs about the same whether it holds one change or a hundred, and `SQLite` has one writer anyway.
//! Callers wait for their own change; the scheduler waits for nobody.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use bytes::Bytes;
use e3_core::{RefChange, RefError, RefName, Unavailable};
use e3_types::Hash;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, blob::ZeroBlob};
use tokio::sync::{mpsc, oneshot};

use crate::{database::unavailable, objects::small};

/// How many requests may be waiting before callers have to.
const QUEUE: usize = 1024;
/// A longer value is written in place, in bytes: otherwise there would be two more of it in memory.
const LARGE: usize = 1 << 20;

/// What callers ask for.
struct Request {
    work: Work,
    reply: oneshot::Sender<Result<(), RefError>>,
}

enum Work {
    Change(Vec<RefChange>),
    Put(Vec<(Hash, Bytes)>),
    Forget(Vec<(Hash, Option<Bytes>)>),
}

/// The answer to a request, which may be awaited later.
#[derive(Debug)]
pub(crate) struct Told(oneshot::Receiver<Result<(), RefError>>);

impl Told {
    /// Waits until it is done; for what has no precondition.
    pub(crate) async fn wait(self) -> Result<(), Unavailable> {
        match self.0.await.map_err(|_| stopped())? {
            Err(RefError::Unavailable(error)) => Err(error),
            Err(other) => Err(Unavailable::new("writing to the repository", other)),
            Ok(()) => Ok(()),
        }
    }
}

/// The handle of the writer thread. Dropping it waits until all that was asked for is done.
#[derive(Debug)]
pub(crate) struct Writer {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread; between two transactions of it others may read through its connection.
    pub(crate) fn start(connection: Arc<Mutex<Connection>>, path: PathBuf) -> std::io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let worker = Worker { connection, path };
        let thread =
            std::thread::Builder::new().name("e3-writer".to_owned()).spawn(move || worker.work(queue))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Makes changes of refs, all or none.
    pub(crate) async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError> {
        self.ask(Work::Change(changes)).await?.0.await.map_err(|_| stopped())?
    }

    /// Writes small objects.
    pub(crate) async fn put_small(&self, objects: Vec<(Hash, Bytes)>) -> Result<Told, Unavailable> {
        self.ask(Work::Put(objects)).await
    }

    /// Removes small objects; with bytes, only if these are still what is there.
    pub(crate) async fn forget_small(
        &self,
        objects: Vec<(Hash, Option<Bytes>)>,
    ) -> Result<Told, Unavailable> {
        self.ask(Work::Forget(objects)).await
    }

    async fn ask(&self, work: Work) -> Result<Told, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send(Request { work, reply }).await.map_err(|_| stopped())?;
        Ok(Told(answer))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the repository panicked");
        }
    }
}

fn stopped() -> Unavailable {
    Unavailable::new("writing to the repository", "its writer has stopped")
}

struct Worker {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
}

impl Worker {
    fn work(self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            while group.len() < QUEUE
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            self.serve(group);
        }
    }

    /// Serves a group of requests in one transaction and answers when it is committed.
    fn serve(&self, group: Vec<Request>) {
        let outcomes = match self.commit(&group) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let failure = || Err(unavailable("writing", &self.path, copy(&error)).into());
                group.iter().map(|_| failure()).collect()
            }
        };
        for (request, outcome) in group.into_iter().zip(outcomes) {
            // A caller that is gone does not want to know.
            drop(request.reply.send(outcome));
        }
    }

    fn commit(&self, group: &[Request]) -> rusqlite::Result<Vec<Result<(), RefError>>> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcomes = group.iter().map(|request| match &request.work {
            Work::Change(changes) => change_refs(&transaction, changes),
            Work::Put(objects) => small::insert(&transaction, objects).map(Ok),
            Work::Forget(objects) => small::remove(&transaction, objects).map(Ok),
        });
        let outcomes = outcomes.collect::<rusqlite::Result<_>>()?;
        transaction.commit()?;
        Ok(outcomes)
    }
}

/// The same error for each caller of a group.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    let code = error.sqlite_error().copied();
    let code = code.unwrap_or_else(|| rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR));
    rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
}

/// Makes the changes if all preconditions hold; the inner error is the one for the caller.
fn change_refs(
    transaction: &Transaction<'_>,
    changes: &[RefChange],
) -> rusqlite::Result<Result<(), RefError>> {
    let mut read = transaction.prepare_cached("SELECT value FROM refs WHERE name = ?1")?;
    for change in changes {
        if change.precondition != e3_core::Precondition::None {
            let current: Option<Vec<u8>> =
                read.query_row([change.name.as_str()], |row| row.get(0)).optional()?;
            if !change.precondition.holds(current.as_deref()) {
                return Ok(Err(RefError::Conflict(change.name.clone())));
            }
        }
    }
    let mut set = transaction.prepare_cached(
        "INSERT INTO refs (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?;
    let mut remove = transaction.prepare_cached("DELETE FROM refs WHERE name = ?1")?;
    for change in changes {
        match &change.value {
            Some(value) if value.len() > LARGE => {
                set.execute((change.name.as_str(), ZeroBlob(value.len() as u64)))?;
                fill(transaction, &change.name, value)?;
            }
            Some(value) => {
                set.execute((change.name.as_str(), &value[..]))?;
            }
            None => {
                remove.execute([change.name.as_str()])?;
            }
        }
    }
    let touched: BTreeSet<_> = changes.iter().filter_map(|change| change.name.workspace()).collect();
    for workspace in touched {
        let mut count = transaction.prepare_cached(
            "INSERT INTO counters (workspace, changes) VALUES (?1, 1) \
             ON CONFLICT (workspace) DO UPDATE SET changes = changes + 1",
        )?;
        count.execute([workspace])?;
    }
    Ok(Ok(()))
}

/// Writes a value where there is room for it.
fn fill(transaction: &Transaction<'_>, name: &RefName, value: &[u8]) -> rusqlite::Result<()> {
    let mut find = transaction.prepare_cached("SELECT rowid FROM refs WHERE name = ?1")?;
    let row = find.query_row([name.as_str()], |row| row.get(0))?;
    let mut room = transaction.blob_open("main", "refs", "value", row, false)?;
    room.write_all_at(value, 0)?;
    room.close()
}
