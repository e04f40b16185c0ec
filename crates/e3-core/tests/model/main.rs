//! The dataflow against a model: random graphs, outcomes, changes, cancellations and crashes, checked after every step.
//!
//! A failure prints the smallest case that was found and its seed, which goes to `proptest-regressions` and is tried
//! first from then on.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails ends the test")]

mod world;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::Arc,
};

use e3_core::{Action, Dataflow, DataflowPolicy, Graph, ItemSpec, OnFailure, TaskIndex, Unit, UnitState};
use e3_types::{Event, EventKind, ExecutionId, Failure, Hash, ObjectRef, RunReason, RunState, Timestamp};
use proptest::{prelude::*, test_runner::Config};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::world::{Entries, LICENSES, Outcome, ROOTS, Reads, SLOTS, World, folder};

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// What the dataflow asks for is done.
    Act,
    /// One of those that run ends.
    Finish(usize),
    /// One of those that run gives back its room before its end.
    Release(usize),
    /// One of those that wait for their next attempt has waited long enough.
    RetryIsDue(usize),
    /// An input gets another value, or none.
    Set(usize, Option<u8>),
    /// The run is to stop.
    Cancel,
    /// The process dies, or the run has ended: another one begins.
    Restart,
}

struct Model;

impl ReferenceStateMachine for Model {
    type State = World;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<World> {
        World::any().boxed()
    }

    fn transitions(_: &World) -> BoxedStrategy<Step> {
        prop_oneof![
            12 => Just(Step::Act),
            6 => any::<usize>().prop_map(Step::Finish),
            3 => any::<usize>().prop_map(Step::Release),
            2 => any::<usize>().prop_map(Step::RetryIsDue),
            4 => (0..ROOTS, prop::option::weighted(0.9, any::<u8>())).prop_map(|(root, value)| Step::Set(root, value)),
            1 => Just(Step::Cancel),
            1 => Just(Step::Restart),
        ]
        .boxed()
    }

    fn apply(mut world: World, step: &Step) -> World {
        if let Step::Set(root, value) = step {
            world.roots[*root] = *value;
        }
        world
    }
}

/// A dataflow with a cache, and a loop around it whose every step is somebody else's.
struct Run {
    graph: Arc<Graph>,
    live: Dataflow,
    /// Is told the events and the facts, and never asked: what the events alone make of it.
    fold: Dataflow,
    events: u64,
    running: Vec<(Unit, u32, ObjectRefs)>,
    /// Which of them use no room any more.
    released: Vec<Unit>,
    waiting: Vec<Unit>,
    cache: HashMap<ObjectRefs, ObjectRef>,
    folders: HashMap<Hash, Entries>,
    cancelled: bool,
    /// An input has changed since it was cancelled.
    is_behind: bool,
    ended: Option<RunState>,
}

/// The task object and the inputs of an execution.
type ObjectRefs = (Hash, Vec<Hash>);

impl Run {
    fn new(world: &World, cache: HashMap<ObjectRefs, ObjectRef>) -> Self {
        let graph = Arc::new(Graph::new(&world.package()).unwrap());
        let policy = DataflowPolicy {
            slots: NonZeroUsize::new(SLOTS).unwrap(),
            limits: BTreeMap::from([("license".parse().unwrap(), LICENSES)]),
            on_failure: world.on_failure,
        };
        let roots: BTreeMap<String, _> =
            (0..ROOTS).map(|root| (World::root_name(root), world.root(root))).collect();
        let flow = || {
            let root = |path: &e3_types::DatasetPath| roots[path.as_str()];
            Dataflow::new(&graph, &policy, root, |_| None, |_| None)
        };
        let (live, fold) = (flow(), flow());
        let mut run = Self {
            graph,
            live,
            fold,
            events: 0,
            running: Vec::new(),
            released: Vec::new(),
            waiting: Vec::new(),
            cache,
            folders: HashMap::new(),
            cancelled: false,
            is_behind: false,
            ended: None,
        };
        run.learn(world);
        let (run_id, workspace) = (e3_types::RunId::from_parts(0, [0; 10]), "main".parse().unwrap());
        let total = run.graph.len() as u64;
        run.tell(EventKind::RunStarted {
            run: run_id,
            workspace,
            package: Hash::of(b""),
            total,
            standing: 0,
        });
        run
    }

