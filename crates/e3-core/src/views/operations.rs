//! Operations: every change of a workspace's package and inputs. `workspaces/WORKSPACE/operations/NUMBER` is one of them,
//! `workspaces/WORKSPACE/head` the number of the last.
//!
//! An operation is written together with what it changes, on condition that the head is still the one that was read:
//! so the operations are the whole history of the workspace, and none is lost.

use bytes::{Buf, Bytes};
use e3_types::{DatasetPath, ObjectRef, Timestamp, WorkspaceName};
use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::{datasets, decode, encode, workspaces};
use crate::{
    Clock, DatasetRef, Precondition, RefChange, RefError, RefName, Scan, StorageBackend, StorageError,
    WorkspaceError, WorkspaceRecord,
};

/// A change of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// From 1, without a gap.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What was done.
    #[serde(flatten)]
    pub kind: OperationKind,
    /// The package, if it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageChange>,
    /// The inputs that changed.
    pub changes: Vec<RootChange>,
}

/// What was done to a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum OperationKind {
    /// A package was deployed.
    Deploy,
    /// Inputs were set.
    Set,
    /// Inputs took over changes of the files of the project that they follow.
    Track,
    /// The workspace was made as a copy of another one.
    Fork {
        /// The other one.
        from: WorkspaceName,
    },
    /// An earlier operation was taken back.
    Undo {
        /// Its number.
        undone: u64,
    },
}

/// The package of a workspace before and after an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Before; none in a new workspace.
    pub before: Option<ObjectRef>,
    /// After.
    pub after: ObjectRef,
}

/// An input of a workspace before and after an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootChange {
    /// The input.
    pub path: DatasetPath,
    /// Before; none if it held nothing.
    pub before: Option<DatasetRef>,
    /// After.
    pub after: Option<DatasetRef>,
}

/// Why an operation cannot be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// There is none.
    #[error("there is nothing to take back in workspace `{0}`")]
    Nothing(WorkspaceName),
    /// The operation is the first one of the workspace.
    #[error("operation {number} made workspace `{workspace}`: `e3 workspace remove` takes that back")]
    Beginning {
        /// The workspace.
        workspace: WorkspaceName,
        /// The operation.
        number: u64,
    },
    /// Of the workspace.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

pub(super) fn head_name(workspace: &WorkspaceName) -> RefName {
    RefName::new(&[&"workspaces", workspace, &"head"])
}

fn name(workspace: &WorkspaceName, number: u64) -> RefName {
    RefName::new(&[&"workspaces", workspace, &"operations", &format!("{number:010}")])
}

/// The changes that make an operation happen after the head that was read, if that still is the head. The number is
/// given here; the caller adds what becomes of the package.
pub(super) fn commit(
    workspace: &WorkspaceName,
    head: Option<Bytes>,
    mut operation: Operation,
) -> Result<Vec<RefChange>, StorageError> {
    operation.number = number_of(workspace, head.as_ref())? + 1;
    let precondition = head.map_or(Precondition::Absent, Precondition::Value);
    let head = RefChange::set(head_name(workspace), encode(&operation.number)).when(precondition);
    let record = encode(&operation);
    let mut rest = record.clone();
    let roots = operation.changes.into_iter().map(|RootChange { path, after, .. }| {
        let value = after.map(|after| cut_out(&mut rest, encode(&after)));
        datasets::put_root(workspace, &path, value)
    });
    let mut changes: Vec<RefChange> = roots.collect();
    changes.extend([head, RefChange::set(name(workspace, operation.number), record)]);
    Ok(changes)
}

/// The text where it stands in a longer one, which goes on behind it then: of very many values, that takes no memory.
fn cut_out(rest: &mut Bytes, text: Bytes) -> Bytes {
    let Some(at) = memmem::find(rest, &text) else { return text };
    let found = rest.slice(at..at + text.len());
    rest.advance(at + text.len());
    found
}

pub(super) fn number_of(workspace: &WorkspaceName, head: Option<&Bytes>) -> Result<u64, RefError> {
    head.map_or(Ok(0), |value| decode(&head_name(workspace), value))
}

/// The number of the last operation of a workspace; 0 if there is none.
pub async fn head(storage: &dyn StorageBackend, workspace: &WorkspaceName) -> Result<u64, RefError> {
    let name = head_name(workspace);
    let value = storage.refs().read(std::slice::from_ref(&name)).await?.pop().flatten();
    number_of(workspace, value.as_ref())
}

/// The operations after number `after`, in order.
pub async fn since(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    after: u64,
) -> Result<Vec<Operation>, RefError> {
    let mut scan = Scan::under(&[&"workspaces", workspace, &"operations"]);
    scan.after = Some(name(workspace, after));
    let found = storage.refs().scan(scan).await?;
    found.into_iter().map(|(name, value)| decode(&name, &value)).collect()
}

