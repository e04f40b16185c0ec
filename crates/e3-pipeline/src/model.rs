//! What an `e3.toml` says, with the place of everything that can still turn out to be wrong.

use std::{collections::BTreeMap, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use e3_types::{CommandLine, Json, Kind, Name, PackageName, PackageVersion, TaskPolicy};

use serde::{Deserialize, Serialize};

use crate::error::SourceText;

/// A value with its place in the file, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// A pipeline file.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) source: SourceText,
    /// The name of the package.
    pub name: PackageName,
    /// Its version.
    pub version: PackageVersion,
    pub(crate) inputs: BTreeMap<Name, At<InputSpec>>,
    pub(crate) tasks: BTreeMap<Name, Task>,
    /// What is put into the project folder: relative path -> what.
    pub outputs: BTreeMap<String, OutputLink>,
    /// The settings in `[run]`.
    pub run: RunSettings,
}

/// An input.
#[derive(Debug)]
pub(crate) enum InputSpec {
    /// A file of the project.
    File(String),
    /// A folder of the project.
    Dir(String),
    /// A value in place.
    Json(Json),
    /// Nothing yet: it has to be set.
    Unassigned(Kind),
}

/// A task by its name.
#[derive(Debug)]
pub(crate) struct Task {
    /// What the file says of it.
    pub(crate) said: Said,
    /// The kind of the dataset that it writes: a folder of all outputs, if it runs once per entry.
    pub(crate) kind: Kind,
    /// The place of its name.
    pub(crate) span: Range<usize>,
}

/// Where it is known what a file says of a task.
#[derive(Debug)]
pub(crate) enum Said {
    /// Here.
    Here(Box<TaskSpec>),
    /// In this piece of the file, in which nothing is wrong. In memory it would take ten times the place.
    InText(Range<usize>),
}

/// What a file says of a task.
#[derive(Debug, Clone)]
pub(crate) struct TaskSpec {
    pub(crate) command: At<CommandLine>,
    pub(crate) inputs: Vec<At<Name>>,
    /// The task runs once per entry of this input.
    pub(crate) each: Option<At<Name>>,
    pub(crate) code: Vec<At<String>>,
    pub(crate) output: Kind,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) pass_env: Vec<At<String>>,
    pub(crate) writable: Vec<At<Name>>,
    pub(crate) policy: Arc<TaskPolicy>,
}

impl TaskSpec {
    /// Says that the text it was read from begins at `offset` of the file.
    pub(crate) fn move_by(&mut self, offset: usize) {
        let Self { command, inputs, each, code, output: _, env: _, pass_env, writable, policy: _ } = self;
        let names = inputs.iter_mut().chain(each).chain(writable).map(|at| &mut at.span);
        let texts = code.iter_mut().chain(pass_env).map(|at| &mut at.span);
        for span in names.chain(texts).chain([&mut command.span]) {
            *span = span.start + offset..span.end + offset;
        }
    }

    /// The kind of the dataset that the task writes.
    pub(crate) fn dataset_kind(&self) -> Kind {
        if self.each.is_some() { Kind::Dir } else { self.output }
    }
}

/// An entry of `[outputs]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLink {
    /// The dataset.
    pub from: Name,
    /// Its kind.
    pub kind: Kind,
    /// Whether a read-only link to the store is wanted instead of a file of one's own.
    pub link: bool,
}

/// `[run]`: settings for `e3 run`, below the flags and the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSettings {
    /// How many tasks may run at once.
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Whether everything that can be run is run after a failure.
    pub keep_going: Option<bool>,
    /// How long a task may take to end after SIGTERM.
    pub grace: Option<Duration>,
    /// Whether tasks run in a strict sandbox, unless they say otherwise.
    pub sandbox: bool,
    /// The folders that tasks in a sandbox may read beside those of the system.
    pub sandbox_readable: Vec<PathBuf>,
    /// How much is kept of each stream that a task prints, in bytes.
    pub log_limit: Option<u64>,
    /// How much of a resource the running tasks may use together: `memory` in bytes, others in units of their own.
    pub limits: BTreeMap<Name, u64>,
}
