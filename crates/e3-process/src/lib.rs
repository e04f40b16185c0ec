//! Running a process to its end: in a group of its own, with its output drained while it runs, stopped with grace,
//! leaving nothing behind. Knows nothing of e3.
//!
//! The rules that everything here serves:
//!
//! * The process never waits for us to read, and we never hold more of its output than one buffer.
//! * When `run` returns, the process has been waited for and its group is gone.
//! * A process that has left its group is found and ended where the system can tell, and never waited for.
//! * Nothing is copied to start a process, so the cost does not grow with our own memory.

mod child;
mod confine;
mod drain;
mod files;
#[cfg(target_os = "linux")]
mod found;
#[cfg(not(target_os = "linux"))]
#[path = "found_nowhere.rs"]
mod found;
#[cfg(target_os = "linux")]
mod hide;
mod launch;
mod memory;
mod outlet;
#[cfg(target_os = "linux")]
mod processors;
#[cfg(not(target_os = "linux"))]
#[path = "processors_nowhere.rs"]
mod processors;
mod run;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(not(target_os = "linux"))]
#[path = "sandbox_nowhere.rs"]
mod sandbox;
#[cfg(target_os = "linux")]
mod scheduling;
#[cfg(target_os = "linux")]
mod spawn;
#[cfg(not(target_os = "linux"))]
#[path = "spawn_by_std.rs"]
mod spawn;
mod supervisor;
mod wait;

pub use confine::{Confinement, LAUNCH, Sandbox};
pub use files::keep_files;
pub use found::end_processes_in;
pub use launch::launch;
pub use memory::{give_memory_back, keep_large_memory_apart};
pub use processors::{keep_threads_apart, use_all_processors};
pub use run::{Command, Ended, Exit, Output, RunError, Stop, run};
pub use supervisor::{Supervisor, WATCHDOG, watch};
pub use wait::Usage;
