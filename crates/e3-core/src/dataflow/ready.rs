//! `Ready`: what could run now, and what room there is for it.
//!
//! Work with the same demand shares a queue, so the cost of a start is in the number of different demands, not in the
//! number of tasks that wait. The first by rank that does not fit keeps its share: what it lacks, and every limited
//! resource but cpu that it needs, is not given to those behind it. So nothing that fits into the limits at all waits for
//! ever, and what needs nothing of the scarce runs on.
//!
//! A little is handed out ahead: what would come next if cores were all that it waits for.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    num::NonZeroUsize,
};

use e3_types::{Name, TaskPolicy};

use super::{
    action::Unit,
    graph::{Graph, TaskIndex},
};

/// The longest remaining path first, ties by number.
type Rank = (u64, Reverse<Unit>);

/// What is limited: cores first, then what the limits name.
#[derive(Debug)]
pub(super) struct Ready {
    classes: Vec<Class>,
    /// Which class a policy belongs to.
    of_policy: Vec<usize>,
    /// How much of each resource nobody uses.
    available: Vec<u64>,
    /// How much is handed out ahead at most.
    most_ahead: usize,
}

/// Everything with one demand.
#[derive(Debug)]
struct Class {
    demand: Demand,
    /// May hold work that is no longer waiting: whoever takes it out looks.
    queue: BinaryHeap<Rank>,
    /// What was handed out ahead, and has not been taken yet.
    ahead: Vec<Rank>,
}

impl Class {
    /// Forgets what waits no longer.
    fn tidy(&mut self, waits: impl Fn(Unit) -> bool) {
        self.ahead.retain(|(_, Reverse(unit))| waits(*unit));
        while self.queue.peek().is_some_and(|(_, Reverse(unit))| !waits(*unit)) {
            self.queue.pop();
        }
    }

    /// The first by rank.
    fn first(&self) -> Option<Rank> {
        self.ahead.iter().max().max(self.queue.peek()).copied()
    }

    fn take(&mut self, rank: Rank) {
        match self.ahead.iter().position(|other| *other == rank) {
            Some(place) => drop(self.ahead.swap_remove(place)),
            None => drop(self.queue.pop()),
        }
    }
}

/// How much of which limited resource, by its number.
type Demand = Vec<(usize, u64)>;

/// As many as may end at about the same time; each takes up a few files and some memory of the runner.
const MOST_AHEAD: usize = 8;

/// The number of the resource `cpu`.
const CPU: usize = 0;

/// The name of a resource whose limit is the number of slots.
pub(super) const CPU_NAME: &str = "cpu";

impl Ready {
    /// Nothing is ready yet. `slots` limits `cpu`, of which every task needs at least one and is content with all;
    /// resources without a limit are not looked at.
    pub(super) fn new(graph: &Graph, slots: NonZeroUsize, limits: &BTreeMap<Name, u64>) -> Self {
        let slots = slots.get() as u64;
        let limits: BTreeMap<&str, u64> = limits
            .iter()
            .map(|(name, limit)| (name.as_str(), *limit))
            .filter(|(name, _)| *name != CPU_NAME)
            .collect();
        let numbers: HashMap<&str, usize> = limits.keys().copied().zip(CPU + 1..).collect();
        let demand = |policy: &TaskPolicy| {
            let cpu = policy.resources.get(CPU_NAME).copied().unwrap_or(1).clamp(1, slots);
            let others = policy
                .resources
                .iter()
                .filter(|(_, amount)| **amount > 0)
                .filter_map(|(name, amount)| Some((*numbers.get(name.as_str())?, *amount)));
            let mut demand: Demand = std::iter::once((CPU, cpu)).chain(others).collect();
            demand.sort_unstable();
            demand
        };
        let mut classes: Vec<Class> = Vec::new();
        let mut known: HashMap<Demand, usize> = HashMap::new();
        let of_policy = graph.policies().iter().map(demand).map(|demand| {
            *known.entry(demand.clone()).or_insert_with(|| {
                classes.push(Class { demand, queue: BinaryHeap::new(), ahead: Vec::new() });
                classes.len() - 1
            })
        });
        let of_policy = of_policy.collect();
        let available = std::iter::once(slots).chain(limits.into_values()).collect();
        let most_ahead = MOST_AHEAD.min(usize::try_from(slots).unwrap_or(MOST_AHEAD));
        Self { classes, of_policy, available, most_ahead }
    }

