//! `LogStore`: what executions print.

use std::{fmt, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::ExecutionId;

use super::Unavailable;

/// Two append-only byte sequences for each execution. Following a log is reading on from where it ended.
///
/// * Ordering: the pieces of one stream are read in the order in which they were appended.
/// * Visibility: appended bytes can be read at once, by any process.
/// * A log that was never appended to is empty, not an error.
/// * One writer for each stream; any number of readers. A dropped `append` may have written a part.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Adds bytes to the end.
    async fn append(&self, execution: ExecutionId, stream: LogStream, bytes: &[u8]) -> Result<(), LogError>;

    /// The bytes within `range`, as far as they are there.
    async fn read(
        &self,
        execution: ExecutionId,
        stream: LogStream,
        range: Range<u64>,
    ) -> Result<Bytes, LogError>;

    /// How many bytes there are.
    async fn size(&self, execution: ExecutionId, stream: LogStream) -> Result<u64, LogError>;

    /// Deletes both streams of each of the executions.
    async fn delete_many(&self, executions: &[ExecutionId]) -> Result<(), LogError>;
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// What goes wrong with logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store cannot answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
