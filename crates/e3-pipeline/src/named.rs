//! The inputs that a task names, each once, in the order in which it names them.

use std::collections::HashSet;

use e3_types::{Kind, Name};

use crate::model::{InputSpec, Pipeline};

/// So few names are compared one by one.
const FEW: usize = 16;

/// The inputs of a task: the names as the pipeline has them, so that a name is in memory once.
#[derive(Default)]
pub(crate) struct Named<'a> {
    list: Vec<(&'a Name, Kind)>,
    /// The same, when they are many.
    seen: HashSet<&'a Name>,
}

impl<'a> Named<'a> {
    /// Adds an input, unless it is among them.
    pub(crate) fn add(&mut self, (name, kind): (&'a Name, Kind)) {
        if self.contains(name) {
            return;
        }
        self.list.push((name, kind));
        if self.list.len() == FEW {
            self.seen.extend(self.list.iter().map(|(name, _)| name));
        } else if self.list.len() > FEW {
            self.seen.insert(name);
        }
    }

    pub(crate) fn contains(&self, name: &Name) -> bool {
        if self.list.len() < FEW {
            self.list.iter().any(|(other, _)| *other == name)
        } else {
            self.seen.contains(name)
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&'a Name, Kind)> + '_ {
        self.list.iter().copied()
    }
}

/// The input or task of that name, with the kind of what it holds or makes.
pub(crate) fn find<'a>(pipeline: &'a Pipeline, name: &str) -> Option<(&'a Name, Kind)> {
    let input = pipeline.inputs.get_key_value(name).map(|(name, input)| {
        let kind = match input.value {
            InputSpec::File(_) => Kind::File,
            InputSpec::Dir(_) => Kind::Dir,
            InputSpec::Json(_) => Kind::Json,
            InputSpec::Unassigned(kind) => kind,
        };
        (name, kind)
    });
    input.or_else(|| pipeline.tasks.get_key_value(name).map(|(name, task)| (name, task.kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once_however_many_there_are() {
        let names: Vec<Name> =
            (0..3 * FEW).map(|number| format!("n{}", number % (2 * FEW)).parse().unwrap()).collect();
        let mut named = Named::default();
        for (count, name) in names.iter().enumerate() {
            assert_eq!(named.contains(name), count >= 2 * FEW, "{name}");
            named.add((name, Kind::File));
            named.add((&names[0], Kind::Dir));
            assert!(named.contains(name));
        }
        let found: Vec<&Name> = named.iter().map(|(name, _)| name).collect();
        assert_eq!(found, names[..2 * FEW].iter().collect::<Vec<_>>());
    }
}
