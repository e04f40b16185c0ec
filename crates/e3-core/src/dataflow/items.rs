//! Tasks that run once per entry of a folder: their entries become units when the folder is known.

use std::sync::Arc;

use e3_types::{Hash, ObjectRef};

use super::{
    action::Unit,
    graph::TaskIndex,
    state::{Dataflow, Phase},
};

/// One entry of a folder that a task runs for.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) task: TaskIndex,
    name: Arc<str>,
    /// The task object that is executed for it.
    pub(super) object: Hash,
    /// The entry's own object.
    pub(super) input: Hash,
}

/// An entry, for `Dataflow::expand`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemSpec {
    /// Its name in the folder.
    pub name: Arc<str>,
    /// The task object that is executed for it.
    pub object: Hash,
    /// The entry's own object.
    pub input: Hash,
}

/// The entries of one task, which are numbered one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expansion {
    first: u32,
    count: u32,
    /// How many are not done.
    left: u32,
    pub(super) failed: u32,
}

impl Expansion {
    pub(super) fn units(self) -> impl Iterator<Item = Unit> {
        (self.first..self.first + self.count).map(Unit)
    }
}

impl Dataflow {
    /// Says which entries there are for a task that waits for them, sorted by name.
    pub fn expand(&mut self, task: TaskIndex, entries: Vec<ItemSpec>) {
        if self.phases[task.at()] != Phase::Unexpanded {
            return;
        }
        let number = |count: usize| u32::try_from(count).expect("units are counted in 32 bits");
        let (first, count) = (number(self.phases.len()), number(entries.len()));
        self.expansions.insert(task, Expansion { first, count, left: count, failed: 0 });
        self.summary.total = self.summary.total + u64::from(count) - 1;
        self.phases[task.at()] = Phase::Expanded;
        for ItemSpec { name, object, input } in entries {
            let unit = Unit(number(self.phases.len()));
            self.items.push(Item { task, name, object, input });
            self.phases.push(Phase::Waiting);
            self.attempts.push(0);
            self.outputs.push(None);
            self.check(unit);
        }
        if count == 0 {
            self.assemble(task);
        }
    }

    /// The outputs of a task's entries by name, if all are done.
    pub fn item_outputs(&self, task: TaskIndex) -> Option<Vec<(Arc<str>, ObjectRef)>> {
        let output = |unit: Unit| Some((Arc::clone(&self.item(unit)?.name), self.outputs[unit.at()]?));
        self.expansions.get(&task)?.units().map(output).collect()
    }

    /// The units of a task's entries, if they are known.
    pub fn entries_of(&self, task: TaskIndex) -> Option<Vec<Unit>> {
        Some(self.expansions.get(&task)?.units().collect())
    }

    /// The name of the entry that a unit is about.
    pub fn item_name(&self, unit: Unit) -> Option<&Arc<str>> {
        self.item(unit).map(|item| &item.name)
    }

    /// The unit of a task, or of one of its entries.
    pub(super) fn find(&self, task: &e3_types::Name, item: Option<&str>) -> Option<Unit> {
        let task = self.graph.find(task)?;
        let Some(item) = item else { return Some(task.into()) };
        let Expansion { first, count, .. } = *self.expansions.get(&task)?;
        let start = first as usize - self.graph.len();
        let items = &self.items[start..start + count as usize];
        let at = items.binary_search_by(|other| (*other.name).cmp(item)).ok()?;
        Some(Unit(first + u32::try_from(at).ok()?))
    }

    /// The unit of an entry that runs for a folder which has changed. If there are several of that name, they differ in
    /// nothing that matters any more.
    pub(super) fn find_superseded(&self, task: &e3_types::Name, item: &str) -> Option<Unit> {
        let task = self.graph.find(task)?;
        let first = self.graph.len();
        let found = self.items.iter().zip(&self.phases[first..]).position(|(other, phase)| {
            other.task == task && *other.name == *item && matches!(phase, Phase::Superseded(_))
        });
        Some(Unit(u32::try_from(first + found?).ok()?))
    }

    pub(super) fn item(&self, unit: Unit) -> Option<&Item> {
        self.items.get(unit.at().checked_sub(self.graph.len())?)
    }

    /// Whether every entry of a task came from the cache.
    pub(super) fn is_cached(&self, task: TaskIndex) -> bool {
        let cached = |unit: Unit| self.phases[unit.at()] == Phase::Done { cached: true };
        self.expansions.get(&task).is_some_and(|expansion| expansion.units().all(cached))
    }

    /// One more entry of a task is done.
    pub(super) fn item_done(&mut self, task: TaskIndex) {
        let Some(expansion) = self.expansions.get_mut(&task) else { return };
        expansion.left -= 1;
        if expansion.left == 0 {
            self.assemble(task);
        }
    }

    /// One more entry of a task has failed; whether it is the first.
    pub(super) fn item_failed(&mut self, task: TaskIndex) -> bool {
        let Some(expansion) = self.expansions.get_mut(&task) else { return false };
        expansion.failed += 1;
        expansion.failed == 1
    }

    fn assemble(&mut self, task: TaskIndex) {
        self.phases[task.at()] = Phase::Unassembled;
        self.unassembled.push_back(task);
    }

    /// Forgets the entries of a task: what runs goes on for nobody.
    pub(super) fn forget_items(&mut self, task: TaskIndex, superseded: Phase) {
        let Some(expansion) = self.expansions.remove(&task) else { return };
        self.summary.total = self.summary.total + 1 - u64::from(expansion.count);
        for unit in expansion.units() {
            match self.phases[unit.at()] {
                Phase::Running(_) => {
                    self.phases[unit.at()] = superseded;
                    continue;
                }
                Phase::Done { cached } => self.uncount(cached),
                Phase::Failed => self.summary.failed -= 1,
                Phase::Backoff(_) => self.backing_off -= 1,
                _ => {}
            }
            self.phases[unit.at()] = Phase::Gone;
        }
    }

    /// What was completed is not any more.
    pub(super) fn uncount(&mut self, cached: bool) {
        let counted = if cached { &mut self.summary.cached } else { &mut self.summary.executed };
        *counted -= 1;
        self.summary.reexecuted += 1;
    }
}
