//! Logs as files. A silent execution has none.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_core::{LogError, LogStore, LogStream, Unavailable};
use e3_types::ExecutionId;

use crate::files::{is_missing, with_parent};

/// Logs as files under one folder.
#[derive(Debug)]
pub(crate) struct LocalLogs {
    pub(crate) folder: PathBuf,
}

impl LocalLogs {
    /// The last two digits of an id are random, so the folders fill evenly.
    fn path(&self, execution: ExecutionId, stream: LogStream) -> PathBuf {
        let id = execution.to_string();
        self.folder.join(&id[id.len() - 2..]).join(format!("{id}.{stream}"))
    }
}

#[async_trait]
impl LogStore for LocalLogs {
    async fn append(&self, execution: ExecutionId, stream: LogStream, bytes: &[u8]) -> Result<(), LogError> {
        let (path, bytes) = (self.path(execution, stream), Bytes::copy_from_slice(bytes));
        blocking("writing", path, move |path| {
            let open = || OpenOptions::new().append(true).create(true).open(path);
            with_parent(path, open)?.write_all(&bytes)
        })
        .await
    }

    async fn read(
        &self,
        execution: ExecutionId,
        stream: LogStream,
        range: Range<u64>,
    ) -> Result<Bytes, LogError> {
        blocking("reading", self.path(execution, stream), move |path| {
            let mut file = match File::open(path) {
                Err(error) if is_missing(&error) => return Ok(Bytes::new()),
                other => other?,
            };
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::new();
            file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
            Ok(bytes.into())
        })
        .await
    }

    async fn size(&self, execution: ExecutionId, stream: LogStream) -> Result<u64, LogError> {
        blocking("reading", self.path(execution, stream), |path| match fs::metadata(path) {
            Err(error) if is_missing(&error) => Ok(0),
            other => Ok(other?.len()),
        })
        .await
    }

    async fn delete_many(&self, executions: &[ExecutionId]) -> Result<(), LogError> {
        for execution in executions {
            for stream in [LogStream::Stdout, LogStream::Stderr] {
                blocking("deleting", self.path(*execution, stream), |path| match fs::remove_file(path) {
                    Err(error) if is_missing(&error) => Ok(()),
                    other => other,
                })
                .await?;
            }
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    doing: &str,
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, LogError> {
    let doing = format!("{doing} the log `{}`", path.display());
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    let failed = |error: io::Error| Unavailable::new(doing.clone(), error);
    Ok(done.map_err(|error| Unavailable::new(doing.clone(), error))?.map_err(failed)?)
}
