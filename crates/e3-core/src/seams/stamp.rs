//! `ObjectStamp`: what tells whether objects have been removed from a store since it was taken.

use e3_types::Hash;
use serde::{Deserialize, Serialize};

/// A mark for each equal share of all hashes, in their order. While a mark is the same, no object of its share has been
/// removed. It may become another one for any other reason, too: an object that is added, for example.
///
/// So the more marks there are, the fewer objects have to be looked for after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStamp(Vec<u64>);

impl ObjectStamp {
    /// The stamp of these marks: at least 1 and at most 256, a power of two.
    pub fn new(marks: Vec<u64>) -> Self {
        debug_assert!(
            marks.len().is_power_of_two() && marks.len() <= 256,
            "a share is some of 256 equal ones"
        );
        Self(marks)
    }

    /// Whether an object of that hash which was there at `earlier` may be gone.
    pub fn may_lack(&self, earlier: &Self, hash: &Hash) -> bool {
        let mark = |stamp: &Self| stamp.0.get(usize::from(hash.as_bytes()[0]) * stamp.0.len() / 256).copied();
        self.0.len() != earlier.0.len() || mark(self) != mark(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_for_its_share_of_the_hashes() {
        let hash =
            |first: u8| Hash::from_bytes(std::array::from_fn(|place| if place == 0 { first } else { 7 }));
        let stamp = |marks: &[u64]| ObjectStamp::new(marks.to_vec());
        let lacking = |now: &ObjectStamp, before: &ObjectStamp| -> Vec<u8> {
            (0..=255).filter(|first| now.may_lack(before, &hash(*first))).collect()
        };
        let before = stamp(&[1, 2, 3, 4]);
        assert!(lacking(&before, &before).is_empty());
        assert_eq!(lacking(&stamp(&[1, 9, 3, 4]), &before), (64..128).collect::<Vec<_>>());
        assert_eq!(lacking(&stamp(&[1, 2, 3, 9]), &before), (192..=255).collect::<Vec<_>>());
        // What was divided otherwise says nothing.
        assert_eq!(lacking(&stamp(&[1]), &before).len(), 256);
        let each: Vec<u64> = (0..256).collect();
        let other: Vec<u64> = each.iter().map(|mark| if *mark == 255 { 999 } else { *mark }).collect();
        assert_eq!(lacking(&stamp(&other), &stamp(&each)), [255]);
    }
}
