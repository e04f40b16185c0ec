//! Executing one task on the machine at hand: stage, spawn, capture, store.
//!
//! `task_execute` is the only implementation of that. `LocalTaskRunner` wraps it as a `TaskRunner`; a worker on
//! another machine wraps the same function over another storage.

mod command;
mod environment;
mod execute;
mod guard;
mod output;
mod prepare;
mod runner;
mod scratch;
mod stage;

pub use environment::inherited;
pub use execute::{Workshop, task_execute};
pub use runner::LocalTaskRunner;
pub use scratch::Scratches;
pub use stage::{StageError, StagedFile, materialise};
