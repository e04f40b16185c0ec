//! The loop of a run: does what the `Dataflow` asks for, and tells it what happened.

mod ahead;
mod outcome;
mod repair;

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use e3_types::{
    ErrorClass, Event, EventKind, Failure, Kind, Name, ObjectRef, RunReason, RunState, SkipReason,
};
use futures::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use ahead::Ahead;
use repair::Repairs;

use super::{
    action::{Action, Unit},
    changes::Changes,
    entries::{self, Entries},
    graph::{Graph, TaskIndex},
    journal::{Entry, Journal, Message},
    options::{DataflowError, DataflowOptions, RunReport, TaskFailure},
    publish::Publisher,
    settled,
    standing::Standing,
    state::Dataflow,
};
use crate::{
    Cancellation, ExecutionKey, Gate, Lease, Lookup, RefChange, RefError, Released, RunRecord, Source,
    StorageBackend, StorageError, TaskExecuteOptions, TaskResult, Unavailable, Uncommitted, lookup_many,
    step_back,
};

pub(super) struct Orchestrator<'a> {
    storage: &'a Arc<dyn StorageBackend>,
    options: &'a DataflowOptions,
    record: &'a mut RunRecord,
    graph: Arc<Graph>,
    /// What the run stands on.
    standing: Option<Box<Standing>>,
    flow: Dataflow,
    publisher: Publisher,
    changes: Changes,
    journal: Journal,
    seq: u64,
    work: JoinSet<(Unit, Report)>,
    /// What has given back its room before its end.
    released: (mpsc::Sender<Unit>, mpsc::Receiver<Unit>),
    /// How to stop what runs, all of it and each.
    running: Cancellation,
    each: HashMap<Unit, Cancellation>,
    /// The wait that counts, for each unit that is to be tried again.
    waits: HashMap<Unit, u64>,
    /// The kinds of the outputs of tasks that run once per entry.
    item_outputs: HashMap<TaskIndex, Kind>,
    /// How long the tasks took that were executed in this run, and how long each took the last time, by number; in
    /// milliseconds.
    durations: Vec<Option<u64>>,
    took: Vec<u64>,
    /// Whether an object turned out to be missing that was taken to be there.
    distrusts: bool,
    failures: Vec<(Unit, TaskFailure)>,
    ahead: Ahead,
    repairs: Repairs,
    /// Whether something may be looked up that was executed in this run.
    looks_back: bool,
    /// How long the executions of this run took together, in milliseconds.
    executed_ms: u64,
}

/// What a spawned piece of work reports.
enum Report {
    /// `early` is its gate, if that was closed when it ended.
    Result {
        attempt: u32,
        result: TaskResult,
        early: Option<Gate>,
    },
    RetryIsDue {
        wait: u64,
    },
    Rebuilt {
        result: TaskResult,
    },
}

impl<'a> Orchestrator<'a> {
    pub(super) async fn new(
        storage: &'a Arc<dyn StorageBackend>,
        options: &'a DataflowOptions,
        record: &'a mut RunRecord,
        flow: Dataflow,
        standing: Option<Box<Standing>>,
        counter: u64,
        journal: Journal,
    ) -> Result<Self, RefError> {
        let graph = Arc::clone(&flow.graph);
        let (storage_of_now, workspace) = (&**storage, &record.workspace);
        let (publisher, took) = match &standing {
            None => (Publisher::new(storage_of_now, &graph, workspace).await?, vec![0; graph.len()]),
            Some(standing) => {
                let publisher = Publisher::of(storage_of_now, &graph, workspace, standing.reached()).await?;
                let took = graph.indices().map(|task| standing.took_ms(task).unwrap_or_default());
                (publisher, took.collect())
            }
        };
        Ok(Self {
            changes: Changes::follow(storage, &record.workspace, counter, record.operation),
            running: options.cancellation.child(),
            released: mpsc::channel(2 * options.slots.get()),
            storage,
            options,
            record,
            graph,
            standing,
            flow,
            publisher,
            journal,
            seq: 0,
            work: JoinSet::new(),
            each: HashMap::new(),
            waits: HashMap::new(),
            item_outputs: HashMap::new(),
            durations: vec![None; took.len()],
            took,
            distrusts: false,
            failures: Vec::new(),
            ahead: Ahead::default(),
            repairs: Repairs::default(),
            looks_back: false,
            executed_ms: 0,
        })
    }

