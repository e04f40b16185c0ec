//! `Prepared`: everything that comes before the process of a task, done. Nobody else sees any of it, so that it can be done
//! ahead, while there is no room for the process yet, and given up at no loss.

use std::{collections::HashSet, fs, path::Path, sync::Arc, time::Duration};

use e3_core::{StorageBackend, TaskExecuteOptions, Unavailable, packages};
use e3_process::{Command, Confinement};
use e3_types::{ErrorClass, ExecutionId, Hash, Kind, Sandbox, TaskInput, TaskLimits, TaskObject};

use crate::{
    command::{self, ToStart, Words},
    environment,
    execute::{Stopped, Workshop, blocking},
    scratch::{MANY, Scratch},
    stage::{StagedFile, stage_inputs},
};

const CLEARING: &str = "clearing a scratch folder";

/// One task on its inputs, and how it is to be executed.
pub(crate) struct Job<'a> {
    pub(crate) storage: &'a dyn StorageBackend,
    pub(crate) workshop: &'a Workshop,
    pub(crate) task: Hash,
    pub(crate) inputs: &'a [Hash],
    pub(crate) options: &'a TaskExecuteOptions,
}

/// A job whose process can be started.
pub(crate) struct Prepared {
    pub(crate) scratch: Box<Scratch>,
    pub(crate) task: TaskObject,
    /// What the task must not change.
    pub(crate) staged: Vec<StagedFile>,
    /// Whether its inputs are to be left where they are staged.
    pub(crate) stays: bool,
    pub(crate) command: Command,
    /// What to start if that cannot be started.
    pub(crate) otherwise: Option<Words>,
}

