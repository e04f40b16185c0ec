//! Small objects that come in together, as rows of the database.
//!
//! To make a file, seal it and rename it costs a hundred times what hashing the few bytes in it costs, and each takes an inode and
//! a block. For the output of a task that has made a file anyway this is next to nothing; for a hundred thousand sources or task
//! objects it is nearly all the work. So those become rows. A row that is staged gets its file, as any object has one, and keeps
//! it: most are not staged again, and those that are will be often.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use e3_core::{Source, Unavailable};
use e3_types::{Hash, ObjectRef, Timestamp};
use rusqlite::{Connection, OptionalExtension};

#[cfg(target_os = "linux")]
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    database::Readers,
    writer::{Told, Writer},
};

/// The largest object that becomes a row, in bytes: a page of the database, and a block of most file systems.
const SMALL: usize = 4 << 10;

/// The small objects of a repository.
#[derive(Debug)]
pub(crate) struct SmallObjects {
    readers: Arc<Readers>,
    writer: Arc<Writer>,
}

/// What there is.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) objects: Vec<ObjectRef>,
    /// The rows that are not what their names say, with what they hold.
    pub(super) altered: Vec<(Hash, Bytes)>,
}

impl SmallObjects {
    pub(crate) fn new(readers: Arc<Readers>, writer: Arc<Writer>) -> Self {
        Self { readers, writer }
    }

    /// Has objects written; they are there when what is returned says so.
    pub(super) async fn put(&self, objects: Vec<(Hash, Bytes)>) -> Result<Told, Unavailable> {
        self.writer.put_small(objects).await
    }

    /// The bytes of an object, if they are what its name says. A row has no seal that would tell of a change, but to hash so few
    /// bytes costs no more than to look at a file.
    pub(super) fn get(&self, hash: &Hash) -> Result<Option<Bytes>, Unavailable> {
        self.readers.with_any("reading an object", |connection| {
            let mut select = connection.prepare_cached("SELECT bytes FROM small WHERE hash = ?1")?;
            let bytes: Option<Vec<u8>> = select.query_row([hash.as_bytes()], |row| row.get(0)).optional()?;
            Ok(bytes.filter(|bytes| Hash::of(bytes) == *hash).map(Bytes::from))
        })
    }

    /// The sizes of objects that are there and what their names say.
    pub(super) fn sizes(&self, hashes: &[Hash]) -> Result<Vec<Option<u64>>, Unavailable> {
        // Rows that are near each other are read together.
        let mut places: Vec<usize> = (0..hashes.len()).collect();
        places.sort_unstable_by_key(|place| hashes[*place]);
        self.readers.with("looking for objects", |connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut select = transaction.prepare_cached("SELECT bytes FROM small WHERE hash = ?1")?;
            let mut sizes = vec![None; hashes.len()];
            for place in places {
                let size = select.query_row([hashes[place].as_bytes()], |row| {
                    let bytes = row.get_ref(0)?.as_blob()?;
                    Ok((Hash::of(bytes) == hashes[place]).then_some(bytes.len() as u64))
                });
                sizes[place] = size.optional()?.flatten();
            }
            Ok(sizes)
        })
    }

    pub(super) fn list(&self) -> Result<Listed, Unavailable> {
        self.readers.with("listing objects", |connection| {
            let mut listed = Listed::default();
            let mut select = connection.prepare("SELECT hash, bytes FROM small")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let (hash, bytes) = (Hash::from_bytes(row.get(0)?), row.get_ref(1)?.as_blob()?);
                let object = ObjectRef::of(bytes);
                if object.hash == hash {
                    listed.objects.push(object);
                } else {
                    listed.altered.push((hash, Bytes::copy_from_slice(bytes)));
                }
            }
            Ok(listed)
        })
    }

    /// Which of the objects are rows, and whether those were put before a time.
    pub(super) fn are_older(
        &self,
        hashes: &[Hash],
        than: Timestamp,
    ) -> Result<HashMap<Hash, bool>, Unavailable> {
        let than = i64::try_from(than.unix_ms()).unwrap_or(i64::MAX);
        self.readers.with("looking for objects", |connection| {
            let mut select = connection.prepare_cached("SELECT put < ?2 FROM small WHERE hash = ?1")?;
            let mut older = HashMap::new();
            for hash in hashes {
                let found: Option<bool> =
                    select.query_row((hash.as_bytes(), than), |row| row.get(0)).optional()?;
                older.extend(found.map(|is_older| (*hash, is_older)));
            }
            Ok(older)
        })
    }

    /// Removes rows; with bytes, only if these are still what it holds.
    pub(super) async fn forget(&self, rows: Vec<(Hash, Option<Bytes>)>) -> Result<(), Unavailable> {
        self.writer.forget_small(rows).await?.wait().await
    }
}