    pub(super) async fn run(mut self) -> Result<RunReport, DataflowError> {
        let result = self.run_to_the_end().await;
        if result.is_err() {
            // Whatever went wrong, no task is left behind.
            self.running.kill.cancel();
            while self.work.join_next().await.is_some() {}
        }
        result
    }

    async fn run_to_the_end(&mut self) -> Result<RunReport, DataflowError> {
        let started = EventKind::RunStarted {
            standing: self.flow.summary.cached,
            run: self.record.run,
            workspace: self.record.workspace.clone(),
            package: self.record.package.hash,
            total: self.graph.len() as u64,
        };
        self.happened(None, started, Vec::new()).await?;
        loop {
            if self.options.cancellation.is_requested() {
                self.flow.cancel();
            }
            match self.flow.next_action() {
                None => self.wait().await?,
                Some(Action::End { state }) => {
                    let settles = state == RunState::Completed && self.leaves_nothing_to_do();
                    // What was set before the end is part of the run.
                    if !self.flow.takes_changes() || !self.look_for_changes().await? {
                        return self.end(state, settles).await;
                    }
                }
                Some(action) => self.act(action).await?,
            }
        }
    }

    /// Whether a run like this one, if it completes, finds nothing to do for the next one.
    fn leaves_nothing_to_do(&self) -> bool {
        settled::covers_everything(self.options) && self.graph.policies().iter().all(|policy| policy.cache)
    }

    async fn act(&mut self, action: Action) -> Result<(), DataflowError> {
        match action {
            Action::Invalidate { task, because } => {
                if self.options.restart_on_change {
                    self.stop_superseded();
                }
                let event = EventKind::TaskInvalidated { task: self.name(task), because };
                self.happened(Some(task.into()), event, Vec::new()).await
            }
            Action::Defer { task, because } => {
                let event = EventKind::TaskDeferred { task: self.name(task), because };
                self.happened(Some(task.into()), event, Vec::new()).await
            }
            Action::Skip { task, because } => self.skip(task, because).await,
            Action::Expand { task } => self.expand(task).await,
            Action::Assemble { task, cached } => self.assemble(task, cached).await,
            Action::Look { units } => self.look(&units).await,
            Action::Prepare { unit } => {
                self.prepare(unit);
                Ok(())
            }
            Action::Start { unit, attempt, because } => self.start(unit, attempt, because).await,
            Action::CancelRunning => {
                self.running.stop.cancel();
                Ok(())
            }
            Action::End { .. } => Ok(()),
        }
    }

    /// Applies an event and hands it to the journal.
    async fn happened(
        &mut self,
        unit: Option<Unit>,
        kind: EventKind,
        changes: Vec<RefChange>,
    ) -> Result<(), DataflowError> {
        self.happened_with(unit, kind, changes, None).await
    }

    async fn happened_with(
        &mut self,
        unit: Option<Unit>,
        kind: EventKind,
        changes: Vec<RefChange>,
        lease: Option<Arc<Lease>>,
    ) -> Result<(), DataflowError> {
        let event = Event { seq: self.seq, at: self.options.clock.now(), kind };
        self.seq += 1;
        self.flow.apply_to(unit, &event);
        let sent = self.journal.send(Message::Entry(Entry { event, changes, lease })).await;
        sent.map_err(|_| self.journal_stopped())
    }

    /// Waits until everything that has happened is recorded.
    async fn flush(&self) -> Result<(), DataflowError> {
        let (tell, told) = oneshot::channel();
        self.journal.send(Message::Flush(tell)).await.map_err(|_| self.journal_stopped())?;
        told.await.map_err(|_| self.journal_stopped())
    }

    fn journal_stopped(&self) -> DataflowError {
        self.interrupted(Unavailable::new("writing the events of the run", "the journal has stopped"))
    }

    fn interrupted(&self, source: impl Into<StorageError>) -> DataflowError {
        DataflowError::Interrupted { run: self.record.run, source: source.into() }
    }

    fn name(&self, task: TaskIndex) -> Name {
        self.graph.name(task).clone()
    }

    fn name_of(&self, unit: Unit) -> (Name, Option<Arc<str>>) {
        (self.name(self.flow.task_of(unit)), self.flow.item_name(unit).cloned())
    }

    async fn skip(&mut self, task: TaskIndex, because: SkipReason) -> Result<(), DataflowError> {
        let event = EventKind::TaskSkipped { task: self.name(task), because };
        self.happened(Some(task.into()), event, Vec::new()).await
    }

