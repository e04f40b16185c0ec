//! `Dir`: one folder, encoded as the message `Directory` of the Remote Execution API v2.
//!
//! Source: `build/bazel/remote/execution/v2/remote_execution.proto` of bazelbuild/remote-apis. Canonical means, as
//! its comments ask: children sorted by name, each name once, no field that has its default value, no unknown field.
//! Such an object is a valid blob of a REAPI content-addressable storage as it is.

use std::collections::BTreeMap;

use prost::Message;

use super::ObjectRef;
use crate::Hash;

/// A folder: its entries by name. Subfolders are objects of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dir {
    /// The entries. Names are UTF-8 without `/` or NUL, neither empty nor `.` nor `..`.
    pub entries: BTreeMap<String, DirEntry>,
}

/// What a folder holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirEntry {
    /// A file.
    File(FileEntry),
    /// A subfolder: its `Dir` object.
    Dir(ObjectRef),
    /// A symbolic link with its target, relative to the folder that holds the link.
    Symlink(String),
}

/// A file in a folder. Of its mode only the executable bit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    /// Its bytes.
    pub object: ObjectRef,
    /// Whether it may be executed.
    pub executable: bool,
}

/// The bytes are not a canonical `Directory`, or hold what e3 does not keep.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Not a `Directory` message at all.
    #[error("not a dir object: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Another encoding of the same folder.
    #[error("a dir object that is not in canonical form: its hash would not identify it")]
    NotCanonical,
    /// A child without a digest, or with one that is not an object reference.
    #[error("the entry `{0}` of a dir object has no valid digest")]
    Digest(String),
    /// A name that cannot be an entry of a folder.
    #[error("`{0}` cannot be the name of an entry in a folder")]
    Name(String),
    /// A symbolic link that does not stay inside.
    #[error("the entry `{name}` of a dir object: {source}")]
    Symlink {
        /// The link.
        name: String,
        /// What is wrong with its target.
        source: SymlinkTargetError,
    },
}

/// The target of a symbolic link leaves the folder that is stored, or may do so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymlinkTargetError {
    /// It starts with `/`, or is empty.
    #[error("the symbolic link points to `{0}`: only relative targets inside the folder are kept")]
    NotRelative(String),
    /// It climbs above the root of the folder.
    #[error("the symbolic link points to `{0}`, which is outside the folder")]
    Outside(String),
    /// It has `..` after a name: where that leads depends on what the name is.
    #[error("the symbolic link points to `{0}`: `..` is kept only at the start of a target")]
    Winding(String),
}

/// Refuses names that cannot be an entry of a folder.
pub fn check_entry_name(name: &str) -> Result<(), DirError> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(DirError::Name(name.to_owned()));
    }
    Ok(())
}

/// Refuses targets of symbolic links that leave the stored folder. `depth` is the number of folders between the root
/// of what is stored and the link: 0 for a link in the root itself.
///
/// `..` is accepted only in front: there it steps through real folders, so that the result can be told from the text.
pub fn check_symlink_target(target: &str, depth: usize) -> Result<(), SymlinkTargetError> {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return Err(SymlinkTargetError::NotRelative(target.to_owned()));
    }
    let mut climbed = 0;
    let mut named = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if named => return Err(SymlinkTargetError::Winding(target.to_owned())),
            ".." => climbed += 1,
            _ => named = true,
        }
    }
    if climbed > depth { Err(SymlinkTargetError::Outside(target.to_owned())) } else { Ok(()) }
}

