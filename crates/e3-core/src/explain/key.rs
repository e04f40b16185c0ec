//! `KeyDocument`: everything that decides what an execution computes, in words.

use e3_types::{CommandLine, Hash, Kind, Name};
use serde::Serialize;
use std::collections::BTreeMap;

use crate::{ObjectError, PackageError, StorageBackend, StorageError, packages};

/// The identity of an execution, spelt out. Two executions with equal documents have one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyDocument {
    /// The hash of the task object, which holds all of this but the hashes of the inputs.
    pub task: Hash,
    /// What is run.
    pub command: CommandLine,
    /// The environment variables that the task names.
    pub env: BTreeMap<String, String>,
    /// The inputs in the task's order.
    pub inputs: Vec<KeyInput>,
    /// The kind of the output.
    pub output: Kind,
}

/// An input of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInput {
    /// The name under which it is staged; `code` for the files that the task is made of.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its object.
    pub object: Hash,
}

impl KeyDocument {
    /// The same, if the task object is there: that of an entry which has never been executed may not be.
    pub(super) async fn find(
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
    ) -> Result<Option<Self>, PackageError> {
        match Self::read(storage, task, inputs).await {
            Err(PackageError::Storage(StorageError::Object(ObjectError::NotFound(_)))) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Reads the task object and spells the key out.
    pub async fn read(
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
    ) -> Result<Self, PackageError> {
        let object = packages::load_task(storage, task).await?;
        let inputs = object.inputs.iter().zip(inputs).map(|(input, hash)| KeyInput {
            name: input.name.as_ref().map_or_else(|| "code".to_owned(), Name::to_string),
            kind: input.kind,
            object: *hash,
        });
        Ok(Self {
            task,
            inputs: inputs.collect(),
            command: object.command,
            env: object.env,
            output: object.output,
        })
    }
}
