//! How things stand and how they end: executions, runs, and why an attempt did not succeed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Hash;

/// Who has to act on an error. Every error of e3 belongs to one class; each class has a stable exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The author of the pipeline or of the task.
    User,
    /// Whoever looks after the machine: disk full, permission, unreachable.
    Environment,
    /// The storage does not hold what it promised.
    Corrupt,
    /// Us: a defect of e3.
    Internal,
}

/// Why an attempt did not end in success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Failure {
    /// The process ended with a code other than 0.
    Exit {
        /// The exit code.
        code: i32,
    },
    /// The process was killed by a signal that e3 did not send.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// The process was stopped because it took too long.
    Timeout {
        /// The limit, in milliseconds.
        after_ms: u64,
    },
    /// There is no verdict of the task itself: it could not be started, or what it left cannot be used.
    Error {
        /// Who has to act.
        class: ErrorClass,
        /// What is wrong, what was expected.
        message: String,
    },
    /// One of its inputs is not in the store, or not whole.
    InputMissing {
        /// The input, by its number among the task's, from 0.
        input: u32,
        /// What is missing: the input itself, or something in it.
        object: Hash,
        /// What is wrong, what was expected.
        message: String,
    },
    /// It needed more memory than it was given.
    OutOfMemory,
    /// Whoever executed it is gone: nobody knows how it ended.
    WorkerLost {
        /// What is known.
        message: String,
    },
    /// Somebody asked for it to stop.
    Cancelled,
}

impl Failure {
    /// The state of an execution that ended so.
    pub fn state(&self) -> ExecutionState {
        match self {
            Self::Exit { .. } | Self::Signal { .. } | Self::Timeout { .. } | Self::OutOfMemory => {
                ExecutionState::Failed
            }
            Self::Error { .. } | Self::InputMissing { .. } | Self::WorkerLost { .. } => ExecutionState::Error,
            Self::Cancelled => ExecutionState::Cancelled,
        }
    }

    /// The exit code of the process, if it had one.
    pub fn exit_code(&self) -> Option<i32> {
        if let Self::Exit { code } = self { Some(*code) } else { None }
    }

    /// The signal that killed the process, if one did.
    pub fn signal(&self) -> Option<i32> {
        if let Self::Signal { signal } = self { Some(*signal) } else { None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { code } => write!(f, "exited with code {code}"),
            Self::Signal { signal } => match signal_name(*signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
            Self::Timeout { after_ms } => write!(f, "stopped after its timeout of {} s", Seconds(*after_ms)),
            Self::Error { message, .. } | Self::InputMissing { message, .. } => f.write_str(message),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::WorkerLost { message } => write!(f, "its worker was lost: {message}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            ms => write!(f, "{}.{ms:03}", self.0 / 1000),
        }
    }
}

/// The signals of POSIX.1-2017 whose numbers are the same on Linux and macOS.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => return None,
    })
}

/// How an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionState {
    /// Started, not known to have ended.
    Running,
    /// Ended with an output.
    Success,
    /// The process said no: exit code, signal or timeout.
    Failed,
    /// There is no verdict of the task itself.
    Error,
    /// Stopped on request.
    Cancelled,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Started, not known to have ended.
    Running,
    /// Every selected task has its output.
    Completed,
    /// Some selected task has not.
    Failed,
    /// Stopped on request.
    Cancelled,
    /// Its process is gone without having ended it.
    Lost,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_well() {
        assert_eq!(Failure::Exit { code: 3 }.to_string(), "exited with code 3");
        assert_eq!(Failure::Signal { signal: 11 }.to_string(), "killed by signal 11 (SIGSEGV)");
        assert_eq!(Failure::Signal { signal: 34 }.to_string(), "killed by signal 34");
        assert_eq!(Failure::Timeout { after_ms: 1500 }.to_string(), "stopped after its timeout of 1.500 s");
    }
}