impl Job<'_> {
    /// Prepares it ahead of its time, if that takes a moment and next to no room on the disk: if its inputs are some files that
    /// it only reads. A failure is none yet, for what is missing now may be there in time.
    pub(crate) async fn prepare_ahead(&self) -> Option<Box<Prepared>> {
        let task = packages::load_task(self.storage, self.task).await.ok()?;
        if task.inputs.len() >= MANY || !task.inputs.iter().all(|input| name_of_a_link(input).is_some()) {
            return None;
        }
        self.prepare_with(task, None).await.ok()
    }

    /// What was prepared ahead, if that is still what it was; else it is prepared now.
    pub(crate) async fn prepared(
        &self,
        ahead: Option<Box<Prepared>>,
        execution: ExecutionId,
    ) -> Result<Box<Prepared>, Stopped> {
        if let Some(ahead) = ahead {
            // Another task may have done something to them, also one of another process.
            let work = &ahead.command.folder;
            let is_as_staged = |file: &StagedFile| matches!(file.was_changed(work), Ok(Some(false)));
            if ahead.staged.iter().all(is_as_staged) {
                return Ok(ahead);
            }
            self.clear(ahead.scratch, None).await;
        }
        let task = packages::load_task(self.storage, self.task).await;
        let task = task.map_err(|error| Stopped::error(error.class(), error.to_string()))?;
        self.prepare_with(task, Some(execution)).await
    }

    async fn prepare_with(
        &self,
        task: TaskObject,
        execution: Option<ExecutionId>,
    ) -> Result<Box<Prepared>, Stopped> {
        if task.inputs.len() != self.inputs.len() {
            let (wanted, given) = (task.inputs.len(), self.inputs.len());
            let message = format!("the task has {wanted} inputs, but was given {given}");
            return Err(Stopped::error(ErrorClass::Internal, message));
        }
        let scratches = &self.workshop.scratches;
        let mut scratch = scratches.take_for(self.task, self.inputs.len()).map_err(|error| {
            let doing = format!("making a scratch folder in `{}`", scratches.folder().display());
            Unavailable::new(doing, error)
        })?;
        match self.furnish(&mut scratch, &task).await {
            Ok((staged, stays, command, otherwise)) => {
                Ok(Box::new(Prepared { scratch, task, staged, stays, command, otherwise }))
            }
            Err(stopped) => {
                self.clear(scratch, execution).await;
                Err(stopped)
            }
        }
    }

    /// Puts the inputs into a scratch folder, and says what is to be started there.
    async fn furnish(
        &self,
        scratch: &mut Scratch,
        task: &TaskObject,
    ) -> Result<(Vec<StagedFile>, bool, Command, Option<Words>), Stopped> {
        let (work, temporary) = (scratch.work(), scratch.temporary());
        let stays = self.may_stay(scratch, task)?;
        let again = scratch.has_inputs();
        let staged =
            stage_inputs(self.storage, task, self.inputs, &work, again).await.map_err(Stopped::staging)?;
        let mut environment = environment::of_task(task, &self.workshop.environment, &temporary);
        let ToStart { words, otherwise } = command::to_start(task)?;
        let confinement = self.confinement(&work, &temporary);
        let (words, otherwise) = match otherwise {
            // A launcher cannot tell what a shell would have made of it.
            Some(in_shell) if !confinement.is_none() => (in_shell, None),
            other => (words, other),
        };
        if otherwise.is_some() {
            // As the shell tells it, which is not there; like a shell, whatever the task has declared.
            environment.insert("PWD".into(), work.clone().into());
        }
        let command = Command {
            program: words.0,
            arguments: words.1,
            environment,
            folder: work,
            confinement,
            launcher: self.workshop.launcher.clone(),
            supervisor: self.workshop.supervisor.clone(),
            home: scratch.path().to_owned(),
        };
        Ok((staged, stays, command, otherwise))
    }

    /// Whether the inputs may be left where they are staged, for the next execution of the task: if they are many and all
    /// alike, links to objects. What is left of the last one and does not belong to this one is removed.
    fn may_stay(&self, scratch: &mut Scratch, task: &TaskObject) -> Result<bool, Unavailable> {
        let names: Option<HashSet<&str>> = task.inputs.iter().map(name_of_a_link).collect();
        let stays = names.is_some() && self.workshop.scratches.leaves(task.inputs.len());
        if scratch.has_inputs() {
            let cleared = scratch.keep_inputs(&names.unwrap_or_default());
            cleared.map_err(|error| Unavailable::new(CLEARING, error))?;
        }
        Ok(stays)
    }

    fn confinement(&self, work: &Path, temporary: &Path) -> Confinement {
        let TaskLimits { memory, open_files, cpu_ms } = self.options.limits;
        let sandbox = match self.options.sandbox {
            Sandbox::Off => None,
            Sandbox::Strict { network } => Some(e3_process::Sandbox {
                writable: vec![work.to_owned(), temporary.to_owned()],
                readable: self.workshop.sandbox_readable.clone(),
                network,
            }),
        };
        Confinement { memory, open_files, cpu: cpu_ms.map(Duration::from_millis), sandbox }
    }

    /// Makes a scratch folder ready for the next task, or puts that of an execution where it is kept.
    pub(crate) async fn clear(&self, scratch: Box<Scratch>, execution: Option<ExecutionId>) {
        if let Err(error) = self.try_to_clear(scratch, execution).await {
            // The result stands; what is left goes with the next start.
            tracing::warn!(%error, task = %self.task, "a scratch folder was left behind");
        }
    }

    async fn try_to_clear(
        &self,
        mut scratch: Box<Scratch>,
        execution: Option<ExecutionId>,
    ) -> Result<(), Unavailable> {
        let scratches = Arc::clone(&self.workshop.scratches);
        // A few files; a task that makes folders may have made large ones.
        let is_quick = scratch.examine();
        let keep_in = self.workshop.keep_in.clone().zip(execution);
        let clear = move || match keep_in {
            Some((folder, execution)) => {
                let kept = folder.join(execution.to_string());
                fs::create_dir_all(&folder).and_then(|()| scratch.keep(&kept))
            }
            None => scratches.give_back(scratch),
        };
        if is_quick {
            return clear().map_err(|error| Unavailable::new(CLEARING, error));
        }
        blocking(CLEARING, clear).await
    }
}

/// The name of an input that is staged as a link to its object.
fn name_of_a_link(input: &TaskInput) -> Option<&str> {
    match input {
        TaskInput { name: Some(name), kind: Kind::File | Kind::Json, writable: false } => Some(name.as_str()),
        _ => None,
    }
}
