//! Draining a pipe while its writer runs.

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::Errno,
};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use crate::run::Output;

/// How much of the output is held at once, in bytes: what a pipe of Linux holds.
const CHUNK: usize = 64 << 10;
/// How much at first.
const FIRST_CHUNK: usize = 1 << 10;

/// The reading end of a pipe.
pub(crate) struct Drain(OwnedFd);

impl Drain {
    /// Takes the reading end of a new pipe over.
    pub(crate) fn new(pipe: OwnedFd) -> io::Result<Self> {
        // A new pipe has no other flags that could be set.
        fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK)?;
        Ok(Self(pipe))
    }

    /// Hands everything to `output` until all writers have closed the pipe. Needs a tokio runtime with I/O.
    pub(crate) async fn run<O: Output<Error = Infallible>>(self, mut output: O) -> io::Result<()> {
        // Processes that say nothing, or little, are many: the buffer grows with what there is to read, and the pipe is
        // only made known to the runtime if there is something to wait for.
        let mut buffer = vec![0; FIRST_CHUNK];
        loop {
            match rustix::io::read(self.0.as_fd(), &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => hand_over(&mut output, &mut buffer, read).await,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut pipe = Receiver::from_owned_fd_unchecked(self.0)?;
        loop {
            match pipe.read(&mut buffer).await? {
                0 => return Ok(()),
                read => hand_over(&mut output, &mut buffer, read).await,
            }
        }
    }
}

async fn hand_over<O: Output<Error = Infallible>>(output: &mut O, buffer: &mut Vec<u8>, read: usize) {
    let Ok(()) = output.take(&buffer[..read]).await;
    if read == buffer.len() && read < CHUNK {
        buffer.resize(CHUNK, 0);
    }
}
