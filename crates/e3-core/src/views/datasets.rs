//! Datasets of a workspace: `workspaces/WORKSPACE/data/PATH` is what a dataset holds. No record means unassigned.

use std::collections::BTreeMap;

use e3_types::{DatasetPath, ErrorClass, Kind, Name, ObjectRef, Timestamp, VersionVector, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{decode, encode, packages, workspaces};
use crate::{
    Clock, PackageError, Precondition, RefChange, RefError, RefName, RefStore, Scan, StorageBackend,
    StorageError, WorkspaceError,
};

/// What a dataset holds and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRef {
    /// The object.
    pub object: ObjectRef,
    /// Who put it there.
    pub origin: Origin,
    /// When.
    pub at: Timestamp,
    /// Which versions of the root inputs it was derived from.
    pub vector: VersionVector,
}

/// Who gave a dataset its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The package: its default.
    Default,
    /// The project: a file or folder that is followed.
    Project,
    /// A person, with `e3 set`. Kept when a package is deployed.
    User,
    /// A task.
    Task,
}

impl Origin {
    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Project => "project",
            Self::User => "user",
            Self::Task => "task",
        }
    }
}

/// What goes wrong when a dataset is written.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// There is no such dataset.
    #[error("there is no dataset `{path}` in workspace `{workspace}`{}", similar.as_ref().map(|name| format!(": did you mean `{name}`?")).unwrap_or_default())]
    NotFound {
        /// What was asked for.
        path: DatasetPath,
        /// Where.
        workspace: WorkspaceName,
        /// The most similar name, if there is one.
        similar: Option<String>,
    },
    /// Only inputs can be written.
    #[error("`{path}` is the output of task `{task}`: only inputs can be set")]
    NotAnInput {
        /// The dataset.
        path: DatasetPath,
        /// The task that writes it.
        task: Name,
    },
    /// The value is of another kind.
    #[error("`{path}` holds a {expected}, but the value is a {found}")]
    Kind {
        /// The dataset.
        path: DatasetPath,
        /// Its kind.
        expected: Kind,
        /// The kind of the value.
        found: Kind,
    },
    /// Of the workspace.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// Of its package.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Of the storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl DatasetError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } | Self::NotAnInput { .. } | Self::Kind { .. } => ErrorClass::User,
            Self::Workspace(error) => error.class(),
            Self::Package(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }
}

pub(super) fn name(workspace: &WorkspaceName, path: &DatasetPath) -> RefName {
    RefName::new(&[&"workspaces", workspace, &"data", path])
}

/// All datasets of a workspace that hold something.
pub async fn read_all(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
) -> Result<BTreeMap<DatasetPath, DatasetRef>, RefError> {
    let found = refs.scan(Scan::under(&[&"workspaces", workspace, &"data"])).await?;
    found
        .into_iter()
        .map(|(name, value)| {
            let path = name.last().parse().map_err(|error: e3_types::DatasetPathError| {
                RefError::Corrupt { name: name.clone(), message: error.to_string() }
            })?;
            Ok((path, decode(&name, &value)?))
        })
        .collect()
}

/// The change that gives a dataset a value.
pub(crate) fn assign(workspace: &WorkspaceName, path: &DatasetPath, value: &DatasetRef) -> RefChange {
    RefChange::set(name(workspace, path), encode(value))
}

/// The change that takes a dataset's value away.
pub(crate) fn unassign(workspace: &WorkspaceName, path: &DatasetPath) -> RefChange {
    RefChange::remove(name(workspace, path))
}

/// The value of an input that holds `object`.
pub(crate) fn root_value(path: &DatasetPath, object: ObjectRef, origin: Origin, at: Timestamp) -> DatasetRef {
    DatasetRef { object, origin, at, vector: VersionVector::root(path.clone(), object.hash) }
}

/// A value for an input.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The input.
    pub path: DatasetPath,
    /// Its kind.
    pub kind: Kind,
    /// The new value.
    pub object: ObjectRef,
}

/// Writes inputs of a workspace, together. Writers of different datasets never wait for each other; of the same one,
/// the last wins. A deployment in between is noticed, and the write is checked against the new package.
pub async fn set(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    workspace: &WorkspaceName,
    values: &[Assignment],
    origin: Origin,
) -> Result<(), DatasetError> {
    loop {
        let (record, value) = workspaces::deployed(storage.refs(), workspace).await?;
        let package = packages::load(storage, record.package).await?;
        let mut changes = vec![
            // Written back as it is: only for the condition that the deployment is still the one that was checked.
            RefChange::set(workspaces::deployed_name(workspace), value.clone())
                .when(Precondition::Value(value)),
        ];
        for Assignment { path, kind, object } in values {
            let slot = package.datasets.get(path).ok_or_else(|| DatasetError::NotFound {
                path: path.clone(),
                workspace: workspace.clone(),
                similar: None,
            })?;
            if let Some((task, _)) = package.tasks.iter().find(|(_, task)| task.output == *path) {
                return Err(DatasetError::NotAnInput { path: path.clone(), task: task.clone() });
            }
            if slot.kind != *kind {
                return Err(DatasetError::Kind { path: path.clone(), expected: slot.kind, found: *kind });
            }
            changes.push(assign(workspace, path, &root_value(path, *object, origin, clock.now())));
        }
        match storage.refs().write(changes).await {
            Ok(()) => return Ok(()),
            Err(RefError::Conflict(_)) => {}
            Err(error) => return Err(StorageError::from(error).into()),
        }
    }
}
