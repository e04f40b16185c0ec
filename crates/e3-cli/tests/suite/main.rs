//! The command as its users have it: the real binary in a folder of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg_attr(
    target_os = "linux",
    expect(
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "the long ones say what they did and with which seed"
    )
)]

mod crash;
mod everyday;
mod examples;
mod explain;
mod failures;
mod following;
mod full;
mod hammer;
mod history;
mod hostile;
mod packages;
mod project;
mod reactive;
mod reference;
mod together;
mod verify;
