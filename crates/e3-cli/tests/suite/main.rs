//! The command as its users have it: the real binary in a folder of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod everyday;
mod examples;
mod explain;
mod failures;
mod history;
mod hostile;
mod packages;
mod project;
mod reactive;
mod reference;
mod together;
mod verify;
