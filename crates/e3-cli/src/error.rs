//! Errors as the command line tells them: a message and a stable exit code.

use std::fmt;

use e3_core::{
    DataflowError, DatasetError, ObjectError, PackageError, RefError, StorageError, WorkspaceError,
    archive::ArchiveError,
};
use e3_exec::StageError;
use e3_pipeline::PipelineError;
use e3_store::OpenError;
use e3_types::ErrorClass;
use serde::Serialize;

/// The exit codes. Stable: scripts depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    TaskFailed = 1,
    Usage = 2,
    NotFound = 3,
    NoMatch = 4,
    Blocked = 5,
    Conflict = 7,
    Environment = 8,
    Corrupt = 9,
    Internal = 70,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    /// The exit code of another process of this command.
    pub(crate) fn from_code(code: i32) -> Self {
        let all = [
            Self::Done,
            Self::TaskFailed,
            Self::Usage,
            Self::NotFound,
            Self::NoMatch,
            Self::Blocked,
            Self::Conflict,
            Self::Environment,
            Self::Corrupt,
            Self::Interrupted,
            Self::Terminated,
        ];
        all.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Self::Internal)
    }

    fn of(class: ErrorClass) -> Self {
        match class {
            ErrorClass::User => Self::Usage,
            ErrorClass::Environment => Self::Environment,
            ErrorClass::Corrupt => Self::Corrupt,
            ErrorClass::Internal => Self::Internal,
        }
    }
}

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

pub(crate) type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// The machine did not let us: what was being done, and what it said.
    pub(crate) fn environment(doing: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(Exit::Environment, format!("{doing}: {error}"))
    }

    /// The JSON document of this error.
    pub(crate) fn document(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Document {
            schema: &'static str,
            error: Details,
        }
        #[derive(Serialize)]
        struct Details {
            exit_code: u8,
            message: String,
        }
        let error = Details { exit_code: self.exit as u8, message: self.message.clone() };
        Document { schema: "e3.error/1", error }
    }
}

impl From<StorageError> for CliError {
    fn from(error: StorageError) -> Self {
        Self::new(Exit::of(error.class()), error.to_string())
    }
}

impl From<RefError> for CliError {
    fn from(error: RefError) -> Self {
        StorageError::from(error).into()
    }
}

impl From<ObjectError> for CliError {
    fn from(error: ObjectError) -> Self {
        StorageError::from(error).into()
    }
}

impl From<StageError> for CliError {
    fn from(error: StageError) -> Self {
        Self::new(Exit::of(error.class()), error.to_string())
    }
}

impl From<PipelineError> for CliError {
    fn from(error: PipelineError) -> Self {
        Self::new(Exit::of(error.class), error.to_string())
    }
}

impl From<WorkspaceError> for CliError {
    fn from(error: WorkspaceError) -> Self {
        let exit = match &error {
            WorkspaceError::NotFound(_) => Exit::NotFound,
            WorkspaceError::Held { .. } | WorkspaceError::Exists(_) => Exit::Conflict,
            WorkspaceError::Storage(error) => Exit::of(error.class()),
        };
        Self::new(exit, error.to_string())
    }
}

impl From<PackageError> for CliError {
    fn from(error: PackageError) -> Self {
        let exit = match &error {
            PackageError::NotFound { .. } => Exit::NotFound,
            PackageError::Exists { .. } => Exit::Conflict,
            other => Exit::of(other.class()),
        };
        Self::new(exit, error.to_string())
    }
}

impl From<DatasetError> for CliError {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::Workspace(error) => error.into(),
            DatasetError::Package(error) => error.into(),
            DatasetError::NotFound { .. } => Self::not_found(error.to_string()),
            other => Self::new(Exit::of(other.class()), other.to_string()),
        }
    }
}

impl From<DataflowError> for CliError {
    fn from(error: DataflowError) -> Self {
        match error {
            DataflowError::Workspace(error) => error.into(),
            DataflowError::Package(error) => error.into(),
            DataflowError::NoMatch { .. } => Self::new(Exit::NoMatch, error.to_string()),
            DataflowError::NoEntry { .. } => Self::not_found(error.to_string()),
            other => Self::new(Exit::of(other.class()), other.to_string()),
        }
    }
}

impl From<ArchiveError> for CliError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Package(error) => error.into(),
            other => Self::new(Exit::of(other.class()), other.to_string()),
        }
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        let exit = match &error {
            OpenError::NotFound(_) => Exit::NotFound,
            OpenError::Newer { .. } | OpenError::Older { .. } | OpenError::Foreign { .. } => Exit::Usage,
            error if error.is_corrupt() => Exit::Corrupt,
            OpenError::Database { .. } | OpenError::Io { .. } => Exit::Environment,
        };
        Self::new(exit, error.to_string())
    }
}
