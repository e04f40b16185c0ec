//! Small objects that come in together, as rows of the database.
//!
//! To make a file, seal it and rename it costs a hundred times what hashing the few bytes in it costs, and each takes an inode and
//! a block. For the output of a task that has made a file anyway this is next to nothing; for a hundred thousand sources or task
//! objects it is nearly all the work. So those become rows. A row that is staged gets its file, as any object has one, and keeps
//! it: most are not staged again, and those that are will be often.

use std::{
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

impl SmallObjects {
    pub(crate) fn new(readers: Arc<Readers>, writer: Arc<Writer>) -> Self {
        Self { readers, writer }
    }

    /// Has objects written; they are there when what is returned says so.
    pub(super) async fn put(&self, objects: Vec<(Hash, Bytes)>) -> Result<Told, Unavailable> {
        self.writer.put_small(objects).await
    }

    pub(super) fn get(&self, hash: &Hash) -> Result<Option<Bytes>, Unavailable> {
        self.readers.with_any("reading an object", |connection| {
            let mut select = connection.prepare_cached("SELECT bytes FROM small WHERE hash = ?1")?;
            let bytes: Option<Vec<u8>> = select.query_row([hash.as_bytes()], |row| row.get(0)).optional()?;
            Ok(bytes.map(Bytes::from))
        })
    }

    /// The sizes of objects, where they are there.
    pub(super) fn sizes(&self, hashes: &[Hash]) -> Result<Vec<Option<u64>>, Unavailable> {
        // Rows that are near each other are read together.
        let mut places: Vec<usize> = (0..hashes.len()).collect();
        places.sort_unstable_by_key(|place| hashes[*place]);
        self.readers.with("looking for objects", |connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut select = transaction.prepare_cached("SELECT length(bytes) FROM small WHERE hash = ?1")?;
            let mut sizes = vec![None; hashes.len()];
            for place in places {
                let size: Option<i64> =
                    select.query_row([hashes[place].as_bytes()], |row| row.get(0)).optional()?;
                sizes[place] = size.map(i64::cast_unsigned);
            }
            Ok(sizes)
        })
    }

    pub(super) fn list(&self) -> Result<Vec<ObjectRef>, Unavailable> {
        self.readers.with("listing objects", |connection| {
            let mut select = connection.prepare("SELECT hash, length(bytes) FROM small")?;
            let object = |row: &rusqlite::Row<'_>| {
                let size = row.get::<_, i64>(1)?.cast_unsigned();
                Ok(ObjectRef { hash: Hash::from_bytes(row.get(0)?), size })
            };
            select.query_map([], object)?.collect()
        })
    }

    /// Those of the objects that were put before a time.
    pub(super) fn older(&self, hashes: &[Hash], than: Timestamp) -> Result<Vec<Hash>, Unavailable> {
        let than = i64::try_from(than.unix_ms()).unwrap_or(i64::MAX);
        self.readers.with("looking for objects", |connection| {
            let mut select = connection.prepare_cached("SELECT put < ?2 FROM small WHERE hash = ?1")?;
            let mut older = Vec::new();
            for hash in hashes {
                let found: Option<bool> =
                    select.query_row((hash.as_bytes(), than), |row| row.get(0)).optional()?;
                older.extend(found.unwrap_or(false).then_some(*hash));
            }
            Ok(older)
        })
    }

    pub(super) async fn forget(&self, hashes: Vec<Hash>) -> Result<(), Unavailable> {
        self.writer.forget_small(hashes).await?.wait().await
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

/// Opens a file for reading without a note of it in the file's access time, which would be written for each of them.
fn open_quietly(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME, Mode::empty()) {
        // Only the owner of a file may do so.
        Err(Errno::PERM) => {}
        other => return Ok(File::from(other?)),
    }
    File::open(path)
}

/// Writes objects in the transaction of a connection.
pub(crate) fn insert(connection: &Connection, objects: &[(Hash, Bytes)]) -> rusqlite::Result<()> {
    let now: i64 =
        connection.query_row("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)", [], |row| row.get(0))?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO small (hash, put, bytes) VALUES (?1, ?2, ?3) ON CONFLICT (hash) DO NOTHING",
    )?;
    for (hash, bytes) in objects {
        insert.execute((hash.as_bytes(), now, &bytes[..]))?;
    }
    Ok(())
}

/// Removes objects in the transaction of a connection.
pub(crate) fn remove(connection: &Connection, hashes: &[Hash]) -> rusqlite::Result<()> {
    let mut remove = connection.prepare_cached("DELETE FROM small WHERE hash = ?1")?;
    for hash in hashes {
        remove.execute([hash.as_bytes()])?;
    }
    Ok(())
}
