//! The one writer: a thread that makes the changes of all callers, as many as are waiting in one transaction.
//!
//! A transaction costs about the same whether it holds one change or a hundred, and `SQLite` has one writer anyway.
//! Callers wait for their own change; the scheduler waits for nobody.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use e3_core::{Acquired, Holder, Lease, LeaseMode, RefChange, RefError, Unavailable};
use e3_types::OwnerId;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::{database::unavailable, owner::Owners};

/// How many requests may be waiting before callers have to.
const QUEUE: usize = 1024;

/// What callers ask for.
enum Request {
    Refs {
        changes: Vec<RefChange>,
        reply: oneshot::Sender<Result<(), RefError>>,
    },
    Lease {
        resource: String,
        mode: LeaseMode,
        holder: Holder,
        reply: oneshot::Sender<Result<Acquired, Unavailable>>,
    },
    /// There are leases in `Released`.
    Release,
}

/// The handle of the writer thread. Dropping it waits until all that was asked for is done.
#[derive(Debug)]
pub(crate) struct Writer {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// Leases that were given back: beside the queue, because a drop must not wait for room in it.
type Released = Arc<Mutex<Vec<i64>>>;

impl Writer {
    pub(crate) fn start(connection: Connection, path: PathBuf, owners: Arc<Owners>) -> std::io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let worker = Worker {
            connection,
            path,
            owners,
            released: Released::default(),
            requests: requests.downgrade(),
        };
        let thread =
            std::thread::Builder::new().name("e3-writer".to_owned()).spawn(move || worker.work(queue))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Makes changes of refs, all or none.
    pub(crate) async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Refs { changes, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Takes a lease or says who has it.
    pub(crate) async fn acquire(
        &self,
        resource: &str,
        mode: LeaseMode,
        holder: &Holder,
    ) -> Result<Acquired, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let (resource, holder) = (resource.to_owned(), holder.clone());
        self.send(Request::Lease { resource, mode, holder, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn send(&self, request: Request) -> Result<(), Unavailable> {
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send(request).await.map_err(|_| stopped())
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
    connection: Connection,
    path: PathBuf,
    owners: Arc<Owners>,
    released: Released,
    requests: mpsc::WeakSender<Request>,
}

/// What a request came to, to be told when the transaction has been committed.
enum Outcome {
    Refs(Result<(), RefError>),
    Lease(Result<Granted, Unavailable>),
    Nothing,
}

enum Granted {
    Lease(i64),
    Held(Vec<Holder>),
}

impl Worker {
    fn work(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            while group.len() < QUEUE
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            self.serve(group);
        }
        self.serve(Vec::new());
    }

    /// Serves a group of requests in one transaction and answers when it is committed.
    fn serve(&mut self, group: Vec<Request>) {
        let released = std::mem::take(&mut *lock(&self.released));
        if group.is_empty() && released.is_empty() {
            return;
        }
        match self.commit(&group, &released) {
            Ok(outcomes) => {
                for (request, outcome) in group.into_iter().zip(outcomes) {
                    self.answer(request, outcome);
                }
            }
            Err(error) => {
                // Tried again with the next group; if there is none, this process is over and its leases with it.
                lock(&self.released).extend(released);
                let failure = || unavailable("writing", &self.path, copy(&error));
                for request in group {
                    let outcome = match request {
                        Request::Refs { .. } => Outcome::Refs(Err(failure().into())),
                        Request::Lease { .. } => Outcome::Lease(Err(failure())),
                        Request::Release => Outcome::Nothing,
                    };
                    self.answer(request, outcome);
                }
            }
        }
    }

    /// A caller that is gone does not want to know, so a reply that cannot be sent is dropped.
    fn answer(&self, request: Request, outcome: Outcome) {
        match (request, outcome) {
            (Request::Refs { reply, .. }, Outcome::Refs(result)) => drop(reply.send(result)),
            (Request::Lease { reply, .. }, Outcome::Lease(result)) => {
                drop(reply.send(result.map(|granted| self.hand_over(granted))));
            }
            _ => {}
        }
    }

    fn commit(&mut self, group: &[Request], released: &[i64]) -> rusqlite::Result<Vec<Outcome>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        release(&transaction, released)?;
        let mut outcomes = Vec::with_capacity(group.len());
        for request in group {
            outcomes.push(match request {
                Request::Refs { changes, .. } => Outcome::Refs(change_refs(&transaction, changes)?),
                Request::Lease { resource, mode, holder, .. } => {
                    Outcome::Lease(grant(&transaction, &self.owners, resource, *mode, holder)?)
                }
                Request::Release => Outcome::Nothing,
            });
        }
        transaction.commit()?;
        Ok(outcomes)
    }

    fn hand_over(&self, granted: Granted) -> Acquired {
        match granted {
            Granted::Held(holders) => Acquired::Held(holders),
            Granted::Lease(id) => {
                let (released, requests) = (Arc::clone(&self.released), self.requests.clone());
                Acquired::Lease(Lease::new(move || {
                    lock(&released).push(id);
                    // If the queue is full, or gone, the writer is awake and looks before it rests.
                    if let Some(requests) = requests.upgrade()
                        && requests.try_send(Request::Release).is_err()
                    {
                        tracing::trace!("the writer is busy; it will see the lease");
                    }
                }))
            }
        }
    }
}

/// The same error for each caller of a group.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    let code = error.sqlite_error().copied();
    let code = code.unwrap_or_else(|| rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR));
    rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
}

/// Locks a list that is whole between any two statements.
fn lock(released: &Mutex<Vec<i64>>) -> MutexGuard<'_, Vec<i64>> {
    released.lock().unwrap_or_else(PoisonError::into_inner)
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
            Some(value) => set.execute((change.name.as_str(), &value[..]))?,
            None => remove.execute([change.name.as_str()])?,
        };
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

