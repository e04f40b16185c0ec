//! Small objects that this process has put and nobody has read yet.
//!
//! What describes the tasks of a pipeline is put before they run, and read by each as it starts, once. To have it at hand costs a
//! little memory, and spares each of them a look at the file system and one at the database.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use e3_types::Hash;

/// How much is kept, in bytes; what comes when there is so much is not.
const MOST: usize = 4 << 20;
/// What an object takes up beside its bytes.
const BESIDE: usize = size_of::<(Hash, Bytes)>();

#[derive(Debug, Default)]
pub(super) struct Fresh(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<Hash, Bytes>,
    size: usize,
}

impl Fresh {
    /// Keeps objects that are in the store.
    pub(super) fn keep(&self, objects: impl IntoIterator<Item = (Hash, Bytes)>) {
        let mut kept = self.lock();
        for (hash, bytes) in objects {
            let size = kept.size + bytes.len() + BESIDE;
            if size > MOST {
                return;
            }
            if kept.objects.insert(hash, bytes).is_none() {
                kept.size = size;
            }
        }
    }

    /// Hands one out.
    pub(super) fn take(&self, hash: &Hash) -> Option<Bytes> {
        let mut kept = self.lock();
        let bytes = kept.objects.remove(hash)?;
        kept.size -= bytes.len() + BESIDE;
        Some(bytes)
    }

    /// Keeps objects no longer about which the store has to be asked: what becomes a file can be altered, and what is deleted is gone.
    pub(super) fn forget<'a>(&self, hashes: impl IntoIterator<Item = &'a Hash>) {
        for hash in hashes {
            self.take(hash);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_handed_out_once() {
        let (fresh, hash) = (Fresh::default(), Hash::of(b"x"));
        fresh.keep([(hash, Bytes::from_static(b"x")), (hash, Bytes::from_static(b"x"))]);
        assert_eq!(fresh.take(&hash).as_deref(), Some(&b"x"[..]));
        assert_eq!((fresh.take(&hash), fresh.lock().size), (None, 0));
        fresh.keep([(hash, Bytes::from_static(b"x"))]);
        fresh.forget([&hash]);
        assert_eq!((fresh.take(&hash), fresh.lock().size), (None, 0));
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let fresh = Fresh::default();
        let object = |number: usize| (Hash::of(&number.to_le_bytes()), Bytes::from(vec![0; 1 << 20]));
        fresh.keep((0..10).map(object));
        assert_eq!((0..10).filter(|number| fresh.take(&object(*number).0).is_some()).count(), 3);
        assert_eq!(fresh.lock().size, 0);
    }
}
