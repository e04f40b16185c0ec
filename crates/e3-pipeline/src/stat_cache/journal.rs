//! How the stat cache is written down: batches of entries, one after the other, each with its length and a hash in front; of
//! entries with the same path the last one counts. What follows a batch that is not whole (the process died, the disk was
//! full) is not read: it can be found out again.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use e3_types::{Hash, ObjectRef};

use super::Entry;
use crate::look::Look;

/// The beginning of the file. One that begins otherwise is not read.
const MAGIC: &[u8] = b"e3 stat cache 3\n";
/// How many entries are in a batch at most: what is written of many files is not in memory as a whole.
const BATCH: usize = if cfg!(test) { 2 } else { 4096 };
/// About how many bytes an entry has.
pub(super) const USUAL: usize = 200;
/// How much of the hash of a batch is written.
const CHECK: usize = 16;

/// Reads all entries, in the order in which they were written; an error if there is anything else.
pub(super) fn read(path: &Path, entry: impl FnMut(&str, Entry)) -> io::Result<()> {
    let bytes = fs::read(path)?;
    read_bytes(&bytes, entry)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a batch is not whole"))
}

fn read_bytes(bytes: &[u8], mut entry: impl FnMut(&str, Entry)) -> Option<()> {
    let mut batches = Reader(bytes.strip_prefix(MAGIC)?);
    while !batches.0.is_empty() {
        let length = usize::try_from(batches.number()?).ok()?;
        let check = batches.take(CHECK)?;
        let batch = batches.take(length)?;
        if Hash::of(batch).as_bytes()[..CHECK] != *check {
            return None;
        }
        let mut entries = Reader(batch);
        while !entries.0.is_empty() {
            let (path, found) = entries.entry()?;
            entry(path, found);
        }
    }
    Some(())
}

/// Writes a file of these entries, aside, and puts it in place, so that nobody reads half of it.
pub(super) fn write<'a>(
    path: &Path,
    entries: impl Iterator<Item = (&'a String, &'a Entry)>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(MAGIC)?;
    write_batches(file.as_file_mut(), entries)?;
    file.persist(path)?;
    Ok(())
}

/// Adds entries to the file.
pub(super) fn add<'a>(path: &Path, entries: impl Iterator<Item = (&'a String, &'a Entry)>) -> io::Result<()> {
    match OpenOptions::new().append(true).open(path) {
        Ok(mut file) => write_batches(&mut file, entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write(path, entries),
        Err(error) => Err(error),
    }
}

/// Each batch in one go, so that those of two processes which add some are not mixed.
fn write_batches<'a>(
    file: &mut fs::File,
    mut entries: impl Iterator<Item = (&'a String, &'a Entry)>,
) -> io::Result<()> {
    while let Some(first) = entries.next() {
        file.write_all(&batch(std::iter::once(first).chain(entries.by_ref().take(BATCH - 1))))?;
    }
    Ok(())
}