fn release(transaction: &Transaction<'_>, leases: &[i64]) -> rusqlite::Result<()> {
    let mut delete = transaction.prepare_cached("DELETE FROM leases WHERE id = ?1")?;
    leases.iter().try_for_each(|id| delete.execute([id]).map(drop))
}

/// A lease as it is stored.
pub(crate) struct LeaseRow {
    pub(crate) id: i64,
    pub(crate) exclusive: bool,
    pub(crate) owner: String,
    pub(crate) holder: Vec<u8>,
}

/// The leases of a resource, those of dead owners among them.
pub(crate) fn leases_of(connection: &Connection, resource: &str) -> rusqlite::Result<Vec<LeaseRow>> {
    let mut select =
        connection.prepare_cached("SELECT id, exclusive, owner, holder FROM leases WHERE resource = ?1")?;
    let row = |row: &rusqlite::Row<'_>| {
        Ok(LeaseRow { id: row.get(0)?, exclusive: row.get(1)?, owner: row.get(2)?, holder: row.get(3)? })
    };
    select.query_map([resource], row)?.collect()
}

/// The holder of a lease, if its process is alive.
pub(crate) fn living_holder(owners: &Owners, row: &LeaseRow) -> Result<Option<Holder>, Unavailable> {
    let corrupt = |message: String| Unavailable::new("reading a lease", message);
    let owner: OwnerId =
        row.owner.parse().map_err(|error: e3_types::IdParseError| corrupt(error.to_string()))?;
    let alive = owners
        .is_alive(owner)
        .map_err(|error| Unavailable::new(format!("asking whether owner {owner} is alive"), error))?;
    if !alive {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&row.holder).map_err(|error| corrupt(error.to_string()))?))
}

fn grant(
    transaction: &Transaction<'_>,
    owners: &Owners,
    resource: &str,
    mode: LeaseMode,
    holder: &Holder,
) -> rusqlite::Result<Result<Granted, Unavailable>> {
    if let Err(error) = owners.register() {
        return Ok(Err(Unavailable::new("making this process known in the repository", error)));
    }
    let mut holders = Vec::new();
    let mut conflict = false;
    for row in leases_of(transaction, resource)? {
        match living_holder(owners, &row) {
            Err(error) => return Ok(Err(error)),
            Ok(None) => release(transaction, &[row.id])?,
            Ok(Some(holder)) => {
                conflict |= row.exclusive || mode == LeaseMode::Exclusive;
                holders.push(holder);
            }
        }
    }
    if conflict {
        return Ok(Ok(Granted::Held(holders)));
    }
    let text = serde_json::to_vec(holder).expect("a holder is plain data with text keys");
    let mut insert = transaction
        .prepare_cached("INSERT INTO leases (resource, exclusive, owner, holder) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute((resource, mode == LeaseMode::Exclusive, owners.own().to_string(), text))?;
    Ok(Ok(Granted::Lease(transaction.last_insert_rowid())))
}
