//! Datasets of a workspace: `workspaces/WORKSPACE/data/PATH` is what an input holds, `outputs/WORKSPACE/PATH` what a task
//! has put into an output. No record means unassigned.
//!
//! Only the former are the state of the workspace that people change, and only they move its change counter: a run that
//! waits for changes is not woken by what it writes itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use e3_types::{
    DatasetPath, ErrorClass, ExecutionId, Hash, Kind, Name, ObjectRef, Package, Timestamp, WorkspaceName,
};
use serde::{Deserialize, Serialize};

use super::{
    decode, encode,
    operations::{self, Operation, OperationKind, RootChange},
    packages, workspaces,
};
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
    /// What it was made of, if a task made it. Of a workspace with many inputs there are many that nothing was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Box<Derivation>>,
}

/// What an output was made of: the key of the execution that made it.
///
/// The value is current if this is the key of its task on current inputs. So the version vector of an output (which
/// version of every root input it was derived from) is not stored with each output, which would cost tasks times roots,
/// but follows from these, one step at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derivation {
    /// The task object.
    pub task: Hash,
    /// The hash of the inputs' hashes.
    pub inputs: Hash,
    /// The execution; none for the folder of a task that runs once per entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionId>,
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

fn root_name(workspace: &WorkspaceName, path: &DatasetPath) -> RefName {
    RefName::new(&[&"workspaces", workspace, &"data", path])
}

fn output_name(workspace: &WorkspaceName, path: &DatasetPath) -> RefName {
    RefName::new(&[&"outputs", workspace, path])
}

/// All datasets of a workspace that hold something.
pub async fn read_all(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
) -> Result<BTreeMap<DatasetPath, DatasetRef>, RefError> {
    let mut all = read_roots(refs, workspace).await?;
    all.extend(read_outputs(refs, workspace).await?);
    Ok(all)
}

/// All inputs of a workspace that hold something.
pub async fn read_roots(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
) -> Result<BTreeMap<DatasetPath, DatasetRef>, RefError> {
    all_under(refs, Scan::under(&[&"workspaces", workspace, &"data"])).await
}

/// What an input holds.
pub async fn read_root(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
    path: &DatasetPath,
) -> Result<Option<DatasetRef>, RefError> {
    super::read(refs, &root_name(workspace, path)).await
}

/// What an output holds.
pub async fn read_output(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
    path: &DatasetPath,
) -> Result<Option<DatasetRef>, RefError> {
    super::read(refs, &output_name(workspace, path)).await
}

/// All outputs of a workspace that hold something.
pub async fn read_outputs(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
) -> Result<BTreeMap<DatasetPath, DatasetRef>, RefError> {
    all_under(refs, Scan::under(&[&"outputs", workspace])).await
}

/// What some inputs hold.
pub(super) async fn read_some_roots(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
    paths: &[&DatasetPath],
) -> Result<Vec<Option<DatasetRef>>, RefError> {
    read_some(refs, paths.iter().map(|path| root_name(workspace, path)).collect()).await
}

/// What some outputs hold.
pub(crate) async fn read_some_outputs(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
    paths: &[&DatasetPath],
) -> Result<Vec<Option<DatasetRef>>, RefError> {
    read_some(refs, paths.iter().map(|path| output_name(workspace, path)).collect()).await
}

async fn read_some(refs: &dyn RefStore, names: Vec<RefName>) -> Result<Vec<Option<DatasetRef>>, RefError> {
    let found = names.iter().zip(refs.read(&names).await?);
    found.map(|(name, value)| value.map(|value| decode(name, &value)).transpose()).collect()
}

/// How many records are read at once: there may be many.
const PAGE: usize = 4096;

async fn all_under(
    refs: &dyn RefStore,
    mut scan: Scan,
) -> Result<BTreeMap<DatasetPath, DatasetRef>, RefError> {
    scan.limit = PAGE;
    let mut all = Vec::new();
    loop {
        let page = refs.scan(scan.clone()).await?;
        for (name, value) in &page {
            all.push(by_path(name, value)?);
        }
        match page.last() {
            Some((name, _)) if page.len() == PAGE => scan.after = Some(name.clone()),
            // A map that is made of all of its entries takes half the memory of one that they come into in order.
            _ => return Ok(all.into_iter().collect()),
        }
    }
}

