//! `Graph`: the tasks of a package as numbers, with who waits for whom. Checked when it is made, immutable after.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use e3_types::{DatasetPath, Hash, Name, Package, TaskPolicy};

/// A task of a graph. Tasks are numbered in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskIndex(u32);

impl TaskIndex {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

/// A package as a graph.
#[derive(Debug)]
pub struct Graph {
    names: Vec<Name>,
    nodes: Vec<Node>,
    roots: Vec<DatasetPath>,
    producers: HashMap<DatasetPath, TaskIndex>,
    order: Vec<TaskIndex>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) task: Hash,
    pub(super) inputs: Vec<Input>,
    pub(super) output: DatasetPath,
    pub(super) policy: TaskPolicy,
    /// The tasks that it waits for, each once.
    pub(super) dependencies: Vec<TaskIndex>,
    /// The tasks that wait for it, each once, by number.
    pub(super) dependents: Vec<TaskIndex>,
    /// How many tasks the longest path from here to the end has, itself included.
    pub(super) remaining: u32,
}

/// Where an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// A dataset that no task writes, by its number among them.
    Root(usize),
    /// The output of a task.
    Task(TaskIndex),
}

/// Why a package makes no dataflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Tasks that wait for each other.
    #[error("these tasks wait for each other in a cycle: {}", cycle(.0))]
    Cycle(Vec<Name>),
    /// Two tasks write one dataset.
    #[error("both `{}` and `{}` write `{dataset}`: a dataset has one producer", tasks[0], tasks[1])]
    TwoProducers {
        /// The dataset.
        dataset: DatasetPath,
        /// The two.
        tasks: [Name; 2],
    },
    /// A task is wired to a dataset that is not there.
    #[error("task `{task}` is wired to `{dataset}`, which the package does not have")]
    UnknownDataset {
        /// The task.
        task: Name,
        /// What is not there.
        dataset: DatasetPath,
    },
    /// More tasks than can be numbered.
    #[error("{0} tasks are more than one package can have (4294967295)")]
    TooMany(usize),
}

fn cycle(names: &[Name]) -> String {
    let mut path: Vec<_> = names.iter().map(Name::as_str).collect();
    path.extend(names.first().map(Name::as_str));
    path.join(" -> ")
}

impl Graph {
    /// The graph of a package.
    pub fn new(package: &Package) -> Result<Self, GraphError> {
        if u32::try_from(package.tasks.len()).is_err() {
            return Err(GraphError::TooMany(package.tasks.len()));
        }
        let indices = (0_u32..).map(TaskIndex);
        let mut producers: HashMap<DatasetPath, TaskIndex> = HashMap::with_capacity(package.tasks.len());
        let names: Vec<Name> = package.tasks.keys().cloned().collect();
        for (index, (name, task)) in indices.zip(&package.tasks) {
            if let Some(other) = producers.insert(task.output.clone(), index) {
                let tasks = [names[other.at()].clone(), name.clone()];
                return Err(GraphError::TwoProducers { dataset: task.output.clone(), tasks });
            }
        }

        let mut roots = Vec::new();
        let mut root_numbers: HashMap<&DatasetPath, usize> = HashMap::new();
        let mut nodes = Vec::with_capacity(names.len());
        for (name, task) in &package.tasks {
            let unknown = |dataset: &DatasetPath| GraphError::UnknownDataset {
                task: name.clone(),
                dataset: dataset.clone(),
            };
            if !package.datasets.contains_key(&task.output) {
                return Err(unknown(&task.output));
            }
            let mut inputs = Vec::with_capacity(task.inputs.len());
            let mut dependencies = Vec::new();
            for path in &task.inputs {
                if !package.datasets.contains_key(path) {
                    return Err(unknown(path));
                }
                inputs.push(if let Some(&producer) = producers.get(path) {
                    dependencies.push(producer);
                    Input::Task(producer)
                } else {
                    Input::Root(*root_numbers.entry(path).or_insert_with(|| {
                        roots.push(path.clone());
                        roots.len() - 1
                    }))
                });
            }
            dependencies.sort_unstable();
            dependencies.dedup();
            nodes.push(Node {
                task: task.task,
                inputs,
                output: task.output.clone(),
                policy: task.policy.clone(),
                dependencies,
                dependents: Vec::new(),
                remaining: 1,
            });
        }
        for index in (0_u32..).map(TaskIndex).take(nodes.len()) {
            for dependency in nodes[index.at()].dependencies.clone() {
                nodes[dependency.at()].dependents.push(index);
            }
        }

        let mut graph = Self { names, nodes, roots, producers, order: Vec::new() };
        graph.order = graph.topological_order()?;
        for index in graph.order.clone().into_iter().rev() {
            let below =
                graph.nodes[index.at()].dependents.iter().map(|next| graph.nodes[next.at()].remaining).max();
            graph.nodes[index.at()].remaining = below.unwrap_or(0) + 1;
        }
        Ok(graph)
    }

