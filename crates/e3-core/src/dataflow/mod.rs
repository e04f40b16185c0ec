//! The dataflow: a graph, a pure state machine over it, and a thin loop that does what the machine asks for.

mod action;
mod change;
mod changes;
pub(crate) mod entries;
pub(crate) mod execute;
mod graph;
mod items;
mod journal;
mod lists;
mod options;
mod orchestrator;
mod pattern;
mod publish;
mod ready;
pub(crate) mod settled;
mod standing;
mod state;
mod views;

pub use self::{
    action::{Action, Unit, UnitState},
    execute::{dataflow_execute, dataflow_execute_held},
    graph::{Graph, GraphError, TaskIndex},
    items::ItemSpec,
    options::{DataflowError, DataflowOptions, DataflowPolicy, Force, OnFailure, RunReport, TaskFailure},
    pattern::{NamePattern, NamePatternError},
    settled::kept_if_settled,
    standing::Standing,
    state::Dataflow,
};
