//! Where text goes: the result to standard output, everything else to standard error.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    args::{Colour, Common},
    error::{CliError, Exit, Result},
};

/// The two streams and how much to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Console {
    pub(crate) fn new(common: &Common) -> Self {
        let choice = match common.color {
            Colour::Auto => anstream::ColorChoice::Auto,
            Colour::Always => anstream::ColorChoice::Always,
            Colour::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        Self { json: common.json, quiet: common.quiet }
    }

    /// A part of the result.
    pub(crate) fn result(self, text: &str) -> Result<()> {
        written(anstream::stdout().write_all(text.as_bytes()))
    }

    /// The result as the one JSON document.
    pub(crate) fn document(self, document: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(document)
            .map_err(|error| CliError::environment("writing the JSON document", error))?;
        text.push('\n');
        written(io::stdout().write_all(text.as_bytes()))
    }

    /// A part of the result, as one line of JSON.
    pub(crate) fn line(self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(value)
            .map_err(|error| CliError::environment("writing a line of JSON", error))?;
        text.push('\n');
        written(io::stdout().write_all(text.as_bytes()))
    }

    /// A line for whoever looks on.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// A line about what may be wrong, or is.
    pub(crate) fn warn(self, text: &str) {
        say(text);
    }
}

/// Standard error may be closed; there is nobody left to tell.
fn say(text: &str) {
    let _unheard = writeln!(anstream::stderr(), "{text}");
}

/// Bytes as they are, to standard output.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<()> {
    written(io::stdout().write_all(bytes))
}

/// A reader that has seen enough (`| head`) ends the work, but is not an error.
fn written(done: io::Result<()>) -> Result<()> {
    done.and_then(|()| io::stdout().flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::new(Exit::Done, "nobody reads standard output any more"),
        _ => CliError::environment("writing to standard output", error),
    })
}