impl Dir {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = wire::Directory::default();
        for (name, entry) in &self.entries {
            let name = name.clone();
            match entry {
                DirEntry::File(file) => message.files.push(wire::FileNode {
                    name,
                    digest: Some(wire::Digest::from(file.object)),
                    is_executable: file.executable,
                }),
                DirEntry::Dir(object) => {
                    message
                        .directories
                        .push(wire::DirectoryNode { name, digest: Some(wire::Digest::from(*object)) });
                }
                DirEntry::Symlink(target) => {
                    message.symlinks.push(wire::SymlinkNode { name, target: target.clone() });
                }
            }
        }
        message.encode_to_vec()
    }

    /// Reads canonical bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DirError> {
        let message = wire::Directory::decode(bytes)?;
        let mut dir = Self::default();
        for file in message.files {
            let object = wire::Digest::object(file.digest, &file.name)?;
            dir.insert(file.name, DirEntry::File(FileEntry { object, executable: file.is_executable }))?;
        }
        for child in message.directories {
            let object = wire::Digest::object(child.digest, &child.name)?;
            dir.insert(child.name, DirEntry::Dir(object))?;
        }
        for link in message.symlinks {
            check_symlink_target(&link.target, usize::MAX)
                .map_err(|source| DirError::Symlink { name: link.name.clone(), source })?;
            dir.insert(link.name, DirEntry::Symlink(link.target))?;
        }
        if dir.encode() == bytes { Ok(dir) } else { Err(DirError::NotCanonical) }
    }

    fn insert(&mut self, name: String, entry: DirEntry) -> Result<(), DirError> {
        check_entry_name(&name)?;
        match self.entries.insert(name, entry) {
            None => Ok(()),
            Some(_) => Err(DirError::NotCanonical),
        }
    }
}

