//! Tests of `task_execute` and `LocalTaskRunner`, with real processes.

mod bench;
mod conformance;
mod execution;