    /// Takes in what was done to the workspace; whether anything in it concerns this run.
    async fn look_for_changes(&mut self) -> Result<bool, DataflowError> {
        let changed = self.changes.take(&**self.storage).await.map_err(|error| self.interrupted(error))?;
        let mut concerned = false;
        for (dataset, object) in changed {
            if self.graph.find_root(&dataset).is_some_and(|root| self.flow.roots[root.at()] != object) {
                (concerned, self.looks_back) = (true, true);
                self.happened(None, EventKind::InputChanged { dataset, object }, Vec::new()).await?;
            }
        }
        Ok(concerned)
    }

    fn stop_superseded(&mut self) {
        for (unit, cancellation) in &self.each {
            if self.flow.is_superseded(*unit) {
                cancellation.stop.cancel();
            }
        }
    }

    async fn expand(&mut self, task: TaskIndex) -> Result<(), DataflowError> {
        let Some((object, folder)) = self.flow.folder_of(task) else { return Ok(()) };
        let found = entries::entries(&**self.storage, object, folder).await;
        match found.map_err(|error| self.interrupted(error))? {
            Ok(Entries { items, objects, output }) => {
                let objects = objects.into_iter().map(Source::Bytes).collect();
                self.storage.objects().put_many(objects).await.map_err(|error| self.interrupted(error))?;
                self.item_outputs.insert(task, output);
                let event = EventKind::TaskExpanded { task: self.name(task), items: items.len() as u64 };
                self.happened(Some(task.into()), event, Vec::new()).await?;
                self.flow.expand(task, items);
                Ok(())
            }
            Err(failure) => self.failed(task.into(), 1, None, failure, Uncommitted::default()).await,
        }
    }

    async fn assemble(&mut self, task: TaskIndex, cached: bool) -> Result<(), DataflowError> {
        let (Some(outputs), Some(&kind)) = (self.flow.item_outputs(task), self.item_outputs.get(&task))
        else {
            return Ok(());
        };
        let folder = entries::folder(outputs, kind);
        let output = ObjectRef::of(&folder);
        let stored = self.storage.objects().put_many(vec![Source::Bytes(folder)]).await;
        stored.map_err(|error| self.interrupted(error))?;
        let because = None;
        self.completed(task.into(), because, (None, output), cached, 0, Uncommitted::default()).await
    }

    async fn look(&mut self, units: &[Unit]) -> Result<(), DataflowError> {
        if self.looks_back {
            self.flush().await?;
        }
        let keys: Vec<_> = units.iter().map(|unit| self.key(*unit)).collect();
        let answers = lookup_many(&**self.storage, &keys).await.map_err(|error| self.interrupted(error))?;
        for (&unit, answer) in units.iter().zip(answers) {
            match answer {
                Lookup::Hit(TaskResult { outcome: Ok(output), execution, took_ms, .. })
                    if self.flow.is_unchecked(unit) =>
                {
                    let nothing = Uncommitted::default();
                    self.completed(unit, None, (execution, output), true, took_ms, nothing).await?;
                }
                Lookup::Miss(because) => self.flow.missed(unit, because),
                Lookup::Hit(_) => {}
            }
        }
        Ok(())
    }

    fn key(&self, unit: Unit) -> ExecutionKey {
        let (task, inputs) = self.flow.key(unit);
        ExecutionKey::new(task, &inputs)
    }

    async fn start(&mut self, unit: Unit, attempt: u32, because: RunReason) -> Result<(), DataflowError> {
        let (task, item) = self.name_of(unit);
        tracing::debug!(task = %task, attempt, "starting");
        let event = EventKind::TaskStarted { task, item, attempt, because };
        self.happened(Some(unit), event, Vec::new()).await?;
        if self.start_prepared(unit, attempt) {
            // It has waited for this; whatever comes next can wait a moment for it.
            step_back().await;
        } else {
            let cancellation = self.execute(unit, attempt, None);
            self.follow(unit, cancellation);
        }
        Ok(())
    }

    /// Hands a unit to the runner: one that has been started, or one that will be when its gate is opened. Returns how to stop it.
    fn execute(&mut self, unit: Unit, attempt: u32, gate: Option<Gate>) -> Cancellation {
        let force = self.flow.uncached(unit).is_some();
        let (tell, waits) = (self.released.0.clone(), self.ahead.waits());
        // Should there be no room to tell it, its end tells it as well.
        let released: Released = Arc::new(move || {
            let _is_told = tell.try_send(unit);
            waits.load(Ordering::Relaxed)
        });
        let options = TaskExecuteOptions {
            force,
            attempt,
            defer_records: true,
            released: Some(released),
            gate: gate.clone(),
            ..self.execute_options(unit)
        };
        let cancellation = options.cancellation.clone();
        self.hand_over(unit, options, move |result| {
            let early = gate.filter(|gate| !gate.is_open());
            Report::Result { attempt, result, early }
        });
        cancellation
    }

