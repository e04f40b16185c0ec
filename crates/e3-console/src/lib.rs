//! What a run looks like to people and to programs. Pure: events and totals in, text out.
//!
//! Text may contain ANSI styles; whoever prints it strips them where they are not wanted. No meaning is carried by a
//! style alone.

mod duration;
mod plain;
mod report;
mod view;

pub use duration::human_duration;
pub use report::{FailureReport, FailureSummary, RunDocument, error_line, failures, reason_text, totals};
pub use view::{Place, View};
