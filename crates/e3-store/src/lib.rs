//! `LocalStorage`: one repository in one folder, for any number of processes at once.
//!
//! ```text
//! .e3/
//!   db.sqlite            refs (packages, workspaces, executions, results, runs, events), and small objects that came together
//!   objects/ab/cdef...   object bodies, read-only; `cdef....x` is the same object with the executable bit
//!   logs/ab/ID.stdout    what executions print
//!   owners/ID.lock       one for each process that is at work here, locked as long as it lives; ID.json says who it is
//!   leases.lock          who is at work on what, as locks on ranges of it
//!   scratch/ID/          where the tasks of that process run
//!   staged/TASK/         one of these, of a task with very many inputs, with these left in it; can be removed at any time
//!   tmp/ID/              objects on their way in
//!   quarantine/          files that were objects until somebody wrote to them: named by what they were and are
//!   kept/                scratch folders that somebody asked to keep; nothing here is removed by e3
//! ```
//!
//! Bodies are files because tasks read and write files: outputs come in by rename, inputs go out by hard link. The
//! rest is `SQLite`, because many small records that change together are what a database is for.

mod database;
mod files;
mod integrity;
mod leases;
mod logs;
mod objects;
mod owner;
mod refs;
mod stamp;
mod storage;
mod writer;

pub use storage::{LocalStorage, OpenError};
