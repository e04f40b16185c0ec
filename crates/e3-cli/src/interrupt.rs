//! Ctrl-C and SIGTERM: the first asks for a polite stop, the second for an end at once.

use e3_core::Cancellation;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    console::Console,
    error::{CliError, Exit, Result},
};

/// The signals that ask for an end.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Listens from now on: the signals no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self> {
        let listen =
            |kind| signal(kind).map_err(|error| CliError::environment("listening for signals", error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Returns at the next request for an end, with the exit code that belongs to it.
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }

    /// Waits for `work` and passes requests for an end on; returns what was asked for first, if anything.
    pub(crate) async fn guard<T>(
        &mut self,
        console: Console,
        cancellation: &Cancellation,
        work: impl Future<Output = T>,
    ) -> (T, Option<Exit>) {
        let mut work = std::pin::pin!(work);
        let mut asked = None;
        loop {
            tokio::select! {
                done = &mut work => return (done, asked),
                exit = self.next() => {
                    if asked.is_none() {
                        asked = Some(exit);
                        console.note("stopping: what runs is asked to end; once more to end it at once");
                        cancellation.stop.cancel();
                    } else {
                        cancellation.kill.cancel();
                    }
                }
            }
        }
    }
}
