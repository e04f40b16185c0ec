//! The seams: what the engine needs from outside. One file each: the trait, its error, its contract.

mod backend;
mod gate;
mod lease;
mod log;
mod object;
mod refs;
mod runner;
mod sink;
mod stamp;

pub use self::{
    backend::{StorageBackend, StorageError, Unavailable},
    gate::Gate,
    lease::{Acquired, Holder, Lease, LeaseError, LeaseMode, LeaseStore, ProcessIdentity},
    log::{LogError, LogStore, LogStream},
    object::{Access, ByteStream, ObjectError, ObjectStore, ObjectStoreExt, Source, StageItem},
    refs::{Precondition, RefChange, RefError, RefName, RefStore, Scan},
    runner::{Cancellation, OutputSink, Released, TaskExecuteOptions, TaskResult, TaskRunner, Uncommitted},
    sink::{EventSink, NoEvents},
    stamp::ObjectStamp,
};
