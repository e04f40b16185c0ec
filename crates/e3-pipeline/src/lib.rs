//! The file that a user writes: `e3.toml` -> a package, with errors that point at the place; and the source files
//! that it names, read only when they have changed.

mod build;
mod compile;
mod error;
mod kept;
mod look;
mod model;
mod named;
mod parse;
mod pieces;
mod policy;
mod reader;
mod similar;
mod stat_cache;
mod track;
mod units;
mod walk;

pub use build::{Built, Tracked, TrackedSource, build};
pub use compile::{Compiled, Compiler};
pub use error::{Location, PipelineError};
pub use model::{OutputLink, Pipeline, RunSettings};
pub use parse::{may_have_run_settings, parse, run_settings};
pub use similar::most_similar;
pub use stat_cache::StatCache;
pub use track::{Project, Sources, TrackReport, store_path};
pub use units::{parse_duration, parse_size};
