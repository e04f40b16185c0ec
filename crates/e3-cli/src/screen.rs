//! The screen: an event sink that shows a run as it goes and remembers what its end needs.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use e3_console::View;
use e3_core::EventSink;
use e3_types::{Event, EventKind};

use crate::{
    console::Console,
    error::{CliError, Result},
};

/// Shows events as lines on standard error, and as JSON lines in a file if one is asked for.
pub(crate) struct Screen {
    console: Console,
    lines: bool,
    state: Mutex<State>,
}

struct State {
    view: View,
    file: Option<Box<dyn Write + Send>>,
    failed: Option<io::Error>,
}

impl Screen {
    pub(crate) fn new(console: Console, lines: bool, events: Option<&Path>) -> Result<Self> {
        let file: Option<Box<dyn Write + Send>> = match events {
            None => None,
            Some(path) if path == Path::new("-") && console.json => {
                return Err(CliError::usage(
                    "`--events -` and `--json` both want standard output: give one a file",
                ));
            }
            Some(path) if path == Path::new("-") => Some(Box::new(io::stdout())),
            Some(path) => Some(Box::new(File::create(path).map_err(|error| {
                CliError::environment(format!("making the event file `{}`", path.display()), error)
            })?)),
        };
        let state = State { view: View::default(), file, failed: None };
        Ok(Self { console, lines, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen; the error is that of the event file, if it could not be written.
    pub(crate) fn finish(&self) -> Result<View> {
        let mut state = self.state();
        if let Some(error) = state.failed.take() {
            return Err(CliError::environment("writing the events", error));
        }
        Ok(std::mem::take(&mut state.view))
    }
}

impl EventSink for Screen {
    fn emit(&self, event: &Event) {
        if matches!(event.kind, EventKind::RunStarted { .. }) {
            // What was needed to read the package is not needed any more, and is in the way of the run.
            e3_process::give_memory_back();
        }
        let mut state = self.state();
        if self.lines {
            if let Some(line) = state.view.line(event) {
                self.console.note(&line);
            }
        } else {
            state.view.apply(event);
        }
        if let Some(file) = &mut state.file {
            let written = serde_json::to_string(event)
                .map_err(io::Error::from)
                .and_then(|line| file.write_all((line + "\n").as_bytes()))
                .and_then(|()| file.flush());
            if let Err(error) = written {
                // The run goes on; the error is told at its end.
                state.file = None;
                state.failed = Some(error);
            }
        }
    }
}
