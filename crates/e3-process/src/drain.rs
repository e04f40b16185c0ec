//! Draining a pipe while its writer runs.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use crate::run::{Output, RunError};

/// How much of the output is held at once, in bytes: what a pipe of Linux holds.
const CHUNK: usize = 64 << 10;
/// How much at first.
const FIRST_CHUNK: usize = 1 << 10;

/// The reading end of a pipe.
pub(crate) struct Drain(Receiver);

impl Drain {
    /// Takes the reading end of a pipe over. Needs a tokio runtime with I/O.
    pub(crate) fn new(pipe: impl Into<OwnedFd>) -> io::Result<Self> {
        let pipe: OwnedFd = pipe.into();
        let flags = fcntl_getfl(pipe.as_fd())?;
        fcntl_setfl(pipe.as_fd(), flags | OFlags::NONBLOCK)?;
        Ok(Self(Receiver::from_owned_fd(pipe)?))
    }

    /// Hands everything to `output` until all writers have closed the pipe.
    pub(crate) async fn run<O: Output>(mut self, mut output: O) -> Result<(), RunError<O::Error>> {
        // Processes that say nothing, or little, are many: the buffer grows with what there is to read.
        let mut buffer = vec![0; FIRST_CHUNK];
        loop {
            match self.0.read(&mut buffer).await.map_err(RunError::Wait)? {
                0 => return Ok(()),
                read => {
                    output.take(&buffer[..read]).await.map_err(RunError::Output)?;
                    if read == buffer.len() && read < CHUNK {
                        buffer.resize(CHUNK, 0);
                    }
                }
            }
        }
    }
}
