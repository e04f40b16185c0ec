//! The pure data of e3: what is named, stored and reported. No I/O, no async, no clock.
//!
//! Everything that is hashed has exactly one encoding here, and decoding refuses every other one: an object that
//! can be written in two ways would have two identities, and a cache keyed by content would be wrong.

mod canonical;
mod event;
mod hash;
mod id;
mod json;
mod name;
mod object;
mod path;
mod status;
mod template;
mod time;

pub use canonical::to_canonical;
pub use event::{Event, EventKind, RunReason, RunSummary, SkipReason};
pub use hash::{Hash, HashParseError, Hasher};
pub use id::{ExecutionId, IdParseError, OwnerId, RunId};
pub use json::{Json, JsonError};
pub use name::{Name, NameError, PackageName, PackageVersion, WorkspaceName};
pub use object::{
    CommandLine, Dir, DirEntry, DirError, FileEntry, ItemError, Kind, ObjectFormatError, ObjectRef, Package,
    PackageTask, Retry, RetryClass, RetryClassError, Sandbox, Slot, SymlinkTargetError, TaskInput,
    TaskLimits, TaskObject, TaskPolicy, check_entry_name, check_symlink_target,
};
pub use path::{DatasetPath, DatasetPathError};
pub use status::{ErrorClass, ExecutionState, Failure, RunState};
pub use template::Template;
pub use time::Timestamp;