    fn learn(&mut self, world: &World) {
        if let Some(value) = world.roots[0] {
            let entries = World::entries(value);
            self.folders.insert(folder(&entries).hash, entries);
        }
    }

    /// An event, through its text as a reader of the journal sees it.
    fn tell(&mut self, kind: EventKind) {
        self.tell_of(None, kind);
    }

    fn tell_of(&mut self, unit: Option<Unit>, kind: EventKind) {
        let event = Event { seq: self.events, at: Timestamp::default(), kind };
        self.events += 1;
        match unit {
            Some(unit) => self.live.apply_to(Some(unit), &event),
            None => self.live.apply(&event),
        }
        let text = serde_json::to_string(&event).unwrap();
        self.fold.apply(&serde_json::from_str(&text).unwrap());
    }

    fn number(&self, task: TaskIndex) -> usize {
        self.graph.name(task).as_str()[1..].parse().unwrap()
    }

    fn names(&self, unit: Unit) -> (e3_types::Name, Option<Arc<str>>) {
        (self.graph.name(self.live.task_of(unit)).clone(), self.live.item_name(unit).cloned())
    }

    fn completed(&mut self, unit: Unit, output: ObjectRef, cached: bool) {
        let (task, item) = self.names(unit);
        let superseded = self.live.is_superseded(unit);
        let execution = Some(ExecutionId::from_parts(0, [0; 10]));
        let because = None;
        let took_ms = 1;
        self.tell_of(
            Some(unit),
            EventKind::TaskCompleted { task, item, execution, output, cached, because, took_ms, superseded },
        );
    }

    fn act(&mut self, world: &World) -> bool {
        let Some(action) = self.live.next_action() else { return false };
        match action {
            Action::Invalidate { task, because } => {
                self.tell(EventKind::TaskInvalidated { task: self.graph.name(task).clone(), because });
            }
            Action::Defer { task, because } => {
                self.tell(EventKind::TaskDeferred { task: self.graph.name(task).clone(), because });
            }
            Action::Skip { task, because } => {
                self.tell(EventKind::TaskSkipped { task: self.graph.name(task).clone(), because });
            }
            Action::Expand { task } => self.expand(task),
            Action::Assemble { task, cached } => {
                let outputs = self.live.item_outputs(task).unwrap();
                let object = folder(&outputs);
                self.folders.insert(object.hash, outputs);
                self.completed(task.into(), object, cached);
            }
            Action::Look { units } => {
                for unit in units {
                    match self.cache.get(&self.live.key(unit)).copied() {
                        Some(output) if self.live.is_unchecked(unit) => self.completed(unit, output, true),
                        Some(_) => {}
                        None => {
                            self.live.missed(unit, RunReason::NoResult);
                            self.fold.missed(unit, RunReason::NoResult);
                        }
                    }
                }
            }
            Action::Prepare { unit } => {
                assert_eq!(self.live.state(unit), UnitState::Pending, "it is to be started later");
                assert!(!self.live.is_stopping(), "what is not started is not prepared");
                self.live.key(unit);
            }
            Action::Start { unit, attempt, because } => {
                let key = self.live.key(unit);
                self.check_start(world, unit, &key.1);
                let (task, item) = self.names(unit);
                self.tell(EventKind::TaskStarted { task, item, attempt, because });
                self.running.push((unit, attempt, key));
            }
            Action::CancelRunning => {
                self.released.clear();
                for (unit, attempt, _) in std::mem::take(&mut self.running) {
                    self.failed(unit, attempt, Failure::Cancelled);
                }
            }
            Action::End { state } => {
                let summary = self.live.summary(Timestamp::default());
                self.tell(EventKind::RunEnded { state, summary });
                self.ended = Some(state);
            }
        }
        true
    }

    fn expand(&mut self, task: TaskIndex) {
        let (number, key) = (self.number(task), self.live.key(task.into()));
        let entries = self.folders[&key.1[0]].clone();
        let object = World::item_object(number);
        let items: Vec<_> =
            entries.into_iter().map(|(name, entry)| ItemSpec { name, object, input: entry.hash }).collect();
        self.tell(EventKind::TaskExpanded { task: self.graph.name(task).clone(), items: items.len() as u64 });
        self.live.expand(task, items.clone());
        self.fold.expand(task, items);
    }

