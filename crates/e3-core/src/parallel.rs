//! The same work for many things, on all cores.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    thread,
};

/// How many things one core takes at most in one go: what takes microseconds is not worth a lock for each.
const AT_ONCE: usize = 32;
/// Into so many goes the things of a core are divided, so that all cores end at about the same time.
const GOES: usize = 8;

/// Does `work` for each thing; the results are in the order of the things. After an error nothing new is begun, and the error that
/// belongs to the first of the things is returned.
pub fn for_each<Thing: Send, Made: Send, Error: Send>(
    things: Vec<Thing>,
    work: impl Fn(Thing) -> Result<Made, Error> + Sync,
) -> Result<Vec<Made>, Error> {
    let count = things.len();
    let cores = cores().min(count);
    if cores <= 1 {
        return things.into_iter().map(work).collect();
    }
    all_of(things.into_iter(), cores, (count / (cores * GOES)).clamp(1, AT_ONCE), work)
}

/// The same for things that are found one after the other, each worth a lock: while one is worked on, the next is found.
pub fn for_each_found<Thing: Send, Made: Send, Error: Send>(
    mut things: impl Iterator<Item = Thing> + Send,
    work: impl Fn(Thing) -> Result<Made, Error> + Sync,
) -> Result<Vec<Made>, Error> {
    let first: Vec<Thing> = things.by_ref().take(2).collect();
    let are_several = first.len() > 1;
    let (things, cores) = (first.into_iter().chain(things), cores());
    if are_several && cores > 1 { all_of(things, cores, 1, work) } else { things.map(work).collect() }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn all_of<Thing: Send, Made: Send, Error: Send>(
    things: impl Iterator<Item = Thing> + Send,
    cores: usize,
    at_once: usize,
    work: impl Fn(Thing) -> Result<Made, Error> + Sync,
) -> Result<Vec<Made>, Error> {
    // Each takes the next ones: one may take much longer than another.
    let expected = things.size_hint().0 / cores + 1;
    let left = Mutex::new(Some(things.enumerate()));
    let take_all = || {
        let mut made = Vec::with_capacity(expected);
        loop {
            let left = || left.lock().unwrap_or_else(PoisonError::into_inner);
            let next: Vec<_> = left().iter_mut().flatten().take(at_once).collect();
            if next.is_empty() {
                return made;
            }
            for (place, thing) in next {
                let done = work(thing);
                let failed = done.is_err();
                made.push((place, done));
                if failed {
                    *left() = None;
                    return made;
                }
            }
        }
    };
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> = (1..cores).map(|_| scope.spawn(take_all)).collect();
        let mut all = take_all();
        for thread in threads {
            match thread.join() {
                Ok(made) => all.extend(made),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, done)| done).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_error_wins() {
        let things: Vec<u32> = (0..1000).collect();
        assert_eq!(for_each(things.clone(), |thing| Ok::<_, ()>(thing * 2)).unwrap()[999], 1998);
        let none: Vec<u32> = for_each(Vec::<u32>::new(), Ok::<_, ()>).unwrap();
        assert!(none.is_empty());
        let failed = for_each(things.clone(), |thing| if thing >= 500 { Err(thing) } else { Ok(thing) });
        assert_eq!(failed, Err(500));
        for count in [0, 1, 2, 1000] {
            let found = for_each_found(things.iter().take(count), |thing| Ok::<_, ()>(thing * 2)).unwrap();
            assert!(found.into_iter().eq((0..1000).map(|thing| thing * 2).take(count)));
        }
        let failed =
            for_each_found(things.iter(), |&thing| if thing >= 500 { Err(thing) } else { Ok(thing) });
        assert_eq!(failed, Err(500));
    }
}
