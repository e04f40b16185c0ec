//! The database: its tables, its format version, and connections to it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use e3_core::Unavailable;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::storage::OpenError;

/// The version of the folder's layout, of the tables and of the records. Another one is refused, never guessed at.
pub(crate) const FORMAT: i64 = 5;

/// "e3db" as `SQLite`'s application id: says that the file is ours.
const APPLICATION: i64 = 0x6533_6462;

/// `refs` is a table with an index, not an index alone (`WITHOUT ROWID`): values may be large, and to compare a name with the one of
/// an entry of an index that does not fit on its page, `SQLite` reads all of the entry.
pub(crate) const TABLES: &str = "
    CREATE TABLE refs (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE counters (workspace TEXT PRIMARY KEY, changes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE small (
        hash BLOB PRIMARY KEY CHECK (length(hash) = 32), put INTEGER NOT NULL, bytes BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// How long a connection waits for another process's transaction. These take milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of the database a connection keeps in memory at most, in KiB.
const CACHE_KIB: i64 = 8 << 10;
/// The same of one that only reads: what it has read is worth nothing after the next write of the other one.
const READING_CACHE_KIB: i64 = 1 << 10;

/// How often the mode of a new database is asked for: others may be faster, each of them once.
const TRIES: usize = 100;

/// Opens the database of a repository; `create` makes one where there is none.
pub(crate) fn open(path: &Path, create: bool) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Database { path: path.to_owned(), source };
    let mut connection = connect(path, create, CACHE_KIB).map_err(failed)?;
    // In a transaction: another process may just be making the tables.
    let reading = connection.transaction().map_err(failed)?;
    let format = format_of(&reading, path)?;
    drop(reading);
    if format == 0 && create {
        // Several processes may be here at once: who is second finds the tables.
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        if format_of(&transaction, path)? == 0 {
            transaction.execute_batch(TABLES).map_err(failed)?;
            transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
            transaction.pragma_update(None, "user_version", FORMAT).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
    }
    Ok(connection)
}

/// The format of an open database; 0 for an empty one.
fn format_of(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let read = number("user_version").and_then(|format| Ok((format, number("application_id")?)));
    let (format, application) =
        read.map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
    if format > FORMAT && application == APPLICATION {
        return Err(OpenError::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    if (1..FORMAT).contains(&format) && application == APPLICATION {
        return Err(OpenError::Older { path: path.to_owned(), found: format, known: FORMAT });
    }
    if (format, application) != (0, 0) && (format, application) != (FORMAT, APPLICATION) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    Ok(format)
}

fn connect(path: &Path, create: bool, cache_kib: i64) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // A commit in WAL mode with NORMAL survives the death of the process without a sync; `LocalStorage::sync` is the
    // barrier for power cuts. https://sqlite.org/pragma.html#pragma_synchronous
    use_wal(&mut connection)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // In pages of 4 KiB. Each checkpoint waits for the disk; records that change often are written back once in it.
    connection.pragma_update(None, "wal_autocheckpoint", 8000)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Of several processes that open a new database at once, one changes its mode, and the others are told that it is locked,
/// without the wait that they have asked for. A transaction does wait.
fn use_wal(connection: &mut Connection) -> rusqlite::Result<()> {
    for _ in 0..TRIES {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?.commit()?;
            }
            other => return other,
        }
    }
    connection.pragma_update(None, "journal_mode", "WAL")
}

/// Connections for readers, opened on demand and used again.
///
/// What one connection writes makes the pages that others have in memory worthless, but not its own. So who reads a row or two,
/// as every task does, asks the writer's connection if the writer does not need it just then.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    of_writer: Arc<Mutex<Connection>>,
}

impl Readers {
    /// How large the journal of the database is, in bytes; none counts as empty.
    pub(crate) fn journal_size(&self) -> u64 {
        let mut journal = self.path.clone().into_os_string();
        journal.push("-wal");
        std::fs::metadata(journal).map_or(0, |journal| journal.len())
    }

    pub(crate) fn new(path: PathBuf, of_writer: Arc<Mutex<Connection>>) -> Self {
        Self { path, idle: Mutex::new(Vec::new()), of_writer }
    }

    /// The same as `with`, for what takes some microseconds.
    pub(crate) fn with_any<T>(
        &self,
        doing: &str,
        read: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        match self.of_writer.try_lock() {
            // Should the writer have failed to end a transaction, nobody is to read in it.
            Ok(mut connection) if connection.is_autocommit() => {
                read(&mut connection).map_err(|error| unavailable(doing, &self.path, error))
            }
            _ => self.with(doing, read),
        }
    }

    /// Calls `read` with a connection on which no transaction is open.
    pub(crate) fn with<T>(
        &self,
        doing: &str,
        read: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => Ok(connection),
            None => connect(&self.path, false, READING_CACHE_KIB),
        };
        let mut connection = connection.map_err(|error| unavailable("opening", &self.path, error))?;
        let value = read(&mut connection).map_err(|error| unavailable(doing, &self.path, error))?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(value)
    }
}

/// What may be the reason why a database cannot be opened.
pub(crate) fn hint(path: &Path) -> &'static str {
    let folder = path.parent().unwrap_or(path);
    match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK) {
        Err(rustix::io::Errno::ROFS) => {
            ": the file system is read-only, and the database cannot even be read without writing beside it"
        }
        Err(rustix::io::Errno::ACCESS) => {
            ": its folder cannot be written to, and the database cannot even be read without writing beside it"
        }
        _ => "",
    }
}

/// Whether an error says that the file is no sound database.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase))
}

/// An error of `SQLite` as one of the seam. Another process that holds the database for very long may let go of it, and who
/// has filled the disk may end.
pub(crate) fn unavailable(doing: &str, path: &Path, error: rusqlite::Error) -> Unavailable {
    let busy = matches!(
        error.sqlite_error_code(),
        Some(
            rusqlite::ErrorCode::DatabaseBusy
                | rusqlite::ErrorCode::DatabaseLocked
                | rusqlite::ErrorCode::DiskFull
        )
    );
    Unavailable { retryable: busy, ..Unavailable::new(format!("{doing} in `{}`", path.display()), error) }
}