/// The messages as the protocol defines them; fields that e3 does not keep are left out, so that re-encoding differs.
mod wire {
    use super::{DirError, Hash, ObjectRef};

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Directory {
        #[prost(message, repeated, tag = "1")]
        pub(super) files: Vec<FileNode>,
        #[prost(message, repeated, tag = "2")]
        pub(super) directories: Vec<DirectoryNode>,
        #[prost(message, repeated, tag = "3")]
        pub(super) symlinks: Vec<SymlinkNode>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FileNode {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, optional, tag = "2")]
        pub(super) digest: Option<Digest>,
        #[prost(bool, tag = "4")]
        pub(super) is_executable: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DirectoryNode {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, optional, tag = "2")]
        pub(super) digest: Option<Digest>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SymlinkNode {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) target: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Digest {
        #[prost(string, tag = "1")]
        pub(super) hash: String,
        #[prost(int64, tag = "2")]
        pub(super) size_bytes: i64,
    }

    impl From<ObjectRef> for Digest {
        fn from(object: ObjectRef) -> Self {
            Self {
                hash: object.hash.to_string(),
                size_bytes: i64::try_from(object.size).expect("no object has 2^63 bytes"),
            }
        }
    }

    impl Digest {
        pub(super) fn object(digest: Option<Self>, name: &str) -> Result<ObjectRef, DirError> {
            let parts = digest.and_then(|digest| {
                Some((digest.hash.parse::<Hash>().ok()?, u64::try_from(digest.size_bytes).ok()?))
            });
            let (hash, size) = parts.ok_or_else(|| DirError::Digest(name.to_owned()))?;
            Ok(ObjectRef { hash, size })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Dir {
        let entries = [
            ("run.sh", DirEntry::File(FileEntry { object: ObjectRef::of(b"#!/bin/sh\n"), executable: true })),
            ("empty", DirEntry::File(FileEntry { object: ObjectRef::of(b""), executable: false })),
            ("lib", DirEntry::Dir(ObjectRef::of(b""))),
            ("latest", DirEntry::Symlink("lib/v2".into())),
        ];
        Dir { entries: entries.map(|(name, entry)| (name.to_owned(), entry)).into() }
    }

    /// Bytes and hash as the Python protobuf runtime makes them of the published message definition.
    #[test]
    fn golden_bytes() {
        let empty = ObjectRef::of(b"").hash.to_string();
        let script = ObjectRef::of(b"#!/bin/sh\n").hash.to_string();
        let mut expected: Vec<u8> = Vec::new();
        expected.extend(b"\x0a\x4b\x0a\x05empty\x12\x42\x0a\x40");
        expected.extend(empty.as_bytes());
        expected.extend(b"\x0a\x50\x0a\x06run.sh\x12\x44\x0a\x40");
        expected.extend(script.as_bytes());
        expected.extend(b"\x10\x0a\x20\x01");
        expected.extend(b"\x12\x49\x0a\x03lib\x12\x42\x0a\x40");
        expected.extend(empty.as_bytes());
        expected.extend(b"\x1a\x10\x0a\x06latest\x12\x06lib/v2");
        assert_eq!(example().encode(), expected);
        assert_eq!(
            Hash::of(&expected).to_string(),
            "867fbefa78e08ab7c99c1714e92404401637b70139024f7939851f76de8fc175"
        );
        assert_eq!(Dir::default().encode(), b"", "the empty folder is the empty object");
    }

    #[test]
    fn other_encodings_are_refused() {
        let file = |name: &str| wire::FileNode {
            name: name.into(),
            digest: Some(ObjectRef::of(b"x").into()),
            is_executable: false,
        };
        let unsorted = wire::Directory { files: vec![file("b"), file("a")], ..Default::default() };
        assert!(matches!(Dir::decode(&unsorted.encode_to_vec()), Err(DirError::NotCanonical)));
        let twice = wire::Directory { files: vec![file("a"), file("a")], ..Default::default() };
        assert!(matches!(Dir::decode(&twice.encode_to_vec()), Err(DirError::NotCanonical)));
        let mut unknown_field = example().encode();
        unknown_field.extend(b"\x2a\x00");
        assert!(
            matches!(Dir::decode(&unknown_field), Err(DirError::NotCanonical)),
            "node_properties are not kept"
        );
        for name in ["", ".", "..", "a/b", "a\0"] {
            let bad = wire::Directory { files: vec![file(name)], ..Default::default() };
            assert!(matches!(Dir::decode(&bad.encode_to_vec()), Err(DirError::Name(_))), "{name}");
        }
        let mut no_digest = file("a");
        no_digest.digest = None;
        let no_digest = wire::Directory { files: vec![no_digest], ..Default::default() };
        assert!(matches!(Dir::decode(&no_digest.encode_to_vec()), Err(DirError::Digest(_))));
    }

    #[test]
    fn links_must_stay_inside() {
        for (target, depth) in [("a", 0), ("a/b", 0), ("./a", 0), ("../a", 1), ("../../a/b", 2), ("..", 1)] {
            assert_eq!(check_symlink_target(target, depth), Ok(()), "{target}");
        }
        for (target, depth) in
            [("", 0), ("/etc", 0), ("..", 0), ("../../a", 1), ("a/../..", 5), ("a/../b", 5)]
        {
            assert!(check_symlink_target(target, depth).is_err(), "{target}");
        }
    }

    fn any_dir() -> impl Strategy<Value = Dir> {
        let object = (any::<[u8; 32]>(), 0..=i64::MAX)
            .prop_map(|(hash, size)| ObjectRef { hash: Hash::from_bytes(hash), size: size.cast_unsigned() });
        let entry = prop_oneof![
            (object.clone(), any::<bool>())
                .prop_map(|(object, executable)| DirEntry::File(FileEntry { object, executable })),
            object.prop_map(DirEntry::Dir),
            "[a-z]{1,5}(/[a-z]{1,5}){0,2}".prop_map(DirEntry::Symlink),
        ];
        let name = any::<String>().prop_filter("names of entries", |name| check_entry_name(name).is_ok());
        prop::collection::btree_map(name, entry, 0..8).prop_map(|entries| Dir { entries })
    }

    proptest! {
        #[test]
        fn decode_is_the_inverse_of_encode(dir in any_dir()) {
            prop_assert_eq!(Dir::decode(&dir.encode()).unwrap(), dir);
        }

        #[test]
        fn what_decodes_is_canonical(bytes: Vec<u8>) {
            if let Ok(dir) = Dir::decode(&bytes) {
                prop_assert_eq!(dir.encode(), bytes);
            }
        }

        #[test]
        fn changed_bytes_are_refused_or_another_dir(dir in any_dir(), at: usize, bit in 0..8_u8) {
            let mut bytes = dir.encode();
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
                if let Ok(other) = Dir::decode(&bytes) {
                    prop_assert_ne!(other, dir);
                }
            }
        }
    }
}
