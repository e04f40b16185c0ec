//! `Lists`: many short lists in one array.

/// A list for each number from 0, in two arrays instead of one allocation each.
#[derive(Debug)]
pub(super) struct Lists<T> {
    /// Where the list of a number begins; the next one begins where it ends.
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { starts: vec![0], items: Vec::new() }
    }
}

impl<T: Copy> Lists<T> {
    /// No list yet, with room for so many.
    pub(super) fn with_capacity(lists: usize) -> Self {
        let mut starts = Vec::with_capacity(lists + 1);
        starts.push(0);
        Self { starts, items: Vec::new() }
    }

    /// Adds to the list that is being made.
    pub(super) fn add(&mut self, item: T) {
        self.items.push(item);
    }

    /// Ends the list that is being made; the next `add` begins another one. False if there is no number for it.
    #[must_use]
    pub(super) fn end_list(&mut self) -> bool {
        let end = u32::try_from(self.items.len());
        self.starts.push(end.unwrap_or(u32::MAX));
        end.is_ok()
    }

    /// The lists that the pairs (number, item) make, each in the order of the pairs.
    pub(super) fn from_pairs(lists: usize, pairs: &[(usize, T)]) -> Self {
        let mut starts = vec![0_u32; lists + 1];
        for (list, _) in pairs {
            starts[list + 1] += 1;
        }
        for list in 0..lists {
            starts[list + 1] += starts[list];
        }
        let mut items: Vec<Option<T>> = vec![None; starts[lists] as usize];
        let mut next = starts.clone();
        for &(list, item) in pairs {
            items[next[list] as usize] = Some(item);
            next[list] += 1;
        }
        Self { starts, items: items.into_iter().flatten().collect() }
    }

    /// The list of a number.
    pub(super) fn of(&self, list: usize) -> &[T] {
        &self.items[self.starts[list] as usize..self.starts[list + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_items_apart() {
        let lists = Lists::from_pairs(3, &[(2, 'x'), (0, 'a'), (2, 'y')]);
        assert_eq!([lists.of(0), lists.of(1), lists.of(2)], [&['a'][..], &[], &['x', 'y']]);
        let mut lists = Lists::with_capacity(2);
        lists.add(1);
        lists.add(2);
        assert!(lists.end_list() && lists.end_list());
        assert_eq!([lists.of(0), lists.of(1)], [&[1, 2][..], &[]]);
    }
}
