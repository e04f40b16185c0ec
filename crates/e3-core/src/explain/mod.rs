//! Why anything ran, or would run: plans, key documents and what differs between two of them. Nothing is executed here, and
//! nothing is written.

mod difference;
mod key;
mod plan;
mod runs;
mod why;

pub(crate) use self::difference::folder_details;
pub use self::{
    difference::{Detail, DetailChange, Difference, differences},
    key::{KeyDocument, KeyInput},
    plan::{Decision, EntriesPlan, Plan, PlanOptions, PlannedTask, plan},
    runs::{RunsDifference, TaskDifference, runs_difference},
    why::{Earlier, Provenance, Why, why},
};