    /// Adds work. Adding it twice does no harm.
    pub(super) fn push(&mut self, policy: usize, remaining: u64, unit: Unit) {
        self.classes[self.of_policy[policy]].queue.push((remaining, Reverse(unit)));
    }

    /// Takes what work with this policy needs.
    pub(super) fn take(&mut self, policy: usize) {
        for &(resource, amount) in &self.classes[self.of_policy[policy]].demand {
            // Less than there is only when a history of other limits is replayed.
            self.available[resource] = self.available[resource].wrapping_sub(amount);
        }
    }

    /// Gives it back.
    pub(super) fn give_back(&mut self, policy: usize) {
        for &(resource, amount) in &self.classes[self.of_policy[policy]].demand {
            self.available[resource] = self.available[resource].wrapping_add(amount);
        }
    }

    /// Takes out the first by rank that fits, among what `waits` still.
    pub(super) fn pop(&mut self, waits: impl Fn(Unit) -> bool) -> Option<Unit> {
        if self.available[CPU] == 0 {
            return None;
        }
        self.classes.iter_mut().for_each(|class| class.tidy(&waits));
        let (rank, class) = self.first_that_fits(self.available.clone(), Class::first)?;
        self.classes[class].take(rank);
        Some(rank.1.0)
    }

    /// Hands out ahead what would be taken out next if there were cores for it, unless that is enough already. It stays among
    /// what can be taken out.
    pub(super) fn next_ahead(&mut self, waits: impl Fn(Unit) -> bool) -> Option<Unit> {
        self.classes.iter_mut().for_each(|class| class.tidy(&waits));
        let ahead: usize = self.classes.iter().map(|class| class.ahead.len()).sum();
        if ahead >= self.most_ahead {
            return None;
        }
        let mut left = self.available.clone();
        left[CPU] = u64::MAX;
        for class in &self.classes {
            for (resource, amount) in class.demand.iter().filter(|(resource, _)| *resource != CPU) {
                left[*resource] = left[*resource].saturating_sub(amount * class.ahead.len() as u64);
            }
        }
        let (rank, class) = self.first_that_fits(left, |class| class.queue.peek().copied())?;
        let class = &mut self.classes[class];
        class.queue.pop();
        class.ahead.push(rank);
        Some(rank.1.0)
    }

    /// Which class has the first by rank that fits into what is `left`, of what each offers.
    fn first_that_fits(
        &self,
        mut left: Vec<u64>,
        offered: impl Fn(&Class) -> Option<Rank>,
    ) -> Option<(Rank, usize)> {
        let heads = self.classes.iter().map(offered).zip(0..);
        let mut heads: Vec<(Rank, usize)> =
            heads.filter_map(|(rank, number)| Some((rank?, number))).collect();
        heads.sort_unstable_by(|one, other| other.cmp(one));
        for (rank, number) in heads {
            let class = &self.classes[number];
            let fits = |left: &[u64], &(resource, amount): &(usize, u64)| left[resource] >= amount;
            if class.demand.iter().all(|need| fits(&left, need)) {
                return Some((rank, number));
            }
            for need in &class.demand {
                if need.0 != CPU || !fits(&left, need) {
                    left[need.0] = left[need.0].saturating_sub(need.1);
                }
            }
        }
        None
    }
}

/// How long the longest path from each task to the end takes, in milliseconds. A task that has never been timed counts
/// as the mean of those that have; if none has, the tasks of the path are counted.
pub(super) fn remaining(graph: &Graph, took: impl FnMut(TaskIndex) -> Option<u64>) -> Vec<u64> {
    let took: Vec<Option<u64>> = graph.indices().map(took).collect();
    let (timed, sum) =
        took.iter().flatten().fold((0_u64, 0_u64), |(n, sum), ms| (n + 1, sum.saturating_add(*ms)));
    // Even a task that takes no time makes a path longer.
    let unknown = sum.checked_div(timed).unwrap_or(1).max(1);
    let mut remaining = vec![0_u64; graph.len()];
    for task in graph.in_order().rev() {
        let below = graph.dependents(task).iter().map(|next| remaining[next.at()]).max().unwrap_or(0);
        remaining[task.at()] = below.saturating_add(took[task.at()].unwrap_or(unknown).max(1));
    }
    remaining
}
