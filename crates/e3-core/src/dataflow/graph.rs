//! `Graph`: the tasks of a package as numbers, with who waits for whom. Checked when it is made, immutable after.
//!
//! Flat arrays: a task costs a few dozen bytes beside its names, so a package of a million tasks is a matter of course.

mod record;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
};

use e3_types::{DatasetPath, Hash, Name, Package, TaskPolicy};

use super::lists::Lists;

pub(super) use record::{GraphReader, pieces};

/// A task of a graph. Tasks are numbered in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskIndex(pub(super) u32);

impl TaskIndex {
    /// The task of that number, of which there is one.
    pub(super) fn new(at: usize) -> Self {
        Self(u32::try_from(at).expect("tasks are counted in 31 bits"))
    }

    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

/// A dataset that no task writes. They are numbered in the order of their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RootIndex(u32);

impl RootIndex {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

/// A package as a graph.
#[derive(Debug, Default)]
pub struct Graph {
    names: Vec<Name>,
    /// The task objects.
    objects: Vec<Hash>,
    outputs: Vec<DatasetPath>,
    /// The tasks by the paths of their outputs.
    by_output: Vec<TaskIndex>,
    inputs: Lists<Input>,
    /// For a task that runs once per entry: of which of its inputs.
    each: BTreeMap<TaskIndex, usize>,
    /// The tasks that wait for a task, each once, by number.
    dependents: Lists<TaskIndex>,
    roots: Vec<DatasetPath>,
    /// The tasks that read a root input, each once, by number.
    readers: Lists<TaskIndex>,
    order: Vec<TaskIndex>,
    /// Where a task stands in `order`.
    positions: Vec<u32>,
    /// The policies that there are, each once, and which one a task has.
    policies: Vec<TaskPolicy>,
    policy_of: Vec<u32>,
}

/// Where an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Input {
    /// A dataset that no task writes.
    Root(RootIndex),
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
    /// A task runs once per entry of an input that it does not have.
    #[error("task `{task}` runs once per entry of its input number {each}, but it has only {inputs} inputs")]
    Each {
        /// The task.
        task: Name,
        /// The number of the input, from 0.
        each: u32,
        /// How many it has.
        inputs: usize,
    },
    /// More tasks than can be numbered.
    #[error("{0} tasks, or their inputs, are more than one package can have (2^31)")]
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
        let count = package.tasks.len();
        let too_many = || GraphError::TooMany(count);
        // Half of the numbers: entries of folders are numbered behind the tasks.
        if i32::try_from(count).is_err() {
            return Err(too_many());
        }
        let names: Vec<Name> = package.tasks.keys().cloned().collect();
        let outputs: Vec<DatasetPath> = package.tasks.values().map(|task| task.output.clone()).collect();
        let by_output = producers(&names, &outputs)?;
        let (roots, numbers) = number_datasets(package, &by_output, &outputs);

        let mut inputs = Lists::with_capacity(count);
        let mut each = BTreeMap::new();
        let mut policies = Policies::default();
        for ((index, name), task) in (0_u32..).map(TaskIndex).zip(&names).zip(package.tasks.values()) {
            let unknown = |dataset: &DatasetPath| GraphError::UnknownDataset {
                task: name.clone(),
                dataset: dataset.clone(),
            };
            if !package.datasets.contains_key(&task.output) {
                return Err(unknown(&task.output));
            }
            for path in &task.inputs {
                inputs.add(*numbers.get(path).ok_or_else(|| unknown(path))?);
            }
            if !inputs.end_list() {
                return Err(too_many());
            }
            if let Some(number) = task.each {
                let inputs = task.inputs.len();
                if number as usize >= inputs {
                    return Err(GraphError::Each { task: name.clone(), each: number, inputs });
                }
                each.insert(index, number as usize);
            }
            policies.add(&task.policy);
        }

        let mut graph = Self {
            objects: package.tasks.values().map(|task| task.task).collect(),
            policies: policies.distinct,
            policy_of: policies.of_task,
            names,
            outputs,
            by_output,
            inputs,
            each,
            roots,
            ..Self::default()
        };
        graph.connect()?;
        Ok(graph)
    }