/// The bytes of a source that may become a row.
pub(super) fn small_bytes(source: &Source) -> io::Result<Option<Bytes>> {
    match source {
        Source::Bytes(bytes) => Ok((bytes.len() <= SMALL).then(|| bytes.clone())),
        Source::Copy(path) => read_small(path),
        Source::Adopt(_) | Source::Stream(_) => Ok(None),
    }
}

fn read_small(path: &Path) -> io::Result<Option<Bytes>> {
    let mut file = open_quietly(path)?;
    // To ask for its size costs as much as to read it.
    let mut buffer = [0; SMALL + 1];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(Some(Bytes::copy_from_slice(&buffer[..filled]))),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// It does not wait either, should the file have become a pipe.
#[cfg(target_os = "linux")]
const QUIETLY: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOATIME).union(OFlags::NONBLOCK);

/// Opens a file for reading without a note of it in the file's access time, which would be written for each of them.
fn open_quietly(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    match rustix::fs::open(path, QUIETLY, Mode::empty()) {
        // Only the owner of a file may do so.
        Err(Errno::PERM) => {}
        other => return Ok(File::from(other?)),
    }
    File::open(path)
}

/// Writes objects in the transaction of a connection. A row that is not what its name says becomes what it should be.
pub(crate) fn insert(connection: &Connection, objects: &[(Hash, Bytes)]) -> rusqlite::Result<()> {
    let now: i64 =
        connection.query_row("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)", [], |row| row.get(0))?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO small (hash, put, bytes) VALUES (?1, ?2, ?3) ON CONFLICT (hash) DO UPDATE \
         SET put = excluded.put, bytes = excluded.bytes WHERE bytes <> excluded.bytes",
    )?;
    for (hash, bytes) in objects {
        insert.execute((hash.as_bytes(), now, &bytes[..]))?;
    }
    Ok(())
}

/// Removes rows in the transaction of a connection; with bytes, only if these are still what it holds.
pub(crate) fn remove(connection: &Connection, rows: &[(Hash, Option<Bytes>)]) -> rusqlite::Result<()> {
    let mut remove =
        connection.prepare_cached("DELETE FROM small WHERE hash = ?1 AND (?2 IS NULL OR bytes = ?2)")?;
    for (hash, bytes) in rows {
        remove.execute((hash.as_bytes(), bytes.as_deref()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_was_mended_meanwhile_is_not_removed_for_what_it_was() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::database::TABLES).unwrap();
        let count =
            || connection.query_row("SELECT count(*) FROM small", [], |row| row.get::<_, i64>(0)).unwrap();
        let (hash, altered) = (Hash::of(b"sound"), Bytes::from_static(b"altered"));
        insert(&connection, &[(hash, altered.clone())]).unwrap();
        insert(&connection, &[(hash, Bytes::from_static(b"sound"))]).unwrap();
        remove(&connection, &[(hash, Some(altered))]).unwrap();
        assert_eq!(count(), 1);
        remove(&connection, &[(hash, None)]).unwrap();
        assert_eq!(count(), 0);
    }
}