    /// What starts has every input, and each is what the inputs of now make of it.
    fn check_start(&self, world: &World, unit: Unit, inputs: &[Hash]) {
        let outcomes = world.evaluate();
        let sketch = &world.tasks[self.number(self.live.task_of(unit))];
        let is_item = self.live.item_name(unit).is_some();
        for (at, (read, input)) in sketch.reads.iter().zip(inputs).enumerate() {
            let current = match *read {
                Reads::Root(root) => world.root(root),
                Reads::Task(task) => match &outcomes[task] {
                    Outcome::Done(output) => Some(*output),
                    other => panic!("starts on the output of a task that is {other:?} on the inputs of now"),
                },
            };
            let current = current.unwrap();
            if is_item && at == 0 {
                let entries = &self.folders[&current.hash];
                assert!(entries.iter().any(|(_, entry)| entry.hash == *input), "an entry that is there now");
            } else {
                assert_eq!(*input, current.hash, "started on an old version of {read:?}");
            }
        }
    }

    fn finish(&mut self, world: &World, which: usize) {
        if self.running.is_empty() {
            return;
        }
        let (unit, attempt, key) = self.running.remove(which % self.running.len());
        self.released.retain(|other| *other != unit);
        let number = self.number(self.live.task_of(unit));
        match world.make(number, &key.1) {
            Some(output) => {
                self.cache.insert(key, output);
                self.completed(unit, output, false);
            }
            None => self.failed(unit, attempt, Failure::Exit { code: 1 }),
        }
    }

    fn failed(&mut self, unit: Unit, attempt: u32, failure: Failure) {
        let (task, item) = self.names(unit);
        let superseded = self.live.is_superseded(unit);
        let execution = ExecutionId::from_parts(0, [0; 10]);
        let retries = world_retries(&self.graph, self.live.task_of(unit));
        if retries && attempt == 1 && failure != Failure::Cancelled && !superseded && !self.live.is_stopping()
        {
            self.waiting.push(unit);
            let retry_in_ms = 1;
            self.tell(EventKind::AttemptFailed { task, item, attempt, execution, failure, retry_in_ms });
            return;
        }
        self.tell_of(
            Some(unit),
            EventKind::TaskFailed { task, item, attempt, execution: Some(execution), failure, superseded },
        );
    }

    fn release(&mut self, which: usize) {
        if self.running.is_empty() {
            return;
        }
        let unit = self.running[which % self.running.len()].0;
        self.live.release(unit);
        if self.released.len() < SLOTS && !self.released.contains(&unit) {
            self.released.push(unit);
        }
    }

    fn retry_is_due(&mut self, which: usize) {
        if !self.waiting.is_empty() {
            let unit = self.waiting.remove(which % self.waiting.len());
            self.live.retry_is_due(unit);
            self.fold.retry_is_due(unit);
        }
    }

    fn set(&mut self, world: &World, root: usize) {
        self.learn(world);
        self.is_behind |= self.cancelled;
        if self.ended.is_none() && !self.cancelled {
            let dataset = World::root_name(root).parse().unwrap();
            self.tell(EventKind::InputChanged { dataset, object: world.root(root) });
        }
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        self.live.cancel();
        self.fold.cancel();
    }

    /// Lets everything take its course.
    fn go_on_to_the_end(&mut self, world: &World) {
        for _ in 0..10_000 {
            if self.ended.is_some() {
                assert!(self.running.is_empty(), "nothing is left behind");
                return;
            }
            if !self.act(world) {
                if self.running.is_empty() {
                    assert!(!self.waiting.is_empty(), "it waits for nothing: {:?}", self.live);
                    self.retry_is_due(0);
                } else {
                    self.finish(world, 0);
                }
            }
            self.check(world);
        }
        panic!("the run does not end");
    }