    /// Finds out who waits for whom.
    fn connect(&mut self) -> Result<(), GraphError> {
        self.dependents = self.used_by(self.len(), |input| match input {
            Input::Task(producer) => Some(producer.at()),
            Input::Root(_) => None,
        });
        self.readers = self.used_by(self.roots.len(), |input| match input {
            Input::Root(root) => Some(root.at()),
            Input::Task(_) => None,
        });
        self.order = self.topological_order()?;
        self.positions = vec![0; self.len()];
        for (position, index) in (0_u32..).zip(&self.order) {
            self.positions[index.at()] = position;
        }
        Ok(())
    }

    /// For each of `lists` numbers, the tasks with an input that `number` gives that number; each task once.
    fn used_by(&self, lists: usize, number: impl Fn(Input) -> Option<usize> + Copy) -> Lists<TaskIndex> {
        let mut pairs = Vec::new();
        // The last task that was noted for a number: a task that reads it twice is noted once.
        let mut noted = vec![None; lists];
        for task in self.indices() {
            for used in self.inputs(task).iter().filter_map(|input| number(*input)) {
                if noted[used] != Some(task) {
                    noted[used] = Some(task);
                    pairs.push((used, task));
                }
            }
        }
        Lists::from_pairs(lists, &pairs)
    }

    /// Dependencies before dependents, else by name.
    fn topological_order(&self) -> Result<Vec<TaskIndex>, GraphError> {
        let mut waiting: Vec<u32> = vec![0; self.len()];
        for index in self.indices() {
            for dependent in self.dependents(index) {
                waiting[dependent.at()] += 1;
            }
        }
        let mut free: BinaryHeap<Reverse<TaskIndex>> =
            self.indices().filter(|index| waiting[index.at()] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(index)) = free.pop() {
            order.push(index);
            for &dependent in self.dependents(index) {
                waiting[dependent.at()] -= 1;
                if waiting[dependent.at()] == 0 {
                    free.push(Reverse(dependent));
                }
            }
        }
        if order.len() == self.len() { Ok(order) } else { Err(GraphError::Cycle(self.find_cycle(&waiting))) }
    }

    /// A cycle among the tasks that still wait. Each of them waits for another one of them, so following these back
    /// comes to a task seen before.
    fn find_cycle(&self, waiting: &[u32]) -> Vec<Name> {
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
            at = self.dependencies(index).find(|next| waiting[next.at()] > 0);
        }
        // Against the arrows so far; turned round, each task feeds the next. The first by name goes first.
        path.reverse();
        if let Some(first) = (0..path.len()).min_by_key(|&at| path[at]) {
            path.rotate_left(first);
        }
        path.into_iter().map(|index| self.name(index).clone()).collect()
    }

    /// The tasks by number.
    pub(super) fn indices(&self) -> impl Iterator<Item = TaskIndex> + Clone + use<> {
        (0_u32..).map(TaskIndex).take(self.names.len())
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The tasks, dependencies before dependents.
    pub fn in_order(&self) -> impl DoubleEndedIterator<Item = TaskIndex> + '_ {
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
        find_output(&self.by_output, &self.outputs, dataset)
    }

    /// A task's object.
    pub(super) fn object(&self, task: TaskIndex) -> Hash {
        self.objects[task.at()]
    }

    /// The dataset that a task writes.
    pub(super) fn output(&self, task: TaskIndex) -> &DatasetPath {
        &self.outputs[task.at()]
    }

    /// What a task reads, in its order.
    pub(super) fn inputs(&self, task: TaskIndex) -> &[Input] {
        self.inputs.of(task.at())
    }

    /// For a task that runs once per entry: of which of its inputs.
    pub(crate) fn each(&self, task: TaskIndex) -> Option<usize> {
        if self.each.is_empty() { None } else { self.each.get(&task).copied() }
    }

    /// The tasks that a task waits for; one that it reads twice comes twice.
    pub(crate) fn dependencies(&self, task: TaskIndex) -> impl Iterator<Item = TaskIndex> + '_ {
        self.inputs(task).iter().filter_map(|input| match input {
            Input::Task(producer) => Some(*producer),
            Input::Root(_) => None,
        })
    }

    /// The tasks that wait for a task, each once, by number.
    pub(super) fn dependents(&self, task: TaskIndex) -> &[TaskIndex] {
        self.dependents.of(task.at())
    }

    /// The tasks that read a root input, each once, by number.
    pub(super) fn readers(&self, root: RootIndex) -> &[TaskIndex] {
        self.readers.of(root.at())
    }

    /// Where a task stands in the order.
    pub(super) fn position(&self, task: TaskIndex) -> u32 {
        self.positions[task.at()]
    }

    /// The root inputs that tasks read, by number.
    pub(super) fn roots(&self) -> &[DatasetPath] {
        &self.roots
    }

    /// The root input of that path, if a task reads it.
    pub(super) fn find_root(&self, path: &DatasetPath) -> Option<RootIndex> {
        find_root(&self.roots, path)
    }

    /// How a task is to be executed.
    pub fn policy(&self, task: TaskIndex) -> &TaskPolicy {
        &self.policies[self.policy_number(task)]
    }

    /// The policies of all tasks, each once.
    pub(super) fn policies(&self) -> &[TaskPolicy] {
        &self.policies
    }

    /// Which of the policies a task has.
    pub(super) fn policy_number(&self, task: TaskIndex) -> usize {
        self.policy_of[task.at()] as usize
    }
}

