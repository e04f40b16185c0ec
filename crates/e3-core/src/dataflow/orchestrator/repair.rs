//! Inputs that turn out to be missing when a task is about to use them: the task that made them is executed again, inside
//! the same run, and the one that needs them goes on.
//!
//! The state machine does not know of this: to it, the task that waits is still running, in the place that it has. What is
//! made again must be what was there, so nothing else is decided anew.

use std::collections::{HashMap, HashSet};

use e3_types::{ErrorClass, EventKind, ExecutionId, Failure, Hash};

use super::{Orchestrator, Report};
use crate::{
    DataflowError, Source, TaskExecuteOptions, TaskResult, Uncommitted,
    dataflow::{action::Unit, action::UnitState, entries, graph::Input},
};

/// What is being made again.
#[derive(Default)]
pub(super) struct Repairs {
    /// Who waits for what a unit makes again.
    waiting: HashMap<Unit, Vec<Waiting>>,
    /// Who has waited for whom to make what: once is enough.
    tried: HashSet<(Unit, Unit, Hash)>,
}

/// Somebody who needs an object.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    who: Waiter,
    missing: Hash,
}

#[derive(Debug, Clone, Copy)]
enum Waiter {
    /// A unit that runs.
    Running { unit: Unit, attempt: u32 },
    /// A unit that is itself to make something again.
    Repairing { unit: Unit },
}

impl Waiter {
    fn unit(self) -> Unit {
        match self {
            Self::Running { unit, .. } | Self::Repairing { unit } => unit,
        }
    }
}

impl Orchestrator<'_> {
    /// A unit that runs has found one of its inputs missing; whether that can be mended. If not, it has failed.
    pub(super) async fn mend(
        &mut self,
        unit: Unit,
        attempt: u32,
        input: u32,
        missing: Hash,
    ) -> Result<bool, DataflowError> {
        let stops = self.flow.is_stopping() || self.flow.is_superseded(unit);
        if stops {
            return Ok(false);
        }
        self.ask(Waiter::Running { unit, attempt }, input, missing).await
    }

    /// Has whoever made an object make it again.
    async fn ask(&mut self, who: Waiter, input: u32, missing: Hash) -> Result<bool, DataflowError> {
        let Some(producer) = self.producer(who.unit(), input, missing).await? else { return Ok(false) };
        if !self.repairs.tried.insert((who.unit(), producer, missing)) {
            return Ok(false);
        }
        if producer == who.unit() {
            // The folder of the outputs of all entries: it has been put together again.
            self.go_on(who);
            return Ok(true);
        }
        let waiting = self.repairs.waiting.entry(producer).or_default();
        waiting.push(Waiting { who, missing });
        if waiting.len() == 1 {
            self.execute_again(producer);
        }
        Ok(true)
    }

    /// The unit that made an input of another one; that one itself if the input could be put together from what is there.
    async fn producer(&self, unit: Unit, input: u32, missing: Hash) -> Result<Option<Unit>, DataflowError> {
        let inputs = self.graph.inputs(self.flow.task_of(unit));
        let Some(Input::Task(producer)) = inputs.get(input as usize) else { return Ok(None) };
        if !matches!(self.flow.state((*producer).into()), UnitState::Done(_)) {
            return Ok(None);
        }
        let (Some(units), Some(outputs)) =
            (self.flow.entries_of(*producer), self.flow.item_outputs(*producer))
        else {
            return Ok(Some((*producer).into()));
        };
        let folder = entries::folder(outputs.clone(), self.item_outputs[producer]);
        if Hash::of(&folder) == missing {
            let stored = self.storage.objects().put_many(vec![Source::Bytes(folder)]).await;
            stored.map_err(|error| self.interrupted(error))?;
            return Ok(Some(unit));
        }
        Ok(units
            .into_iter()
            .zip(outputs)
            .find(|(_, (_, output))| output.hash == missing)
            .map(|(unit, _)| unit))
    }

    fn execute_again(&mut self, unit: Unit) {
        let options = TaskExecuteOptions { force: true, ..self.execute_options(unit) };
        self.hand_over(unit, options, |result| Report::Rebuilt { result });
    }

    /// What was to be made again has been, or not.
    pub(super) async fn rebuilt(&mut self, unit: Unit, result: TaskResult) -> Result<(), DataflowError> {
        let (task, item) = self.name_of(unit);
        let again = match (result.outcome, result.execution) {
            (Ok(output), Some(execution)) if self.flow.state(unit) == UnitState::Done(output) => {
                Ok((execution, result.took_ms))
            }
            (Ok(_), _) => Err(format!(
                "`{task}` does not make the same again on the same inputs; run again to go on with what it makes now"
            )),
            (Err(Failure::InputMissing { input, object, message }), _) => {
                if self.ask(Waiter::Repairing { unit }, input, object).await? {
                    return Ok(());
                }
                Err(message)
            }
            (Err(failure), _) => Err(format!("making it again with `{task}`: {failure}")),
        };
        let waiting = self.repairs.waiting.remove(&unit).unwrap_or_default();
        match again {
            Ok((execution, took_ms)) => {
                if let Some(Waiting { missing, .. }) = waiting.first().copied() {
                    self.tell_rebuilt(unit, execution, missing, took_ms).await?;
                }
                for waiting in waiting {
                    self.go_on(waiting.who);
                }
            }
            Err(why) => {
                let item = item.map(|item| format!("[{item}]")).unwrap_or_default();
                self.give_up(
                    waiting,
                    &format!("the output of `{task}{item}` is no longer in the store: {why}"),
                )
                .await?;
            }
        }
        Ok(())
    }

    async fn tell_rebuilt(
        &mut self,
        unit: Unit,
        execution: ExecutionId,
        missing: Hash,
        took_ms: u64,
    ) -> Result<(), DataflowError> {
        let (task, item) = self.name_of(unit);
        let event = EventKind::OutputRebuilt { task, item, execution, missing, took_ms };
        self.happened(Some(unit), event, Vec::new()).await
    }

    /// What a unit waited for is there.
    fn go_on(&mut self, who: Waiter) {
        match who {
            Waiter::Running { unit, attempt } => {
                let cancellation = self.execute(unit, attempt, None);
                self.follow(unit, cancellation);
            }
            Waiter::Repairing { unit } => self.execute_again(unit),
        }
    }

    /// What was waited for cannot be had.
    async fn give_up(&mut self, mut waiting: Vec<Waiting>, why: &str) -> Result<(), DataflowError> {
        while let Some(Waiting { who, .. }) = waiting.pop() {
            match who {
                Waiter::Running { unit, attempt } => {
                    let failure = if self.flow.is_stopping() || self.flow.is_superseded(unit) {
                        Failure::Cancelled
                    } else {
                        Failure::Error { class: ErrorClass::Corrupt, message: why.to_owned() }
                    };
                    self.failed(unit, attempt, None, failure, Uncommitted::default()).await?;
                }
                Waiter::Repairing { unit } => {
                    waiting.extend(self.repairs.waiting.remove(&unit).unwrap_or_default());
                }
            }
        }
        Ok(())
    }
}