fn batch<'a>(entries: impl Iterator<Item = (&'a String, &'a Entry)>) -> Vec<u8> {
    let mut batch = Vec::with_capacity(8 + CHECK + entries.size_hint().0 * USUAL);
    batch.resize(8 + CHECK, 0);
    for (path, Entry { look, object, racy }) in entries {
        let Look { size, mtime, ctime, inode, device, executable } = *look;
        batch.extend_from_slice(&(path.len() as u64).to_le_bytes());
        batch.extend_from_slice(path.as_bytes());
        for number in [size, inode, device, object.size, u64::from(executable), u64::from(*racy)] {
            batch.extend_from_slice(&number.to_le_bytes());
        }
        for number in [mtime.0, mtime.1, ctime.0, ctime.1] {
            batch.extend_from_slice(&number.to_le_bytes());
        }
        batch.extend_from_slice(object.hash.as_bytes());
    }
    let (length, check) = ((batch.len() - 8 - CHECK) as u64, Hash::of(&batch[8 + CHECK..]));
    batch[..8].copy_from_slice(&length.to_le_bytes());
    batch[8..8 + CHECK].copy_from_slice(&check.as_bytes()[..CHECK]);
    batch
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes()?))
    }

    fn signed(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.bytes()?))
    }

    fn yes_or_no(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn entry(&mut self) -> Option<(&'a str, Entry)> {
        let length = usize::try_from(self.number()?).ok()?;
        let path = std::str::from_utf8(self.take(length)?).ok()?;
        let (size, inode, device, object_size) =
            (self.number()?, self.number()?, self.number()?, self.number()?);
        let (executable, racy) = (self.yes_or_no()?, self.yes_or_no()?);
        let mtime = (self.signed()?, self.signed()?);
        let ctime = (self.signed()?, self.signed()?);
        let object = ObjectRef { hash: Hash::from_bytes(self.bytes()?), size: object_size };
        let look = Look { size, mtime, ctime, inode, device, executable };
        Some((path, Entry { look, object, racy }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = (String, Entry)> {
        let look =
            (any::<[u64; 3]>(), any::<[i64; 4]>(), any::<bool>()).prop_map(|(numbers, times, executable)| {
                let [size, inode, device] = numbers;
                Look {
                    size,
                    mtime: (times[0], times[1]),
                    ctime: (times[2], times[3]),
                    inode,
                    device,
                    executable,
                }
            });
        let object = (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(hash, size)| ObjectRef { hash: Hash::from_bytes(hash), size });
        (".{0,20}", look, object, any::<bool>())
            .prop_map(|(path, look, object, racy)| (path, Entry { look, object, racy }))
    }

    fn refs(entries: &[(String, Entry)]) -> impl Iterator<Item = (&String, &Entry)> {
        entries.iter().map(|(path, entry)| (path, entry))
    }

    fn read_all(bytes: &[u8]) -> (Vec<(String, Entry)>, bool) {
        let mut all = Vec::new();
        let whole = read_bytes(bytes, |path, entry| all.push((path.to_owned(), entry)));
        (all, whole.is_some())
    }

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written_up_to_where_the_file_was_cut(
            batches in prop::collection::vec(prop::collection::vec(entry(), 0..4), 0..4),
            cut: prop::sample::Index,
            flipped: prop::sample::Index,
        ) {
            let mut file = MAGIC.to_vec();
            let mut ends = vec![file.len()];
            for entries in &batches {
                file.extend(batch(refs(entries)));
                ends.push(file.len());
            }
            let all = batches.concat();
            prop_assert_eq!(read_all(&file), (all.clone(), true));
            let cut = cut.index(file.len() + 1);
            let (read, whole) = read_all(&file[..cut]);
            prop_assert_eq!(whole, ends.contains(&cut));
            prop_assert_eq!(&read[..], &all[..read.len()]);
            // One bit of what was written is another one.
            let at = flipped.index(file.len());
            file[at] ^= 1;
            let (read, whole) = read_all(&file);
            prop_assert!(!whole);
            prop_assert_eq!(&read[..], &all[..read.len()]);
        }

        #[test]
        fn what_is_written_and_added_is_read(
            written in prop::collection::vec(entry(), 0..6),
            added in prop::collection::vec(entry(), 0..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cache");
            write(&path, refs(&written)).unwrap();
            add(&path, refs(&added)).unwrap();
            let bytes = fs::read(&path).unwrap();
            prop_assert_eq!(read_all(&bytes), ([&written[..], &added].concat(), true));
            let of = |entries: &[(String, Entry)]| -> Vec<u8> { entries.chunks(BATCH).flat_map(|some| batch(refs(some))).collect() };
            prop_assert!(bytes == [MAGIC, &of(&written), &of(&added)].concat());
        }

        #[test]
        fn nothing_that_is_read_makes_it_panic(bytes: Vec<u8>) {
            let _whatever = read_all(&[MAGIC, &bytes].concat());
            let check = Hash::of(&bytes);
            let batch = [&(bytes.len() as u64).to_le_bytes()[..], &check.as_bytes()[..CHECK], &bytes].concat();
            let _whatever = read_all(&[MAGIC, &batch].concat());
        }
    }
}