/// The root inputs that tasks read, by path, and where each dataset comes from that is written or read.
fn number_datasets<'a>(
    package: &'a Package,
    by_output: &[TaskIndex],
    outputs: &'a [DatasetPath],
) -> (Vec<DatasetPath>, HashMap<&'a DatasetPath, Input>) {
    let mut numbers = HashMap::with_capacity(package.datasets.len());
    numbers.extend(by_output.iter().map(|task| (&outputs[task.at()], Input::Task(*task))));
    let read: BTreeSet<&DatasetPath> = package
        .tasks
        .values()
        .flat_map(|task| &task.inputs)
        .filter(|path| !numbers.contains_key(*path))
        .collect();
    let known = read.into_iter().filter(|path| package.datasets.contains_key(*path));
    let mut roots = Vec::new();
    for (number, path) in (0_u32..).zip(known) {
        roots.push(path.clone());
        numbers.insert(path, Input::Root(RootIndex(number)));
    }
    (roots, numbers)
}

/// The tasks by the paths of their outputs, which are all different.
fn producers(names: &[Name], outputs: &[DatasetPath]) -> Result<Vec<TaskIndex>, GraphError> {
    let mut by_output: Vec<TaskIndex> = (0_u32..).map(TaskIndex).take(outputs.len()).collect();
    by_output.sort_by(|one, other| outputs[one.at()].cmp(&outputs[other.at()]));
    for pair in by_output.windows(2) {
        if outputs[pair[0].at()] == outputs[pair[1].at()] {
            let tasks = [names[pair[0].at()].clone(), names[pair[1].at()].clone()];
            return Err(GraphError::TwoProducers { dataset: outputs[pair[0].at()].clone(), tasks });
        }
    }
    Ok(by_output)
}

fn find_output(by_output: &[TaskIndex], outputs: &[DatasetPath], path: &DatasetPath) -> Option<TaskIndex> {
    let at = by_output.binary_search_by(|task| outputs[task.at()].cmp(path)).ok()?;
    Some(by_output[at])
}

fn find_root(roots: &[DatasetPath], path: &DatasetPath) -> Option<RootIndex> {
    let at = roots.binary_search(path).ok()?;
    u32::try_from(at).ok().map(RootIndex)
}

/// The policies of tasks, each kept once.
#[derive(Default)]
struct Policies {
    distinct: Vec<TaskPolicy>,
    numbers: HashMap<TaskPolicy, u32>,
    of_task: Vec<u32>,
    last: u32,
}

impl Policies {
    fn add(&mut self, policy: &TaskPolicy) {
        // Most often it is that of the task before.
        if self.distinct.get(self.last as usize) != Some(policy) {
            self.last = self.numbers.get(policy).copied().unwrap_or_else(|| {
                let next = u32::try_from(self.distinct.len()).expect("there are no more policies than tasks");
                self.distinct.push(policy.clone());
                self.numbers.insert(policy.clone(), next);
                next
            });
        }
        self.of_task.push(self.last);
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
                each: None,
                policy: TaskPolicy::usual(),
            };
            package.tasks.insert(name.parse().unwrap(), task);
        }
        package
    }

    #[test]
    fn order_and_who_waits_for_whom() {
        let graph = Graph::new(&package(
            &[("c", &["a", "b"], "c"), ("b", &["a"], "b"), ("a", &["x", "x"], "a")],
            &["x"],
        ));
        let graph = graph.unwrap();
        let order: Vec<_> = graph.in_order().map(|index| graph.name(index).as_str()).collect();
        assert_eq!(order, ["a", "b", "c"]);
        let waiting: Vec<_> = graph.in_order().map(|index| graph.dependents(index).len()).collect();
        assert_eq!(waiting, [2, 1, 0]);
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