fn by_path(name: &RefName, value: &[u8]) -> Result<(DatasetPath, DatasetRef), RefError> {
    let path = name.last().parse().map_err(|error: e3_types::DatasetPathError| RefError::Corrupt {
        name: name.clone(),
        message: error.to_string(),
    })?;
    Ok((path, decode(name, value)?))
}

/// The change that gives an input a value, as it is written down, or takes it away.
pub(super) fn put_root(workspace: &WorkspaceName, path: &DatasetPath, value: Option<Bytes>) -> RefChange {
    RefChange { name: root_name(workspace, path), value, precondition: Precondition::None }
}

/// The change that publishes an output.
pub(crate) fn publish(workspace: &WorkspaceName, path: &DatasetPath, value: &DatasetRef) -> RefChange {
    RefChange::set(output_name(workspace, path), encode(value))
}

/// The change that forgets an output.
pub(super) fn withdraw(workspace: &WorkspaceName, path: &DatasetPath) -> RefChange {
    RefChange::remove(output_name(workspace, path))
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

/// Writes inputs of a workspace, together. Writers never wait for each other; of the same dataset, the last wins. What is
/// there already is not written again. A deployment in between is noticed, and the write is checked against the new
/// package.
pub async fn set(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    workspace: &WorkspaceName,
    values: &[Assignment],
    origin: Origin,
) -> Result<(), DatasetError> {
    let names: Vec<RefName> = values.iter().map(|value| root_name(workspace, &value.path)).collect();
    let mut checked: Option<(ObjectRef, Package)> = None;
    loop {
        // All of one moment; the head says whether it has passed when the change is made.
        let mut wanted = vec![operations::head_name(workspace), workspaces::deployed_name(workspace)];
        wanted.extend_from_slice(&names);
        let mut found = storage.refs().read(&wanted).await.map_err(StorageError::from)?.into_iter();
        let head = found.next().flatten();
        let deployed = found.next().flatten();
        let deployed = deployed.ok_or_else(|| WorkspaceError::NotFound(workspace.clone()))?;
        let record: workspaces::WorkspaceRecord =
            decode(&wanted[1], &deployed).map_err(StorageError::from)?;
        if checked.as_ref().is_none_or(|(object, _)| *object != record.package) {
            let package = packages::load(storage, record.package).await?;
            check(&package, workspace, values)?;
            checked = Some((record.package, package));
        }
        let at = clock.now();
        let mut changes = Vec::new();
        for ((value, before), name) in values.iter().zip(found).zip(&names) {
            let before: Option<DatasetRef> =
                before.map(|before| decode(name, &before)).transpose().map_err(StorageError::from)?;
            if before.as_ref().is_none_or(|before| before.object != value.object || before.origin != origin) {
                let after = Some(DatasetRef { object: value.object, origin, at, made: None });
                changes.push(RootChange { path: value.path.clone(), before, after });
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let kind = if origin == Origin::Project { OperationKind::Track } else { OperationKind::Set };
        let operation = Operation { number: 0, at, kind, package: None, changes };
        match storage.refs().write(operations::commit(workspace, head, operation)?).await {
            Ok(()) => return Ok(()),
            Err(RefError::Conflict(_)) => {}
            Err(error) => return Err(StorageError::from(error).into()),
        }
    }
}

fn check(package: &Package, workspace: &WorkspaceName, values: &[Assignment]) -> Result<(), DatasetError> {
    for Assignment { path, kind, .. } in values {
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
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;

    #[tokio::test]
    async fn all_are_read_however_many_there_are() {
        let storage = MemoryStorage::default();
        let workspace: WorkspaceName = "main".parse().unwrap();
        let value = DatasetRef {
            object: ObjectRef::of(b""),
            origin: Origin::Task,
            at: Timestamp::default(),
            made: None,
        };
        let mut written = 0;
        for count in [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 7] {
            let path = |number: usize| format!("d{number}").parse::<DatasetPath>().unwrap();
            let changes = (written..count).map(|number| publish(&workspace, &path(number), &value)).collect();
            storage.refs().write(changes).await.unwrap();
            written = count;
            assert_eq!(read_outputs(storage.refs(), &workspace).await.unwrap().len(), count);
        }
    }
}
