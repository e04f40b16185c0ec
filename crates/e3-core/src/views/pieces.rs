//! `Pieces`: what there is to say of each of many things, in their order, kept in pieces of which only those are written again that
//! have changed. Plain bytes of one width, because who has next to nothing to do reads all of them.

use std::ops::Range;

use bytes::Bytes;

use crate::{RefChange, RefError, RefName, RefStore};

/// How many make a piece.
const PIECE: usize = 1024;

/// Something that takes the same number of bytes whatever it is.
pub(crate) trait Fixed: Copy + PartialEq {
    /// How many.
    const WIDTH: usize;

    /// Adds the bytes.
    fn write(&self, to: &mut Vec<u8>);

    /// What these bytes are, of which there are so many.
    fn read(bytes: &[u8]) -> Self;
}

/// One after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pieces<T>(pub(crate) Vec<T>);

impl<T> FromIterator<T> for Pieces<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

/// The names of the pieces that so many are, by the names of the pieces by number.
pub(crate) fn names(count: usize, name: impl Fn(usize) -> RefName) -> Vec<RefName> {
    (0..count.div_ceil(PIECE)).map(name).collect()
}

impl<T: Fixed> Pieces<T> {
    /// Reads so many.
    pub(crate) async fn read(
        refs: &dyn RefStore,
        count: usize,
        name: impl Fn(usize) -> RefName,
    ) -> Result<Self, RefError> {
        let names = names(count, name);
        let mut all = Vec::with_capacity(count);
        for (name, piece) in names.iter().zip(refs.read(&names).await?) {
            let corrupt = |message: String| RefError::Corrupt { name: name.clone(), message };
            let piece = piece.ok_or_else(|| corrupt("it is not there".to_owned()))?;
            let expected = PIECE.min(count - all.len()) * T::WIDTH;
            if piece.len() != expected {
                return Err(corrupt(format!("expected {expected} bytes, but there are {}", piece.len())));
            }
            all.extend(piece.chunks_exact(T::WIDTH).map(T::read));
        }
        Ok(Self(all))
    }

    /// The changes that write those pieces that are others than before.
    pub(crate) fn changes(&self, before: Option<&Self>, name: impl Fn(usize) -> RefName) -> Vec<RefChange> {
        changes(self.0.len(), |at| self.0[at], before, name)
    }
}

/// The same for things that are not all in memory: `now` gives each of so many.
pub(crate) fn changes<T: Fixed>(
    count: usize,
    now: impl Fn(usize) -> T,
    before: Option<&Pieces<T>>,
    name: impl Fn(usize) -> RefName,
) -> Vec<RefChange> {
    let before = before.map_or(&[][..], |before| &before.0);
    let mut changes = Vec::new();
    let mut piece = Vec::with_capacity(PIECE.min(count));
    for number in 0..count.div_ceil(PIECE) {
        let range =
            |len: usize| -> Range<usize> { (number * PIECE).min(len)..((number + 1) * PIECE).min(len) };
        piece.clear();
        piece.extend(range(count).map(&now));
        if piece != before[range(before.len())] {
            changes.push(RefChange::set(name(number), encode(&piece)));
        }
    }
    changes
}

fn encode<T: Fixed>(piece: &[T]) -> Bytes {
    let mut bytes = Vec::with_capacity(piece.len() * T::WIDTH);
    for one in piece {
        one.write(&mut bytes);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStorage, StorageBackend};

    impl Fixed for u32 {
        const WIDTH: usize = 4;

        fn write(&self, to: &mut Vec<u8>) {
            to.extend_from_slice(&self.to_le_bytes());
        }

        fn read(bytes: &[u8]) -> Self {
            Self::from_le_bytes(bytes.try_into().unwrap())
        }
    }

    fn name(number: usize) -> RefName {
        RefName::new(&[&"pieces", &number])
    }

    #[tokio::test]
    async fn only_the_pieces_are_written_that_have_changed() {
        let storage = MemoryStorage::default();
        let refs = storage.refs();
        let mut before: Option<Pieces<u32>> = None;
        let count = 3 * PIECE + 5;
        for (changed, written) in [(vec![], 4), (vec![], 0), (vec![PIECE, 3 * PIECE + 4], 2), (vec![0], 1)] {
            let mut now = before.clone().unwrap_or_else(|| (0..).take(count).collect());
            for at in changed {
                now.0[at] += 1_000_000;
            }
            let changes = now.changes(before.as_ref(), name);
            assert_eq!(changes.len(), written);
            refs.write(changes).await.unwrap();
            assert_eq!(Pieces::read(refs, count, name).await.unwrap(), now);
            before = Some(now);
        }
        assert_eq!(names(count, name).len(), 4);
        assert_eq!(names(3 * PIECE, name).len(), 3);
        for other in [count - 1, count + 1, count + PIECE] {
            let error = Pieces::<u32>::read(refs, other, name).await.unwrap_err();
            assert!(matches!(error, RefError::Corrupt { .. }), "{error}");
        }
        assert!(Pieces::<u32>::read(refs, 0, name).await.unwrap().0.is_empty());
    }
}
