//! Workspaces: `workspaces/WORKSPACE/deployed` is the package that is deployed there.

use bytes::Bytes;
use e3_types::{DatasetPath, ErrorClass, ObjectRef, Package, Timestamp, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{datasets, decode, encode};
use crate::{
    Acquired, Clock, DatasetRef, Holder, Lease, LeaseMode, Origin, RefChange, RefName, RefStore,
    StorageBackend, StorageError,
};

/// What is deployed in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceRecord {
    /// The package object.
    pub package: ObjectRef,
    /// Since when.
    pub deployed: Timestamp,
}

/// What goes wrong with workspaces.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// Nothing is deployed under that name.
    #[error(
        "workspace `{0}` has no package deployed: `e3 run` in the folder of an `e3.toml` deploys it into the \
         workspace that `-w` names (`main` if none is named)"
    )]
    NotFound(WorkspaceName),
    /// Somebody is at work in it.
    #[error(
        "workspace `{workspace}` is held by {}: wait until it is done, or stop it",
        holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Held {
        /// The workspace.
        workspace: WorkspaceName,
        /// Who.
        holders: Vec<Holder>,
    },
    /// Of the storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl WorkspaceError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) => ErrorClass::User,
            Self::Held { .. } => ErrorClass::Environment,
            Self::Storage(error) => error.class(),
        }
    }
}

/// The right to deploy into a workspace and to run it. There is at most one holder at a time.
#[derive(Debug)]
pub struct WorkspaceLease {
    workspace: WorkspaceName,
    holder: Holder,
    _lease: Lease,
}

impl WorkspaceLease {
    /// Takes the lease, or says who has it.
    pub async fn acquire(
        storage: &dyn StorageBackend,
        workspace: &WorkspaceName,
        holder: &Holder,
    ) -> Result<Self, WorkspaceError> {
        let acquired = storage.leases().acquire(&resource(workspace), LeaseMode::Exclusive, holder).await;
        match acquired.map_err(StorageError::from)? {
            Acquired::Lease(lease) => {
                Ok(Self { workspace: workspace.clone(), holder: holder.clone(), _lease: lease })
            }
            Acquired::Held(holders) => Err(WorkspaceError::Held { workspace: workspace.clone(), holders }),
        }
    }

    /// The workspace.
    pub fn workspace(&self) -> &WorkspaceName {
        &self.workspace
    }

    /// Who holds it.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}

/// The lease that is held while a workspace is at work.
pub(super) fn resource(workspace: &WorkspaceName) -> String {
    format!("workspace/{workspace}")
}

pub(super) fn deployed_name(workspace: &WorkspaceName) -> RefName {
    RefName::new(&[&"workspaces", workspace, &"deployed"])
}

/// The record of a workspace, and the value that it was read from.
pub(super) async fn deployed(
    refs: &dyn RefStore,
    workspace: &WorkspaceName,
) -> Result<(WorkspaceRecord, Bytes), WorkspaceError> {
    let name = deployed_name(workspace);
    let value = refs.read(std::slice::from_ref(&name)).await.map_err(StorageError::from)?.pop().flatten();
    let value = value.ok_or_else(|| WorkspaceError::NotFound(workspace.clone()))?;
    Ok((decode(&name, &value).map_err(StorageError::from)?, value))
}

/// What is deployed in a workspace.
pub async fn find(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<WorkspaceRecord, WorkspaceError> {
    Ok(deployed(storage.refs(), workspace).await?.0)
}

/// What a deployment did beside the obvious.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeployReport {
    /// Inputs that keep the value which a person gave them.
    pub kept: Vec<DatasetPath>,
}

/// Deploys a package: every dataset gets its default value or none.
///
/// Inputs that a person has set keep their value if the new package has an input of the same path and kind, unless
/// `reset` asks otherwise.
pub async fn deploy(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    lease: &WorkspaceLease,
    object: ObjectRef,
    package: &Package,
    reset: bool,
) -> Result<DeployReport, WorkspaceError> {
    let workspace = lease.workspace();
    let now = clock.now();
    let before = datasets::read_all(storage.refs(), workspace).await.map_err(StorageError::from)?;
    let old = match find(storage, workspace).await {
        Ok(record) => super::packages::load(storage, record.package).await.ok(),
        Err(WorkspaceError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let outputs: std::collections::HashSet<_> = package.tasks.values().map(|task| &task.output).collect();
    let keeps = |path: &DatasetPath, value: &DatasetRef| {
        let kind = old.as_ref().and_then(|old| old.datasets.get(path)).map(|slot| slot.kind);
        !reset
            && value.origin == Origin::User
            && !outputs.contains(path)
            && kind.is_some()
            && package.datasets.get(path).map(|slot| slot.kind) == kind
    };

    let mut report = DeployReport::default();
    let record = WorkspaceRecord { package: object, deployed: now };
    let mut changes = vec![RefChange::set(deployed_name(workspace), encode(&record))];
    for (path, value) in &before {
        if keeps(path, value) {
            report.kept.push(path.clone());
        } else if package.datasets.get(path).is_none_or(|slot| slot.default.is_none()) {
            changes.push(datasets::unassign(workspace, path));
        }
    }
    for (path, slot) in &package.datasets {
        if let Some(object) = slot.default
            && report.kept.binary_search(path).is_err()
        {
            let value = datasets::root_value(path, object, Origin::Default, now);
            changes.push(datasets::assign(workspace, path, &value));
        }
    }
    storage.refs().write(changes).await.map_err(StorageError::from)?;
    Ok(report)
}
