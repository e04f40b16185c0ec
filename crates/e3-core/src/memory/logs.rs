//! `MemoryLogs`: logs in a map.

use std::{collections::HashMap, ops::Range, sync::Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::ExecutionId;

use super::lock;
use crate::{LogError, LogStore, LogStream};

/// Logs in a map.
#[derive(Debug, Default)]
pub struct MemoryLogs(Mutex<HashMap<(ExecutionId, LogStream), Vec<u8>>>);

#[async_trait]
impl LogStore for MemoryLogs {
    async fn append(&self, execution: ExecutionId, stream: LogStream, bytes: &[u8]) -> Result<(), LogError> {
        lock(&self.0).entry((execution, stream)).or_default().extend_from_slice(bytes);
        Ok(())
    }

    async fn read(
        &self,
        execution: ExecutionId,
        stream: LogStream,
        range: Range<u64>,
    ) -> Result<Bytes, LogError> {
        let logs = lock(&self.0);
        let bytes = logs.get(&(execution, stream)).map_or(&[][..], Vec::as_slice);
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        Ok(Bytes::copy_from_slice(&bytes[start..end]))
    }

    async fn size(&self, execution: ExecutionId, stream: LogStream) -> Result<u64, LogError> {
        Ok(lock(&self.0).get(&(execution, stream)).map_or(0, |bytes| bytes.len() as u64))
    }

    async fn delete_many(&self, executions: &[ExecutionId]) -> Result<(), LogError> {
        let mut logs = lock(&self.0);
        for execution in executions {
            logs.remove(&(*execution, LogStream::Stdout));
            logs.remove(&(*execution, LogStream::Stderr));
        }
        Ok(())
    }
}
