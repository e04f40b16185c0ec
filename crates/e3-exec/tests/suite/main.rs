//! Tests of `task_execute` and `LocalTaskRunner`, with real processes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ahead;
mod bench;
mod conformance;
mod execution;
mod many_inputs;
