//! Refs in the database.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use e3_core::{RefChange, RefError, RefName, RefStore, Scan, Unavailable};
use e3_types::WorkspaceName;
use rusqlite::{Connection, OptionalExtension};

use crate::{database::Readers, writer::Writer};

/// So few names are read without going to a thread that may block: no writer ever makes a reader wait.
const FEW: usize = 32;
/// A smaller journal of the database, in bytes, is moved in less time than a connection is opened.
const WORTH_MOVING: u64 = 1 << 20;
/// How often somebody who waits for a change looks.
const LOOK_EVERY: Duration = Duration::from_millis(80);

/// Refs: written by the one writer, read by as many as want to.
#[derive(Debug)]
pub(crate) struct LocalRefs {
    pub(crate) writer: Arc<Writer>,
    pub(crate) readers: Arc<Readers>,
}

#[async_trait]
impl RefStore for LocalRefs {
    async fn read(&self, names: &[RefName]) -> Result<Vec<Option<Bytes>>, RefError> {
        let names = names.to_vec();
        let is_quick = names.len() <= FEW;
        self.reading(is_quick, "reading refs", move |connection| {
            // One statement is a transaction of its own.
            let transaction = (names.len() > 1).then(|| connection.unchecked_transaction()).transpose()?;
            let mut select = connection.prepare_cached("SELECT value FROM refs WHERE name = ?1")?;
            let value = |name: &RefName| {
                let value: Option<Vec<u8>> =
                    select.query_row([name.as_str()], |row| row.get(0)).optional()?;
                Ok(value.map(Bytes::from))
            };
            let values = names.iter().map(value).collect();
            drop(transaction);
            values
        })
        .await
    }

    async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError> {
        self.writer.write(changes).await
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<(RefName, Bytes)>, RefError> {
        self.reading(false, "listing refs", move |connection| list(connection, &scan)).await
    }

    async fn change_counter(&self, workspace: &WorkspaceName) -> Result<u64, RefError> {
        let workspace = workspace.clone();
        let changes = self.reading(true, "reading the change counter", move |connection| {
            let mut select =
                connection.prepare_cached("SELECT changes FROM counters WHERE workspace = ?1")?;
            select.query_row([workspace.as_str()], |row| row.get::<_, i64>(0)).optional()
        });
        Ok(changes.await?.map_or(0, i64::cast_unsigned))
    }

    /// Other processes can only be asked. One look at one row, ten times in a second or so, is next to nothing.
    async fn changed(&self, workspace: &WorkspaceName, seen: u64) -> Result<u64, RefError> {
        loop {
            let now = self.change_counter(workspace).await?;
            if now != seen {
                return Ok(now);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl LocalRefs {
    pub(crate) fn check_database(&self) -> Result<Vec<String>, Unavailable> {
        let found: Vec<String> = self.readers.with("checking the database", |connection| {
            let mut check = connection.prepare("PRAGMA integrity_check")?;
            check.query_map([], |row| row.get(0))?.collect()
        })?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// Moves what has been written from the journal of the database to the database itself, as far as nobody is in the way and
    /// there is enough of it.
    pub(crate) async fn checkpoint(&self) -> Result<(), Unavailable> {
        let (readers, doing) = (Arc::clone(&self.readers), "checkpointing the database");
        let checkpoint = move || {
            if readers.journal_size() < WORTH_MOVING {
                return Ok(());
            }
            readers.with(doing, |connection| {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            })
        };
        let done = tokio::task::spawn_blocking(checkpoint).await;
        done.map_err(|error| Unavailable::new(doing, error))?
    }

    async fn reading<T: Send + 'static>(
        &self,
        is_quick: bool,
        doing: &'static str,
        read: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, RefError> {
        if is_quick {
            return Ok(self.readers.with_any(doing, read)?);
        }
        let readers = Arc::clone(&self.readers);
        let done = tokio::task::spawn_blocking(move || readers.with(doing, read)).await;
        Ok(done.map_err(|error| Unavailable::new(doing, error))??)
    }
}

fn list(connection: &Connection, scan: &Scan) -> rusqlite::Result<Vec<(RefName, Bytes)>> {
    // Names are ASCII, so every name with this prefix sorts before the prefix with the last character there is.
    let end = format!("{}\u{10ffff}", scan.prefix);
    let after = scan.after.as_ref().map(RefName::as_str);
    // What comes before is not read and left out, but not read: a page costs the same wherever it is.
    let (order, beyond, first, end) = match after {
        Some(after) if scan.reverse => ("DESC", ">=", scan.prefix.as_str(), after.min(&end)),
        None if scan.reverse => ("DESC", ">=", scan.prefix.as_str(), end.as_str()),
        Some(after) if after >= scan.prefix.as_str() => ("ASC", ">", after, end.as_str()),
        _ => ("ASC", ">=", scan.prefix.as_str(), end.as_str()),
    };
    let mut select = connection.prepare_cached(&format!(
        "SELECT name, value FROM refs WHERE name {beyond} ?1 AND name < ?2 ORDER BY name {order} LIMIT ?3"
    ))?;
    let limit = i64::try_from(scan.limit).unwrap_or(i64::MAX);
    let row = |row: &rusqlite::Row<'_>| {
        Ok((RefName::from_stored(row.get(0)?), Bytes::from(row.get::<_, Vec<u8>>(1)?)))
    };
    select.query_map((first, end, limit), row)?.collect()
}