    /// Dependencies before dependents, else by name.
    fn topological_order(&self) -> Result<Vec<TaskIndex>, GraphError> {
        let mut waiting: Vec<usize> = self.nodes.iter().map(|node| node.dependencies.len()).collect();
        let mut free: BinaryHeap<Reverse<TaskIndex>> =
            self.indices().filter(|index| waiting[index.at()] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse(index)) = free.pop() {
            order.push(index);
            for &dependent in &self.nodes[index.at()].dependents {
                waiting[dependent.at()] -= 1;
                if waiting[dependent.at()] == 0 {
                    free.push(Reverse(dependent));
                }
            }
        }
        if order.len() == self.nodes.len() {
            Ok(order)
        } else {
            Err(GraphError::Cycle(self.find_cycle(&waiting)))
        }
    }

    /// A cycle among the tasks that still wait. Each of them waits for another one of them, so following these back
    /// comes to a task seen before.
    fn find_cycle(&self, waiting: &[usize]) -> Vec<Name> {
        let mut path: Vec<TaskIndex> = Vec::new();
        let mut seen: HashMap<TaskIndex, usize> = HashMap::new();
        let mut at = self.indices().find(|index| waiting[index.at()] > 0);
        while let Some(index) = at {
            if let Some(&start) = seen.get(&index) {
                path.drain(..start);
                break;
            }
            seen.insert(index, path.len());
            path.push(index);
            at = self.nodes[index.at()].dependencies.iter().copied().find(|next| waiting[next.at()] > 0);
        }
        // Against the arrows so far; turned round, each task feeds the next. The first by name goes first.
        path.reverse();
        if let Some(first) = (0..path.len()).min_by_key(|&at| path[at]) {
            path.rotate_left(first);
        }
        path.into_iter().map(|index| self.names[index.at()].clone()).collect()
    }

    fn indices(&self) -> impl Iterator<Item = TaskIndex> + use<> {
        (0_u32..).map(TaskIndex).take(self.nodes.len())
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The tasks, dependencies before dependents.
    pub fn in_order(&self) -> impl Iterator<Item = TaskIndex> + '_ {
        self.order.iter().copied()
    }

    /// A task's name.
    pub fn name(&self, task: TaskIndex) -> &Name {
        &self.names[task.at()]
    }

    /// The task of that name.
    pub fn find(&self, name: &Name) -> Option<TaskIndex> {
        let at = self.names.binary_search(name).ok()?;
        u32::try_from(at).ok().map(TaskIndex)
    }

    /// The task that writes a dataset; none for a root input.
    pub fn producer(&self, dataset: &DatasetPath) -> Option<TaskIndex> {
        self.producers.get(dataset).copied()
    }

    pub(super) fn node(&self, task: TaskIndex) -> &Node {
        &self.nodes[task.at()]
    }

    /// The root inputs that tasks read, by number.
    pub(super) fn roots(&self) -> &[DatasetPath] {
        &self.roots
    }
}

#[cfg(test)]
mod tests {
    use e3_types::{Kind, PackageTask, Slot};

    use super::*;

    fn package(tasks: &[(&str, &[&str], &str)], roots: &[&str]) -> Package {
        let slot = || Slot { kind: Kind::File, default: None };
        let mut package = Package {
            name: "p".parse().unwrap(),
            version: "1".parse().unwrap(),
            datasets: roots.iter().map(|root| (root.parse().unwrap(), slot())).collect(),
            tasks: std::collections::BTreeMap::new(),
        };
        for (name, inputs, output) in tasks {
            package.datasets.insert(output.parse().unwrap(), slot());
            let task = PackageTask {
                task: Hash::of(name.as_bytes()),
                inputs: inputs.iter().map(|input| input.parse().unwrap()).collect(),
                output: output.parse().unwrap(),
                policy: TaskPolicy::default(),
            };
            package.tasks.insert(name.parse().unwrap(), task);
        }
        package
    }

    #[test]
    fn order_and_longest_paths() {
        let graph = Graph::new(&package(
            &[("c", &["a", "b"], "c"), ("b", &["a"], "b"), ("a", &["x", "x"], "a")],
            &["x"],
        ));
        let graph = graph.unwrap();
        let order: Vec<_> = graph.in_order().map(|index| graph.name(index).as_str()).collect();
        assert_eq!(order, ["a", "b", "c"]);
        let remaining: Vec<_> = graph.in_order().map(|index| graph.node(index).remaining).collect();
        assert_eq!(remaining, [3, 2, 1]);
        assert_eq!(graph.roots().len(), 1);
    }

    #[test]
    fn a_cycle_is_shown_whole_and_in_the_direction_of_the_data() {
        let tasks: &[(&str, &[&str], &str)] =
            &[("d", &["c"], "d"), ("a", &["x", "c"], "a"), ("c", &["b"], "c"), ("b", &["a"], "b")];
        let error = Graph::new(&package(tasks, &["x"])).unwrap_err();
        assert_eq!(error.to_string(), "these tasks wait for each other in a cycle: a -> b -> c -> a");
        let own = Graph::new(&package(&[("a", &["a"], "a")], &[])).unwrap_err();
        assert_eq!(own.to_string(), "these tasks wait for each other in a cycle: a -> a");
    }

    #[test]
    fn bad_wiring_is_refused_by_name() {
        let two = Graph::new(&package(&[("a", &[], "x"), ("b", &[], "x")], &[])).unwrap_err();
        assert_eq!(two.to_string(), "both `a` and `b` write `x`: a dataset has one producer");
        let unknown = Graph::new(&package(&[("a", &["nope"], "a")], &[])).unwrap_err();
        assert_eq!(unknown.to_string(), "task `a` is wired to `nope`, which the package does not have");
    }
}
