//! What the last deployment has taken in: `followed/WORKSPACE` says with which values of the files that inputs follow it was
//! made, and which inputs keep what a person has set. While the workspace has seen no other operation, the same deployment
//! again has nothing to do.

use e3_types::{DatasetPath, Hash, Hasher, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{datasets::Assignment, encode, operations, read};
use crate::{RefChange, RefError, RefName, StorageBackend};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Followed {
    /// The last operation: the one that deployed it, or any that left it as it is.
    pub(super) operation: u64,
    pub(super) package: Hash,
    /// The hash of the values of the files.
    pub(super) values: Hash,
    pub(super) kept: Vec<DatasetPath>,
}

impl Followed {
    /// What a deployment that is there now is remembered by.
    pub(super) fn new(operation: u64, package: Hash, tracked: &[Assignment], kept: Vec<DatasetPath>) -> Self {
        let mut hasher = Hasher::new();
        for Assignment { path, kind, object } in tracked {
            hasher.update(format!("{path}\0{kind}\0{}\0{}\0", object.hash, object.size).as_bytes());
        }
        Self { operation, package, values: hasher.finish(), kept }
    }

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

/// Whether to deploy this package with these values would change nothing; then the inputs that keep what a person has set.
pub(crate) async fn kept_if_deployed(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    package: Hash,
    tracked: &[Assignment],
) -> Result<Option<Vec<DatasetPath>>, RefError> {
    let Some(Followed { operation, package: deployed, values, kept }) = find(storage, workspace).await?
    else {
        return Ok(None);
    };
    let now = Followed::new(operations::head(storage, workspace).await?, package, tracked, kept);
    let same = (now.operation, now.package, now.values) == (operation, deployed, values);
    Ok(same.then_some(now.kept))
}