    fn check(&self, world: &World) {
        let used = |amount: fn(&world::Sketch) -> u64| -> u64 {
            self.running
                .iter()
                .filter(|(unit, ..)| !self.released.contains(unit))
                .map(|(unit, ..)| amount(&world.tasks[self.number(self.live.task_of(*unit))]))
                .sum()
        };
        assert!(used(|task| task.cpu.min(SLOTS as u64)) <= SLOTS as u64, "cores");
        assert!(used(|task| task.licenses) <= LICENSES, "licenses");
        for unit in self.live.units() {
            match (self.live.state(unit), self.fold.state(unit)) {
                // Of several superseded units of one entry, it does not matter which has ended.
                (UnitState::Superseded | UnitState::Gone, UnitState::Superseded | UnitState::Gone)
                    if self.live.item_name(unit).is_some() => {}
                (live, fold) => assert_eq!(live, fold, "{unit:?}: state is the fold of the events"),
            }
        }
        let superseded = |flow: &Dataflow| flow.units().filter(|unit| flow.is_superseded(*unit)).count();
        assert_eq!(superseded(&self.live), superseded(&self.fold));
        assert_eq!(self.live.summary(Timestamp::default()), self.fold.summary(Timestamp::default()));
    }

    /// What is done is what the reference makes of the inputs of now; if nothing stopped the run, so is the rest.
    fn check_end(&self, world: &World, is_undisturbed: bool) {
        let outcomes = world.evaluate();
        let mut complete = true;
        for task in self.graph.in_order() {
            let expected = &outcomes[self.number(task)];
            complete &= matches!(expected, Outcome::Done(_));
            let found = match self.live.state(task.into()) {
                UnitState::Done(output) => Outcome::Done(output),
                UnitState::Failed => Outcome::Failed,
                UnitState::Skipped(_) => Outcome::Skipped,
                UnitState::Pending if world.tasks[self.number(task)].each => Outcome::Failed,
                other if is_undisturbed => panic!("{} ended as {other:?}", self.graph.name(task)),
                _ => continue,
            };
            if is_undisturbed || matches!(found, Outcome::Done(_)) {
                assert_eq!(found, *expected, "{}", self.graph.name(task));
            }
        }
        let summary = self.live.summary(Timestamp::default());
        if self.ended == Some(RunState::Completed) {
            assert!(complete);
            assert_eq!(summary.executed + summary.cached, summary.total);
        }
        if is_undisturbed {
            assert_eq!(self.ended == Some(RunState::Completed), complete);
        }
    }
}

fn world_retries(graph: &Graph, task: TaskIndex) -> bool {
    graph.policy(task).retries.is_some()
}

impl StateMachineTest for Run {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(world: &World) -> Self {
        Self::new(world, HashMap::new())
    }

    fn apply(mut run: Self, world: &World, step: Step) -> Self {
        match step {
            Step::Act => drop(run.ended.is_none() && run.act(world)),
            Step::Finish(which) => run.finish(world, which),
            Step::Release(which) => run.release(which),
            Step::RetryIsDue(which) => run.retry_is_due(which),
            Step::Set(root, _) => run.set(world, root),
            Step::Cancel => run.cancel(),
            Step::Restart => run = Self::new(world, run.cache),
        }
        run
    }

    fn check_invariants(run: &Self, world: &World) {
        run.check(world);
    }

    fn teardown(mut run: Self, world: World) {
        let was_open = run.ended.is_none();
        run.go_on_to_the_end(&world);
        if was_open && !run.is_behind {
            run.check_end(&world, !run.cancelled && world.on_failure == OnFailure::KeepGoing);
        }
        // Whatever has happened, the next run ends like one that nothing has happened to.
        let world = World { on_failure: OnFailure::KeepGoing, ..world };
        let mut resumed = Self::new(&world, run.cache);
        resumed.go_on_to_the_end(&world);
        resumed.check_end(&world, true);
        let mut undisturbed = Self::new(&world, HashMap::new());
        undisturbed.go_on_to_the_end(&world);
        undisturbed.check_end(&world, true);
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 5_000, ..Config::default() })]

    #[test]
    fn short_stories_go_as_the_model_says(sequential 1..30 => Run);

    #[test]
    fn long_stories_go_as_the_model_says(sequential 30..80 => Run);
}
