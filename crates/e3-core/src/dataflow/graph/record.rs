//! How a graph is written down, so that a later run need not read the whole package for it: in pieces, none of which is large.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use e3_types::{DatasetPath, Hash, Name, TaskPolicy};
use serde::{Deserialize, Serialize};

use super::{Graph, GraphError, Input, RootIndex, TaskIndex};

/// How many tasks, and how many roots, a piece has.
const PIECE: usize = 8192;

/// What a graph cannot be made without, of some tasks and roots. The rest follows from it.
#[derive(Serialize, Deserialize)]
struct Piece<'a> {
    names: Cow<'a, [Name]>,
    objects: Cow<'a, [Hash]>,
    outputs: Cow<'a, [DatasetPath]>,
    roots: Cow<'a, [DatasetPath]>,
    /// How many inputs each task has, then all of them: a task by its number from 0 on, a root by its number from -1 down.
    counts: Vec<u32>,
    inputs: Vec<i64>,
    each: BTreeMap<u32, usize>,
    policy_of: Cow<'a, [u32]>,
    /// In the first piece, of all tasks.
    policies: Cow<'a, [TaskPolicy]>,
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

/// A graph of which some pieces have been read.
#[derive(Default)]
pub(in crate::dataflow) struct GraphReader {
    graph: Graph,
}

/// How many pieces a graph of so many tasks and roots has.
pub(in crate::dataflow) fn pieces(tasks: usize, roots: usize) -> usize {
    tasks.max(roots).max(1).div_ceil(PIECE)
}

impl Graph {
    /// One of the pieces that are written down of it.
    pub(in crate::dataflow) fn piece(&self, number: usize) -> Vec<u8> {
        let range =
            |len: usize| -> Range<usize> { (number * PIECE).min(len)..((number + 1) * PIECE).min(len) };
        let (tasks, roots) = (range(self.len()), range(self.roots.len()));
        let code = |input: &Input| match *input {
            Input::Task(task) => i64::from(task.0),
            Input::Root(root) => -1 - i64::from(root.0),
        };
        let inputs = || tasks.clone().map(|task| self.inputs.of(task));
        let each = self.each.iter().filter(|(task, _)| tasks.contains(&task.at()));
        let piece = Piece {
            names: Cow::Borrowed(&self.names[tasks.clone()]),
            objects: Cow::Borrowed(&self.objects[tasks.clone()]),
            outputs: Cow::Borrowed(&self.outputs[tasks.clone()]),
            roots: Cow::Borrowed(&self.roots[roots]),
            counts: inputs().map(|inputs| u32::try_from(inputs.len()).expect("it was counted")).collect(),
            inputs: inputs().flatten().map(code).collect(),
            each: each.map(|(task, input)| (task.0, *input)).collect(),
            policy_of: Cow::Borrowed(&self.policy_of[tasks.clone()]),
            policies: Cow::Borrowed(if number == 0 { &self.policies } else { &[] }),
        };
        serde_json::to_vec(&piece).expect("a graph is plain data with text keys")
    }
}

impl GraphReader {
    /// Reads the next piece.
    pub(in crate::dataflow) fn add(&mut self, bytes: &[u8]) -> Result<(), GraphRecordError> {
        let piece: Piece<'_> = serde_json::from_slice(bytes)?;
        let of_each_task =
            [piece.objects.len(), piece.outputs.len(), piece.counts.len(), piece.policy_of.len()];
        let inputs: usize = piece.counts.iter().map(|count| *count as usize).sum();
        if of_each_task != [piece.names.len(); 4] || inputs != piece.inputs.len() {
            return Err(GraphRecordError::Lists);
        }
        let graph = &mut self.graph;
        let mut left = piece.inputs.iter();
        for count in piece.counts {
            for _ in 0..count {
                let number = left.next().copied().ok_or(GraphRecordError::Lists)?;
                graph.inputs.add(input(number).ok_or(GraphRecordError::Lists)?);
            }
            if !graph.inputs.end_list() {
                return Err(GraphRecordError::Lists);
            }
        }
        graph.names.extend(piece.names.into_owned());
        graph.objects.extend(piece.objects.into_owned());
        graph.outputs.extend(piece.outputs.into_owned());
        graph.roots.extend(piece.roots.into_owned());
        graph.each.extend(piece.each.into_iter().map(|(task, input)| (TaskIndex(task), input)));
        graph.policy_of.extend(piece.policy_of.into_owned());
        graph.policies.extend(piece.policies.into_owned());
        Ok(())
    }

