//! What the last deployment has taken in: `followed/WORKSPACE` says how the files looked that inputs follow, and which inputs keep
//! what a person has set. While they look the same, and the workspace has seen no other operation, the same deployment again has
//! nothing to do.

use e3_types::{DatasetPath, Hash, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{encode, operations, read};
use crate::{RefChange, RefError, RefName, StorageBackend};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Followed {
    /// The last operation: the one that deployed it, or any that left it as it is.
    pub(super) operation: u64,
    pub(super) package: Hash,
    /// A fingerprint of how the files looked.
    pub(super) looks: Hash,
    pub(super) kept: Vec<DatasetPath>,
}

impl Followed {
    pub(super) fn remember(&self, workspace: &WorkspaceName) -> RefChange {
        RefChange::set(name(workspace), encode(self))
    }
}

fn name(workspace: &WorkspaceName) -> RefName {
    RefName::new(&[&"followed", workspace])
}

/// The change that forgets it.
pub(super) fn forget(workspace: &WorkspaceName) -> RefChange {
    RefChange::remove(name(workspace))
}

pub(super) async fn find(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<Option<Followed>, RefError> {
    read(storage.refs(), &name(workspace)).await
}

/// Whether to deploy this package, with files that look so, would change nothing; then the inputs that keep what a person has set.
pub(crate) async fn kept_if_deployed(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    package: Hash,
    looks: Hash,
) -> Result<Option<Vec<DatasetPath>>, RefError> {
    let operation = operations::head(storage, workspace).await?;
    let found = find(storage, workspace).await?;
    let is_same =
        |found: &Followed| (found.operation, found.package, found.looks) == (operation, package, looks);
    Ok(found.filter(is_same).map(|found| found.kept))
}
