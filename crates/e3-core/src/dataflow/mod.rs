//! The dataflow: a graph, a pure state machine over it, and a thin loop that does what the machine asks for.

mod execute;
mod graph;
mod journal;
mod pattern;
mod publish;
mod state;

pub use self::{
    execute::{
        DataflowError, DataflowOptions, Force, RunReport, TaskFailure, dataflow_execute,
        dataflow_execute_held,
    },
    graph::{Graph, GraphError, TaskIndex},
    pattern::{NamePattern, NamePatternError},
    state::{Action, Dataflow, DataflowPolicy, OnFailure},
};