    /// The graph, if all of it has been read.
    pub(in crate::dataflow) fn finish(self) -> Result<Graph, GraphRecordError> {
        let mut graph = self.graph;
        let (tasks, roots) = (graph.names.len(), graph.roots.len());
        let is_known = |input: &Input| match *input {
            Input::Task(task) => task.at() < tasks,
            Input::Root(root) => root.at() < roots,
        };
        let fits = graph.names.is_sorted()
            && graph.roots.is_sorted()
            && graph.indices().all(|task| graph.inputs(task).iter().all(is_known))
            && graph.policy_of.iter().all(|policy| (*policy as usize) < graph.policies.len())
            && graph.each.iter().all(|(task, input)| task.at() < tasks && *input < graph.inputs(*task).len());
        if !fits {
            return Err(GraphRecordError::Lists);
        }
        graph.by_output = super::producers(&graph.names, &graph.outputs)?;
        graph.connect()?;
        Ok(graph)
    }
}

/// The input that a number means.
fn input(number: i64) -> Option<Input> {
    if number < 0 {
        Some(Input::Root(RootIndex(u32::try_from(-1 - number).ok()?)))
    } else {
        Some(Input::Task(TaskIndex(u32::try_from(number).ok()?)))
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

    fn read(pieces: &[Vec<u8>]) -> Result<Graph, GraphRecordError> {
        let mut reader = GraphReader::default();
        pieces.iter().try_for_each(|piece| reader.add(piece))?;
        reader.finish()
    }

    proptest! {
        #[test]
        fn a_graph_is_read_as_it_was_written(
            reads in prop::collection::vec(prop::collection::vec(0_usize..12, 0..4), 0..9),
        ) {
            let graph = graph(&reads);
            let read = read(&[graph.piece(0)]).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{graph:?}"));
        }
    }

    #[test]
    fn a_large_graph_has_several_pieces() {
        let slot = || Slot { kind: Kind::File, default: None };
        let mut package = Package {
            name: "p".parse().unwrap(),
            version: "1".parse().unwrap(),
            datasets: BTreeMap::new(),
            tasks: BTreeMap::new(),
        };
        let count = PIECE + 5;
        for number in 0..count {
            let before = if number > 0 { format!("t{:06}", number - 1) } else { "r0".to_owned() };
            let (name, root) = (format!("t{number:06}"), format!("r{number}"));
            for path in [&name, &root] {
                package.datasets.insert(path.parse().unwrap(), slot());
            }
            let task = PackageTask {
                task: Hash::of(name.as_bytes()),
                inputs: vec![root.parse().unwrap(), before.parse().unwrap()],
                output: name.parse().unwrap(),
                each: None,
                policy: TaskPolicy::usual(),
            };
            package.tasks.insert(name.parse().unwrap(), task);
        }
        let graph = Graph::new(&package).unwrap();
        assert_eq!((pieces(count, count), pieces(3, count), pieces(PIECE, 0), pieces(0, 0)), (2, 2, 1, 1));
        let written: Vec<_> = (0..2).map(|number| graph.piece(number)).collect();
        assert_eq!(format!("{:?}", read(&written).unwrap()), format!("{graph:?}"));
        assert!(read(&written[1..]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good: Value = serde_json::from_slice(&graph(&[vec![0], vec![3, 1]]).piece(0)).unwrap();
        let read = |piece: &Value| read(&[serde_json::to_vec(piece).unwrap()]);
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
