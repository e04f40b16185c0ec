//! What the last deployment has taken in: `followed/WORKSPACE` says which inputs keep what a person has set,
//! `looks/WORKSPACE/NUMBER` how the files looked that each tracked input follows. While they look the same, and the workspace
//! has seen no other operation, the same deployment again has nothing to do; if some look otherwise, it has to do with the
//! inputs that follow these.

use e3_types::{DatasetPath, Hash, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{
    encode, operations,
    pieces::{self, Fixed, Pieces},
    read,
};
use crate::{RefChange, RefError, RefName, StorageBackend};

/// How files look that tracked inputs follow: a fingerprint for each input, in their order. None for one whose files could
/// hold something else and look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looks(pub(super) Pieces<Option<Hash>>);

impl Looks {
    /// How they look, input by input.
    pub fn new(each: Vec<Option<Hash>>) -> Self {
        Self(Pieces(each))
    }

    /// One fingerprint for all.
    fn fingerprint(&self) -> Hash {
        let mut all = Vec::with_capacity(self.0.0.len() * Option::<Hash>::WIDTH);
        self.0.0.iter().for_each(|look| look.write(&mut all));
        Hash::of(&all)
    }
}

impl Fixed for Option<Hash> {
    const WIDTH: usize = 32;

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.map_or([0; 32], |hash| *hash.as_bytes()).as_slice());
    }

    fn read(bytes: &[u8]) -> Self {
        let bytes: [u8; 32] = bytes.try_into().expect("so many bytes are given");
        (bytes != [0; 32]).then(|| Hash::from_bytes(bytes))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Followed {
    /// The last operation: the one that deployed it, or any that left it as it is.
    pub(super) operation: u64,
    pub(super) package: Hash,
    /// How many tracked inputs there are, and one fingerprint of how all their files looked.
    pub(super) inputs: usize,
    looks: Hash,
    pub(super) kept: Vec<DatasetPath>,
}

impl Followed {
    pub(super) fn new(operation: u64, package: Hash, looks: &Looks, kept: Vec<DatasetPath>) -> Self {
        Self { operation, package, inputs: looks.0.0.len(), looks: looks.fingerprint(), kept }
    }

    /// The changes that remember it, with the looks that it is about, instead of what was there before; with the looks of that
    /// one if they are known.
    pub(super) fn remember(
        &self,
        workspace: &WorkspaceName,
        looks: &Pieces<Option<Hash>>,
        before: Option<&Self>,
        looks_before: Option<&Pieces<Option<Hash>>>,
    ) -> Vec<RefChange> {
        let mut changes = looks.changes(looks_before, piece_name(workspace));
        changes.push(RefChange::set(name(workspace), encode(self)));
        let names = |followed: &Self| pieces::names(followed.inputs, piece_name(workspace));
        let left_over = before.map(names).unwrap_or_default().into_iter().skip(names(self).len());
        changes.extend(left_over.map(RefChange::remove));
        changes
    }
}

fn name(workspace: &WorkspaceName) -> RefName {
    RefName::new(&[&"followed", workspace])
}

fn piece_name(workspace: &WorkspaceName) -> impl Fn(usize) -> RefName {
    move |number| RefName::new(&[&"looks", workspace, &format!("{number:06}")])
}

/// The changes that forget it.
pub(super) async fn forget(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<Vec<RefChange>, RefError> {
    let inputs = find(storage, workspace).await?.map_or(0, |followed| followed.inputs);
    let mut names = pieces::names(inputs, piece_name(workspace));
    names.push(name(workspace));
    Ok(names.into_iter().map(RefChange::remove).collect())
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
    looks: &Looks,
) -> Result<Option<Vec<DatasetPath>>, RefError> {
    let operation = operations::head(storage, workspace).await?;
    let found = find(storage, workspace).await?;
    let now = Followed::new(operation, package, looks, Vec::new());
    Ok(found.filter(|found| Followed { kept: Vec::new(), ..found.clone() } == now).map(|found| found.kept))
}

/// How the files looked.
pub(super) async fn looks(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    followed: &Followed,
) -> Result<Pieces<Option<Hash>>, RefError> {
    Pieces::read(storage.refs(), followed.inputs, piece_name(workspace)).await
}