/// The newest operations before number `before`, if given, newest first.
pub async fn list(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Operation>, RefError> {
    let mut scan = Scan::under(&[&"workspaces", workspace, &"operations"]).last_first(limit);
    scan.after = before.map(|number| name(workspace, number));
    let found = storage.refs().scan(scan).await?;
    found.into_iter().map(|(name, value)| decode(&name, &value)).collect()
}

/// How many operations are read at once when the history is walked back.
const PAGE: usize = 64;

/// What an input held at a time, found by walking back from now.
pub async fn value_at(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    path: &DatasetPath,
    at: Timestamp,
) -> Result<Option<DatasetRef>, RefError> {
    let mut value = datasets::read_root(storage.refs(), workspace, path).await?;
    let mut before = None;
    loop {
        let page = list(storage, workspace, before, PAGE).await?;
        let Some(oldest) = page.last() else { return Ok(value) };
        before = Some(oldest.number);
        for operation in page {
            if operation.at <= at {
                return Ok(value);
            }
            if let Some(change) = operation.changes.into_iter().find(|change| change.path == *path) {
                value = change.before;
            }
        }
    }
}

/// The last operation that changed an input to what it holds now.
pub async fn origin_of(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    path: &DatasetPath,
    object: ObjectRef,
) -> Result<Option<Operation>, RefError> {
    let mut before = None;
    loop {
        let page = list(storage, workspace, before, PAGE).await?;
        let Some(oldest) = page.last() else { return Ok(None) };
        before = Some(oldest.number);
        let made = |change: &RootChange| {
            change.path == *path && change.after.as_ref().is_some_and(|after| after.object == object)
        };
        if let Some(found) = page.into_iter().find(|operation| operation.changes.iter().any(made)) {
            return Ok(Some(found));
        }
    }
}

/// Takes back the last operation that has not been taken back; again, the one before it. Returns what was taken back,
/// and the operation that did it.
///
/// Taking back a change of the package needs an idle workspace: the caller holds its lease.
pub async fn undo(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    workspace: &WorkspaceName,
) -> Result<(Operation, Operation), UndoError> {
    let failed = |error: RefError| WorkspaceError::from(StorageError::from(error));
    loop {
        let name = head_name(workspace);
        let head = storage.refs().read(std::slice::from_ref(&name)).await.map_err(failed)?.pop().flatten();
        let target = last_standing(storage, workspace).await.map_err(failed)?;
        let target = target.ok_or_else(|| UndoError::Nothing(workspace.clone()))?;
        let at = clock.now();
        let back = target.changes.iter().map(|change| RootChange {
            path: change.path.clone(),
            before: change.after.clone(),
            after: change.before.clone(),
        });
        let package = match &target.package {
            None => None,
            Some(PackageChange { before: Some(before), after }) => {
                Some(PackageChange { before: Some(*after), after: *before })
            }
            Some(PackageChange { before: None, .. }) => {
                return Err(UndoError::Beginning { workspace: workspace.clone(), number: target.number });
            }
        };
        let kind = OperationKind::Undo { undone: target.number };
        let undo = Operation { number: 0, at, kind, package, changes: back.collect() };
        let mut changes = commit(workspace, head, undo.clone()).map_err(WorkspaceError::from)?;
        if let Some(PackageChange { after, .. }) = &undo.package {
            let record = WorkspaceRecord { package: *after, deployed: at };
            changes.push(RefChange::set(workspaces::deployed_name(workspace), encode(&record)));
        }
        match storage.refs().write(changes).await {
            Ok(()) => return Ok((target, undo)),
            Err(RefError::Conflict(_)) => {}
            Err(error) => return Err(failed(error).into()),
        }
    }
}

/// The last operation that is neither an undo nor undone.
pub async fn last_standing(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<Option<Operation>, RefError> {
    let mut undone = std::collections::HashSet::new();
    let mut before = None;
    loop {
        let page = list(storage, workspace, before, PAGE).await?;
        let Some(oldest) = page.last() else { return Ok(None) };
        before = Some(oldest.number);
        for operation in page {
            match operation.kind {
                OperationKind::Undo { undone: number } => {
                    undone.insert(number);
                }
                _ if undone.contains(&operation.number) => {}
                _ => return Ok(Some(operation)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    #[test]
    fn the_values_of_an_operation_are_parts_of_its_record() {
        let value = |text: &str| DatasetRef {
            object: ObjectRef::of(text.as_bytes()),
            origin: Origin::User,
            at: Timestamp::from_unix_ms(7),
            made: None,
        };
        let afters = [Some(value("one")), None, Some(value("one")), Some(value("two")), Some(value("one"))];
        let change = |(number, after): (usize, &Option<DatasetRef>)| RootChange {
            path: format!("d{number}").parse().unwrap(),
            before: Some(value("two")),
            after: after.clone(),
        };
        let changes = afters.iter().enumerate().map(change).collect();
        let (at, kind) = (Timestamp::from_unix_ms(9), OperationKind::Set);
        let operation = Operation { number: 0, at, kind, package: None, changes };
        let changes = commit(&"main".parse().unwrap(), None, operation).unwrap();
        let (roots, [_, record]) = changes.split_at(afters.len()) else { panic!("{changes:?}") };
        let record = record.value.as_ref().unwrap().as_ptr_range();
        for (root, after) in roots.iter().zip(&afters) {
            assert_eq!(root.value, after.as_ref().map(encode), "{root:?}");
            let part = root.value.as_ref().map(|value| value.as_ptr_range());
            assert!(part.is_none_or(|part| record.start <= part.start && part.end <= record.end), "{root:?}");
        }
    }
}
