//! What came of a unit, and of the run: the events that tell it, and the records that belong to them.

use std::{collections::BTreeMap, time::Duration};

use e3_types::{
    ErrorClass, EventKind, ExecutionId, Failure, Hash, ObjectRef, RunReason, RunState, RunSummary,
};

use super::{Orchestrator, Report};
use crate::{
    HistoryRecord, RefChange, StorageError, TaskResult, Uncommitted,
    dataflow::{
        action::{Unit, UnitState},
        graph::TaskIndex,
        options::{DataflowError, RunReport, TaskFailure},
        publish::Published,
        settled::{self, Settled},
        standing::{self, Cell},
    },
    history, runs,
};

/// How many outputs are looked at in one request at the end.
const LOOK_AT_ONCE: usize = 8192;

impl Orchestrator<'_> {
    pub(super) async fn ended(
        &mut self,
        unit: Unit,
        attempt: u32,
        result: TaskResult,
    ) -> Result<(), DataflowError> {
        self.each.remove(&unit);
        let TaskResult { outcome, cached, execution, took_ms, notes, uncommitted } = result;
        for note in notes {
            let (task, item) = self.name_of(unit);
            self.happened(Some(unit), EventKind::TaskNoted { task, item, note }, Vec::new()).await?;
        }
        if let Err(Failure::InputMissing { input, object, .. }) = &outcome
            && self.mend(unit, attempt, *input, *object).await?
        {
            return self.write(uncommitted).await;
        }
        let failure = match (outcome, execution) {
            (Ok(output), Some(_)) => {
                let because = self.flow.run_reason(unit).filter(|_| !cached);
                let found = (execution, output);
                return self.completed(unit, because, found, cached, took_ms, uncommitted).await;
            }
            (Ok(_), None) => Failure::Error {
                class: ErrorClass::Internal,
                message: "the runner reported an output without the execution that made it".to_owned(),
            },
            (Err(failure), _) => failure,
        };
        let retries = self.graph.policy(self.flow.task_of(unit)).retries.as_ref();
        let wait = retries.and_then(|retry| retry.wait_after(attempt, &failure));
        let again = !self.flow.is_stopping() && !self.flow.is_superseded(unit);
        if let (Some(retry_in_ms), Some(execution), true) = (wait, execution, again) {
            return self.try_again(unit, attempt, execution, failure, retry_in_ms, uncommitted).await;
        }
        self.failed(unit, attempt, execution, failure, uncommitted).await
    }

    /// Writes records that belong to no event.
    async fn write(&self, uncommitted: Uncommitted) -> Result<(), DataflowError> {
        let written = uncommitted.write(&**self.storage).await;
        written.map_err(|error| self.interrupted(error))
    }

    pub(super) async fn try_again(
        &mut self,
        unit: Unit,
        attempt: u32,
        execution: ExecutionId,
        failure: Failure,
        retry_in_ms: u64,
        uncommitted: Uncommitted,
    ) -> Result<(), DataflowError> {
        let wait = self.seq;
        self.waits.insert(unit, wait);
        self.work.spawn(async move {
            tokio::time::sleep(Duration::from_millis(retry_in_ms)).await;
            (unit, Report::RetryIsDue { wait })
        });
        let (task, item) = self.name_of(unit);
        let Uncommitted { mut changes, lease } = uncommitted;
        changes.push(self.history(unit, Some(execution), None, false, false));
        let event = EventKind::AttemptFailed { task, item, attempt, execution, failure, retry_in_ms };
        self.happened_with(Some(unit), event, changes, lease).await
    }

    pub(super) async fn failed(
        &mut self,
        unit: Unit,
        attempt: u32,
        execution: Option<ExecutionId>,
        failure: Failure,
        uncommitted: Uncommitted,
    ) -> Result<(), DataflowError> {
        let superseded = self.flow.is_superseded(unit);
        let (task, item) = self.name_of(unit);
        let Uncommitted { mut changes, lease } = uncommitted;
        let is_missing = matches!(
            failure,
            Failure::InputMissing { .. } | Failure::Error { class: ErrorClass::Corrupt, .. }
        );
        self.distrusts |= is_missing;
        if failure != Failure::Cancelled {
            changes.extend(execution.map(|_| self.history(unit, execution, None, false, false)));
            if !superseded {
                let (task, item, failure) = (task.clone(), item.clone(), failure.clone());
                self.failures.push((unit, TaskFailure { task, item, attempt, execution, failure }));
            }
        }
        let event = EventKind::TaskFailed { task, item, attempt, execution, failure, superseded };
        self.happened_with(Some(unit), event, changes, lease).await
    }

    pub(super) async fn completed(
        &mut self,
        unit: Unit,
        because: Option<RunReason>,
        (execution, output): (Option<ExecutionId>, ObjectRef),
        cached: bool,
        took_ms: u64,
        uncommitted: Uncommitted,
    ) -> Result<(), DataflowError> {
        let superseded = self.flow.is_superseded(unit);
        let (task, item) = self.name_of(unit);
        let Uncommitted { mut changes, lease } = uncommitted;
        let mut is_published = false;
        if item.is_none() && !superseded {
            let (key, now) = (self.key(unit), self.options.clock.now());
            let index = self.flow.task_of(unit);
            let made = Published { key, execution, output };
            let published = self.publisher.completed(&**self.storage, &self.graph, index, made, now).await;
            let published = published.map_err(|error| self.interrupted(error))?;
            self.took[index.at()] = took_ms;
            is_published = published.is_some();
            changes.extend(published);
        }
        if !cached || is_published {
            changes.push(self.history(unit, execution, Some(output), cached, is_published));
        }
        if !cached && execution.is_some() {
            self.executed_ms += took_ms;
            self.durations[self.flow.task_of(unit).at()] = Some(took_ms);
        }
        let event =
            EventKind::TaskCompleted { task, item, execution, output, cached, because, took_ms, superseded };
        self.happened_with(Some(unit), event, changes, lease).await
    }

    /// The change that records what the next event says in the history of its task.
    fn history(
        &self,
        unit: Unit,
        execution: Option<ExecutionId>,
        output: Option<ObjectRef>,
        cached: bool,
        published: bool,
    ) -> RefChange {
        let (task, item) = self.name_of(unit);
        let because = self.flow.run_reason(unit);
        let at = self.options.clock.now();
        let record = HistoryRecord { at, item, execution, output, cached, published, because };
        history::add(&self.record.workspace, &task, self.record.run, self.seq, &record)
    }

    /// The changes that remember that everything is done, if no output has gone since it was seen.
    async fn settle(&self, summary: &RunSummary) -> Result<Vec<RefChange>, StorageError> {
        // What runs once per entry has as many results as there are entries: its folder alone does not stand.
        let task = |at: usize| {
            let stands = |_: &ObjectRef| self.graph.each(TaskIndex::new(at)).is_none();
            let cell = |object| Cell { object, took_ms: self.took[at] };
            self.flow.outputs[at].filter(stands).map(cell)
        };
        let root = |at: usize| self.flow.roots[at].map(|object| Cell { object, took_ms: 0 });
        let (tasks, roots) = (self.graph.len(), self.flow.roots.len());
        // First the stamp: what goes from now on makes another one.
        let objects = self.storage.object_stamp().await?;
        let lacks_any = match &self.standing {
            Some(standing) => {
                let values = (0..tasks).filter_map(task).chain((0..roots).filter_map(root));
                let values = values.map(|cell| cell.object.hash);
                standing.lacks_any(&**self.storage, &objects, values).await?
            }
            None => false,
        };
        if lacks_any || !self.has_all_outputs().await? {
            return settled::forget(&**self.storage, &self.record.workspace).await.map_err(Into::into);
        }
        let settled = Settled {
            package: self.record.package.hash,
            counter: self.changes.counter(),
            operation: self.changes.operation(),
            objects,
            tasks,
            roots,
            total: summary.total,
            saved_ms: summary.saved_ms + self.executed_ms,
        };
        let (workspace, before) = (&self.record.workspace, self.standing.as_deref());
        if before.is_none() {
            standing::write_graph(&**self.storage, workspace, &self.graph).await?;
        }
        Ok(standing::remember(workspace, before, task, root, &settled))
    }

    /// Whether no output of this run has gone since it was seen, of those about which the stamp says nothing.
    async fn has_all_outputs(&self) -> Result<bool, StorageError> {
        let is_stamped = |unit| self.standing.is_some() && self.graph.each(self.flow.task_of(unit)).is_none();
        let outputs = self.flow.units().filter_map(|unit| match self.flow.state(unit) {
            UnitState::Done(output) if !is_stamped(unit) => Some(output),
            _ => None,
        });
        let outputs: Vec<ObjectRef> = outputs.collect();
        for some in outputs.chunks(LOOK_AT_ONCE) {
            let hashes: Vec<Hash> = some.iter().map(|output| output.hash).collect();
            let sizes = self.storage.objects().stat_many(&hashes).await?;
            if !sizes.into_iter().eq(some.iter().map(|output| Some(output.size))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) async fn end(&mut self, state: RunState, settles: bool) -> Result<RunReport, DataflowError> {
        self.forgo_all().await;
        // Only waits for a next attempt can be left.
        self.work.shutdown().await;
        let now = self.options.clock.now();
        let summary = self.flow.summary(now);
        self.record.state = state;
        self.record.ended = Some(now);
        self.record.summary = Some(summary);
        let mut changes = runs::end(self.record).to_vec();
        if summary.executed > 0 {
            let took =
                self.graph.indices().filter_map(|task| Some((self.name(task), self.durations[task.at()]?)));
            let (workspace, took) = (&self.record.workspace, took.collect());
            let recorded = history::record_durations(&**self.storage, workspace, took).await;
            changes.extend(recorded.map_err(|error| self.interrupted(error))?);
        }
        if settles {
            changes.extend(self.settle(&summary).await.map_err(|error| self.interrupted(error))?);
        } else if self.distrusts {
            let forgotten = settled::forget(&**self.storage, &self.record.workspace).await;
            changes.extend(forgotten.map_err(|error| self.interrupted(error))?);
        }
        self.happened(None, EventKind::RunEnded { state, summary }, changes).await?;
        // A task that failed, was taken back and failed again is told once, as it stands.
        let mut failures: BTreeMap<Unit, TaskFailure> = BTreeMap::new();
        let mut order = Vec::new();
        for (unit, failure) in std::mem::take(&mut self.failures) {
            if self.flow.has_failed(unit) && failures.insert(unit, failure).is_none() {
                order.push(unit);
            }
        }
        Ok(RunReport {
            run: self.record.run,
            workspace: self.record.workspace.clone(),
            state,
            summary,
            failures: order.iter().filter_map(|unit| failures.remove(unit)).collect(),
            operation: self.changes.operation(),
            unassigned: self.flow.unassigned().cloned().collect(),
            lost: None,
        })
    }
}
