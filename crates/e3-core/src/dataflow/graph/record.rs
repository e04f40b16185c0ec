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
            for input in own {
                lists.add(*input);
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use e3_types::{Kind, Package, PackageTask, Slot};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Of these tasks each reads some roots and some of the tasks before it.
    fn graph(reads: &[Vec<usize>]) -> Graph {
        let slot = || Slot { kind: Kind::Dir, default: None };
        let mut package = Package {
            name: "p".parse().unwrap(),
            version: "1".parse().unwrap(),
            datasets: (0..3).map(|root| (format!("r{root}").parse().unwrap(), slot())).collect(),
            tasks: BTreeMap::new(),
        };
        for (number, reads) in reads.iter().enumerate() {
            let input = |&read: &usize| match read.checked_sub(3) {
                Some(task) if task < number => format!("t{task}").parse().unwrap(),
                _ => format!("r{}", read % 3).parse().unwrap(),
            };
            let policy = TaskPolicy { cache: number % 3 != 0, ..TaskPolicy::default() };
            let output: DatasetPath = format!("t{number}").parse().unwrap();
            let task = PackageTask {
                task: Hash::of(&[u8::try_from(number).unwrap()]),
                inputs: reads.iter().map(input).collect(),
                output: output.clone(),
                each: (number % 4 == 1 && !reads.is_empty()).then_some(0),
                policy: Arc::new(policy),
            };
            package.datasets.insert(output, slot());
            package.tasks.insert(format!("t{number}").parse().unwrap(), task);
        }
        Graph::new(&package).unwrap()
    }

    fn read(record: &Value) -> Result<Graph, GraphRecordError> {
        Graph::from_record(&serde_json::to_vec(record).unwrap())
    }

    proptest! {
        #[test]
        fn a_graph_is_read_as_it_was_written(
            reads in prop::collection::vec(prop::collection::vec(0_usize..12, 0..4), 0..9),
        ) {
            let graph = graph(&reads);
            let read = Graph::from_record(&graph.to_record()).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{graph:?}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good: Value = serde_json::from_slice(&graph(&[vec![0], vec![3, 1]]).to_record()).unwrap();
        assert!(read(&good).is_ok());
        for (key, bad) in [
            ("names", json!(["t0"])),
            ("names", json!(["t1", "t0"])),
            ("objects", json!([])),
            ("outputs", json!(["t0"])),
            ("outputs", json!(["t0", "t0"])),
            ("roots", json!([])),
            ("counts", json!([1, 1])),
            ("counts", json!([2, 2])),
            ("counts", json!([3])),
            ("inputs", json!([-1, 0, -9])),
            ("inputs", json!([-1, 0, 2])),
            ("inputs", json!([-1, 0, i64::MIN])),
            ("inputs", json!([1, 0, -1])),
            ("each", json!({ "5": 0 })),
            ("each", json!({ "1": 2 })),
            ("policies", json!([])),
            ("policy_of", json!([0, 7])),
            ("policy_of", json!([0])),
        ] {
            let mut record = good.clone();
            record[key] = bad.clone();
            assert!(read(&record).is_err(), "{key}: {bad}");
            record.as_object_mut().unwrap().remove(key);
            assert!(read(&record).is_err(), "no {key}");
        }
    }
}