    /// Remembers how to stop what has been started, if that may have to be.
    fn follow(&mut self, unit: Unit, cancellation: Cancellation) {
        if self.options.restart_on_change {
            self.each.insert(unit, cancellation);
        }
    }

    /// How a unit is executed, whatever it is executed for.
    fn execute_options(&self, unit: Unit) -> TaskExecuteOptions {
        let (task, item) = self.name_of(unit);
        let policy = self.graph.policy(self.flow.task_of(unit));
        TaskExecuteOptions {
            label: label(&self.record.workspace, &task, item.as_deref()),
            timeout: policy.timeout_ms.map(Duration::from_millis),
            limits: policy.limits,
            sandbox: policy.sandbox,
            cancellation: self.running.child(),
            ..TaskExecuteOptions::default()
        }
    }

    fn hand_over(
        &mut self,
        unit: Unit,
        options: TaskExecuteOptions,
        report: impl FnOnce(TaskResult) -> Report + Send + 'static,
    ) {
        let (object, inputs) = self.flow.key(unit);
        let (runner, storage) = (Arc::clone(&self.options.runner), Arc::clone(self.storage));
        self.work.spawn(async move {
            let execution =
                AssertUnwindSafe(runner.execute(&*storage, object, &inputs, options)).catch_unwind();
            (unit, report(execution.await.unwrap_or_else(|panic| panicked(&*panic))))
        });
    }

    /// Waits until something ends, a retry is due, an input changes, or the run is to stop.
    async fn wait(&mut self) -> Result<(), DataflowError> {
        let cancellation = self.options.cancellation.clone();
        let (cancelled, takes_changes) = (self.flow.is_cancelled(), self.flow.takes_changes());
        let joined = tokio::select! {
            biased;
            Some(joined) = self.work.join_next() => joined,
            Some(unit) = self.released.1.recv() => {
                self.flow.release(unit);
                return Ok(());
            }
            () = cancellation.requested(), if !cancelled => return Ok(()),
            changed = self.changes.wait(), if takes_changes => {
                changed.map_err(|error| self.interrupted(error))?;
                return self.look_for_changes().await.map(drop);
            }
            () = self.journal.closed() => {
                return Err(self.interrupted(Unavailable::new("waiting for the run", "its journal has stopped")));
            }
        };
        self.joined(joined).await?;
        while let Some(joined) = self.work.try_join_next() {
            self.joined(joined).await?;
        }
        Ok(())
    }

    async fn joined(
        &mut self,
        joined: Result<(Unit, Report), tokio::task::JoinError>,
    ) -> Result<(), DataflowError> {
        // What has been released is told before it ends, so that none of this is about what comes after.
        while let Ok(unit) = self.released.1.try_recv() {
            self.flow.release(unit);
        }
        // Panics are caught inside, and nothing is aborted before the end.
        let lost =
            |error: tokio::task::JoinError| self.interrupted(Unavailable::new("waiting for a task", error));
        match joined.map_err(lost)? {
            (unit, Report::RetryIsDue { wait }) => {
                if self.waits.get(&unit) == Some(&wait) {
                    self.waits.remove(&unit);
                    self.flow.retry_is_due(unit);
                }
                Ok(())
            }
            (unit, Report::Result { attempt, early: Some(gate), .. }) => {
                self.ended_early(unit, attempt, &gate);
                Ok(())
            }
            (unit, Report::Result { attempt, result, .. }) => self.ended(unit, attempt, result).await,
            (unit, Report::Rebuilt { result }) => self.rebuilt(unit, result).await,
        }
    }
}

fn label(workspace: &e3_types::WorkspaceName, task: &Name, item: Option<&str>) -> String {
    item.map_or_else(|| format!("{workspace}/{task}"), |item| format!("{workspace}/{task}[{item}]"))
}

/// A runner that panics has a defect; the run goes on and says so.
fn panicked(panic: &(dyn std::any::Any + Send)) -> TaskResult {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!(
        "the runner panicked: {}; please report this as a defect of e3",
        text.unwrap_or("no message")
    );
    TaskResult::without_execution(Failure::Error { class: ErrorClass::Internal, message })
}
