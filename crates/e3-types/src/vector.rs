//! `VersionVector`: which version of every root input a dataset was derived from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DatasetPath, Hash};

/// Root input path -> hash of the object that it held.
///
/// The vector of a root input is `{itself: its hash}`; the vector of an output is the union of its inputs' vectors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionVector(BTreeMap<DatasetPath, Hash>);

/// Two vectors disagree on a root input: what they describe must not be combined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("inputs were derived from two versions of `{root}`: {one} and {other}")]
pub struct VectorConflict {
    /// The root input in question.
    pub root: DatasetPath,
    /// The version in the one vector.
    pub one: Hash,
    /// The version in the other.
    pub other: Hash,
}

impl VersionVector {
    /// The vector of a root input that holds `hash`.
    pub fn root(path: DatasetPath, hash: Hash) -> Self {
        Self(BTreeMap::from([(path, hash)]))
    }

    /// Adds all that `other` says; on a conflict this vector is left as it was.
    pub fn merge(&mut self, other: &Self) -> Result<(), VectorConflict> {
        for (root, &theirs) in &other.0 {
            if let Some(&ours) = self.0.get(root)
                && ours != theirs
            {
                return Err(VectorConflict { root: root.clone(), one: ours, other: theirs });
            }
        }
        self.0.extend(other.0.iter().map(|(root, hash)| (root.clone(), *hash)));
        Ok(())
    }

    /// Whether this vector says all that `other` says.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(root, hash)| self.0.get(root) == Some(hash))
    }

    /// The version of `root`, if the dataset was derived from it.
    pub fn get(&self, root: &DatasetPath) -> Option<Hash> {
        self.0.get(root).copied()
    }

    /// All roots with their versions, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&DatasetPath, Hash)> {
        self.0.iter().map(|(root, hash)| (root, *hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> DatasetPath {
        text.parse().unwrap()
    }

    #[test]
    fn vectors_that_agree_unite() {
        let (x, y) = (Hash::of(b"x"), Hash::of(b"y"));
        let mut vector = VersionVector::root(path("a"), x);
        vector.merge(&VersionVector::root(path("b"), y)).unwrap();
        vector.merge(&VersionVector::root(path("a"), x)).unwrap();
        assert_eq!(vector.iter().collect::<Vec<_>>(), [(&path("a"), x), (&path("b"), y)]);
    }

    #[test]
    fn vectors_that_disagree_are_refused_and_nothing_is_added() {
        let mut vector = VersionVector::root(path("b"), Hash::of(b"old"));
        let mut other = VersionVector::root(path("a"), Hash::of(b"x"));
        other.merge(&VersionVector::root(path("b"), Hash::of(b"new"))).unwrap();
        let conflict = vector.merge(&other).unwrap_err();
        assert_eq!(conflict.root, path("b"));
        assert_eq!(vector, VersionVector::root(path("b"), Hash::of(b"old")));
    }
}
