//! The object model: what the store holds beside plain files, each with one canonical encoding.
//!
//! Task and package objects are RFC 8785 JSON, `dir` objects are the canonical protobuf of the Remote Execution
//! API's `Directory`. Decoding encodes again and compares, so bytes that are not canonical never become a value.

mod dir;
mod package;
mod retry;
mod task;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    dir::{Dir, DirEntry, DirError, FileEntry, SymlinkTargetError, check_entry_name, check_symlink_target},
    package::{Package, PackageTask, Sandbox, Slot, TaskLimits, TaskPolicy},
    retry::{Retry, RetryClass, RetryClassError},
    task::{CommandLine, ItemError, TaskInput, TaskObject},
};
use crate::{Hash, to_canonical};

/// An object's name and its size: enough to find it and to know that it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// SHA-256 of the bytes.
    pub hash: Hash,
    /// How many bytes.
    pub size: u64,
}

impl ObjectRef {
    /// The reference of the object whose bytes are `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: Hash::of(bytes), size: bytes.len() as u64 }
    }
}

/// What a dataset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The bytes of one file.
    File,
    /// A folder: the `Directory` of its root, which refers to the rest.
    Dir,
    /// One JSON value in canonical form.
    Json,
}

impl Kind {
    /// The word for it in `e3.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::File, Self::Dir, Self::Json].into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// The bytes are not the canonical encoding of what they should be.
#[derive(Debug, thiserror::Error)]
pub enum ObjectFormatError {
    /// Not the right structure.
    #[error("not a {what} object: {source}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// The right structure in another spelling.
    #[error("a {what} object that is not in canonical form (RFC 8785): its hash would not identify it")]
    NotCanonical {
        /// What was expected.
        what: &'static str,
    },
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    to_canonical(value).expect("objects are made of strings, lists and integers below 2^53")
}

fn decode_known<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ObjectFormatError> {
    serde_json::from_slice(bytes).map_err(|source| ObjectFormatError::Malformed { what, source })
}

fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ObjectFormatError> {
    let value = decode_known(bytes, what)?;
    match to_canonical(&value) {
        Ok(canonical) if canonical == bytes => Ok(value),
        _ => Err(ObjectFormatError::NotCanonical { what }),
    }
}
