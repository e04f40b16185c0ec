//! `RefStore`: the only mutable names.

use std::{cell::RefCell, fmt};

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::{ErrorClass, WorkspaceName};

use super::Unavailable;

/// Names with small values that can be compared and swapped.
///
/// * Atomicity: the changes of one `write` happen together or not at all.
/// * Ordering: what a `write` acknowledged is seen by every `read` and `scan` that begins afterwards, in any process.
/// * Durability: an acknowledged write survives the death of every process; see `StorageBackend::sync` for power cuts.
/// * A dropped `write` has happened or not; the other calls change nothing.
#[async_trait]
pub trait RefStore: Send + Sync {
    /// The values of `names`, in their order; `None` where there is none. All are of one moment.
    async fn read(&self, names: &[RefName]) -> Result<Vec<Option<Bytes>>, RefError>;

    /// Makes all changes, if every precondition holds before the first of them.
    async fn write(&self, changes: Vec<RefChange>) -> Result<(), RefError>;

    /// Names with their values, sorted by name, all of one moment.
    async fn scan(&self, scan: Scan) -> Result<Vec<(RefName, Bytes)>, RefError>;

    /// A number that grows with every write of a name of this workspace (`RefName::workspace`), and only then.
    async fn change_counter(&self, workspace: &WorkspaceName) -> Result<u64, RefError>;

    /// Returns the change counter as soon as it is not `seen`, whichever process wrote: within a tenth of a second, or
    /// the store says how long it takes. Waiting costs the same however much there is in the workspace.
    async fn changed(&self, workspace: &WorkspaceName, seen: u64) -> Result<u64, RefError>;
}

/// The name of a mutable value: segments joined by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(Box<str>);

impl RefName {
    /// The name made of `segments`. They must not contain `/`: all are names, hashes or ids, whose grammar forbids it.
    pub fn new(segments: &[&(dyn fmt::Display + Sync)]) -> Self {
        use fmt::Write;
        thread_local! {
            // A name is made of many pieces and has no room for more, as a write may have very many.
            static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
        }
        TEXT.with_borrow_mut(|name| {
            name.clear();
            for segment in segments {
                if !name.is_empty() {
                    name.push('/');
                }
                let start = name.len();
                write!(name, "{segment}").expect("writing to a string does not fail");
                debug_assert!(name.len() > start && !name[start..].contains('/'), "{name}");
            }
            Self(name.as_str().into())
        })
    }

    /// The name that a store has kept as text.
    pub fn from_stored(text: String) -> Self {
        Self(text.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The workspace to whose state the name belongs: the second segment of `workspaces/NAME/...`.
    pub fn workspace(&self) -> Option<&str> {
        self.0.strip_prefix("workspaces/")?.split_once('/').map(|(workspace, _)| workspace)
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One change of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefChange {
    /// The name.
    pub name: RefName,
    /// Its new value; `None` removes it.
    pub value: Option<Bytes>,
    /// What must hold before.
    pub precondition: Precondition,
}

impl RefChange {
    /// Sets a value, whatever was there.
    pub fn set(name: RefName, value: impl Into<Bytes>) -> Self {
        Self { name, value: Some(value.into()), precondition: Precondition::None }
    }

    /// Removes a value, if there is one.
    pub fn remove(name: RefName) -> Self {
        Self { name, value: None, precondition: Precondition::None }
    }

    /// The same change, made only if `precondition` holds.
    #[must_use]
    pub fn when(mut self, precondition: Precondition) -> Self {
        self.precondition = precondition;
        self
    }
}

/// What must hold for a change to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The name has no value.
    Absent,
    /// The name has this value.
    Value(Bytes),
}

impl Precondition {
    /// Whether it holds for a name that has the value `current`.
    pub fn holds(&self, current: Option<&[u8]>) -> bool {
        match self {
            Self::None => true,
            Self::Absent => current.is_none(),
            Self::Value(expected) => current == Some(expected),
        }
    }
}

/// Which names to list.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Only names that start with this text.
    pub prefix: String,
    /// Only names beyond this one, in the direction of the scan.
    pub after: Option<RefName>,
    /// From the last name to the first.
    pub reverse: bool,
    /// At most so many.
    pub limit: usize,
}

impl Scan {
    /// All names that start with `segments` and a `/`.
    pub fn under(segments: &[&(dyn fmt::Display + Sync)]) -> Self {
        let prefix = format!("{}/", RefName::new(segments));
        Self { prefix, after: None, reverse: false, limit: usize::MAX }
    }

    /// The last `limit` names, last first.
    #[must_use]
    pub fn last_first(mut self, limit: usize) -> Self {
        (self.reverse, self.limit) = (true, limit);
        self
    }
}

/// What goes wrong with refs.
#[derive(Debug, thiserror::Error)]
pub enum RefError {
    /// A precondition did not hold: somebody else was faster.
    #[error("`{0}` was changed by somebody else meanwhile: read it again and decide anew")]
    Conflict(RefName),
    /// A value is not what its name promises.
    #[error("the record `{name}` is corrupt: {message}")]
    Corrupt {
        /// The name.
        name: RefName,
        /// What was found.
        message: String,
    },
    /// The store cannot answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl RefError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Corrupt { .. } => ErrorClass::Corrupt,
            Self::Conflict(_) | Self::Unavailable(_) => ErrorClass::Environment,
        }
    }
}
