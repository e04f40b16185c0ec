//! How a graph is written down, so that a later run need not read the whole package for it.

use std::{borrow::Cow, collections::BTreeMap};

use e3_types::{DatasetPath, Hash, Name, TaskPolicy};
use serde::{Deserialize, Serialize};

use super::{Graph, GraphError, Input, Lists, RootIndex, TaskIndex};

/// What a graph cannot be made without. The rest follows from it.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    names: Cow<'a, [Name]>,
    objects: Cow<'a, [Hash]>,
    outputs: Cow<'a, [DatasetPath]>,
    roots: Cow<'a, [DatasetPath]>,
    /// How many inputs each task has, then all of them: a task by its number from 0 on, a root by its number from -1 down.
    counts: Vec<u32>,
    inputs: Vec<i64>,
    each: BTreeMap<u32, usize>,
    policies: Cow<'a, [TaskPolicy]>,
    policy_of: Cow<'a, [u32]>,
}

/// Why what is written down is no graph.
#[derive(Debug, thiserror::Error)]
pub(in crate::dataflow) enum GraphRecordError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("its lists do not fit each other")]
    Lists,
}

impl Graph {
    /// What is written down of it.
    pub(in crate::dataflow) fn to_record(&self) -> Vec<u8> {
        let number = |input: &Input| match *input {
            Input::Task(task) => i64::from(task.0),
            Input::Root(root) => -1 - i64::from(root.0),
        };
        let inputs = || self.indices().map(|task| self.inputs(task));
        let record = Record {
            names: Cow::Borrowed(&self.names),
            objects: Cow::Borrowed(&self.objects),
            outputs: Cow::Borrowed(&self.outputs),
            roots: Cow::Borrowed(&self.roots),
            counts: inputs().map(|inputs| u32::try_from(inputs.len()).expect("it was counted")).collect(),
            inputs: inputs().flatten().map(number).collect(),
            each: self.each.iter().map(|(task, input)| (task.0, *input)).collect(),
            policies: Cow::Borrowed(&self.policies),
            policy_of: Cow::Borrowed(&self.policy_of),
        };
        serde_json::to_vec(&record).expect("a graph is plain data with text keys")
    }

    /// The graph that was written down so.
    pub(in crate::dataflow) fn from_record(bytes: &[u8]) -> Result<Self, GraphRecordError> {
        let Record { names, objects, outputs, roots, counts, inputs, each, policies, policy_of } =
            serde_json::from_slice(bytes)?;
        let tasks = names.len();
        let input = |number: i64| {
            let (at, is_root) = if number < 0 { (-1 - number, true) } else { (number, false) };
            let at = u32::try_from(at).ok()?;
            let input = if is_root { Input::Root(RootIndex(at)) } else { Input::Task(TaskIndex(at)) };
            ((at as usize) < if is_root { roots.len() } else { tasks }).then_some(input)
        };
        let inputs: Vec<Input> =
            inputs.into_iter().map(input).collect::<Option<_>>().ok_or(GraphRecordError::Lists)?;
        let mut lists = Lists::with_capacity(tasks);
        let mut rest = &inputs[..];
        for count in &counts {
            let (own, others) = rest.split_at_checked(*count as usize).ok_or(GraphRecordError::Lists)?;
            own.iter().for_each(|input| lists.add(*input));
            rest = others;
            if !lists.end_list() {
                return Err(GraphRecordError::Lists);
            }
        }
        let of_each_task = [objects.len(), outputs.len(), counts.len(), policy_of.len()];
        let fits = rest.is_empty()
            && of_each_task.iter().all(|count| *count == tasks)
            && names.is_sorted()
            && roots.is_sorted()
            && policy_of.iter().all(|policy| (*policy as usize) < policies.len())
            && each.iter().all(|(task, input)| {
                counts.get(*task as usize).is_some_and(|count| *input < *count as usize)
            });
        if !fits {
            return Err(GraphRecordError::Lists);
        }
        let mut graph = Self {
            names: names.into_owned(),
            objects: objects.into_owned(),
            outputs: outputs.into_owned(),
            inputs: lists,
            each: each.into_iter().map(|(task, input)| (TaskIndex(task), input)).collect(),
            roots: roots.into_owned(),
            policies: policies.into_owned(),
            policy_of: policy_of.into_owned(),
            ..Self::default()
        };
        graph.by_output = super::producers(&graph.names, &graph.outputs)?;
        graph.connect()?;
        Ok(graph)
    }
}
