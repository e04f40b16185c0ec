//! Workspaces: `workspaces/WORKSPACE/deployed` is the package that is deployed there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use e3_types::{DatasetPath, ErrorClass, Hash, ObjectRef, Package, Timestamp, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{
    datasets::{self, Assignment},
    encode,
    followed::{self, Followed, Looks},
    operations::{self, Operation, OperationKind, PackageChange, RootChange},
    read,
};
use crate::{
    Acquired, Clock, DatasetRef, Holder, Lease, LeaseMode, Origin, PackageError, Precondition, RefChange,
    RefError, RefName, Scan, StorageBackend, StorageError, dataflow::settled,
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
    /// There is one of that name already.
    #[error("there is a workspace `{0}` already: choose another name, or remove it first")]
    Exists(WorkspaceName),
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
            Self::NotFound(_) | Self::Exists(_) => ErrorClass::User,
            Self::Held { .. } => ErrorClass::Environment,
            Self::Storage(error) => error.class(),
        }
    }
}

/// The right to deploy into a workspace and to run it. There is at most one holder at a time; who has it may share it, and it
/// is given back with the last share.
#[derive(Debug, Clone)]
pub struct WorkspaceLease {
    workspace: WorkspaceName,
    holder: Holder,
    _lease: Arc<Lease>,
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
                let (workspace, holder) = (workspace.clone(), holder.clone());
                Ok(Self { workspace, holder, _lease: Arc::new(lease) })
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

/// What is deployed in a workspace.
pub async fn find(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
) -> Result<WorkspaceRecord, WorkspaceError> {
    let record = read(storage.refs(), &deployed_name(workspace)).await.map_err(StorageError::from)?;
    record.ok_or_else(|| WorkspaceError::NotFound(workspace.clone()))
}

/// A package that is to be deployed.
#[derive(Debug, Clone, Copy)]
pub struct Deployment<'a> {
    /// The package object.
    pub object: ObjectRef,
    /// The package.
    pub package: &'a Package,
    /// The inputs that follow files of a project, with what these hold now.
    pub tracked: &'a [Assignment],
    /// How the files looked that the tracked inputs follow, if that is to be remembered.
    pub looks: Option<&'a Looks>,
    /// Whether values that a person has set are dropped.
    pub reset: bool,
}

/// What a deployment comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeployReport {
    /// Those that keep the value which a person gave them.
    pub kept: Vec<DatasetPath>,
    /// Those that had such a value and cannot keep it, because their kind is another one or they are gone.
    pub dropped: Vec<DatasetPath>,
    /// Whether another package was there before.
    pub is_new_package: bool,
}

impl Deployment<'_> {
    /// What the inputs would hold: the value that a person has set, if the package that was there had an input of that path
    /// and kind, or cannot be read any more; else what the file holds that it follows; else the package's default; else
    /// nothing.
    ///
    /// A tracked input that is no input of the package is left out. Returns those that hold something, in order.
    pub fn applied_to(
        &self,
        before: &BTreeMap<DatasetPath, DatasetRef>,
        old: Option<&Package>,
        now: Timestamp,
    ) -> (Vec<(DatasetPath, DatasetRef)>, DeployReport) {
        let outputs: HashSet<_> = self.package.tasks.values().map(|task| &task.output).collect();
        let tracked: HashMap<_, _> = self.tracked.iter().map(|value| (&value.path, value.object)).collect();
        let (mut roots, mut report) = (Vec::new(), DeployReport::default());
        for (path, slot) in &self.package.datasets {
            if outputs.contains(path) {
                continue;
            }
            let there = before.get(path);
            // If nobody can tell any more what it was, nothing is lost.
            let same_kind =
                old.is_none_or(|old| old.datasets.get(path).is_some_and(|old| old.kind == slot.kind));
            let kept = there.filter(|value| value.origin == Origin::User && same_kind && !self.reset);
            let given = tracked
                .get(path)
                .map(|object| (*object, Origin::Project))
                .or_else(|| slot.default.as_deref().map(|object| (*object, Origin::Default)));
            let value = match (kept, given) {
                (Some(kept), _) => {
                    report.kept.push(path.clone());
                    kept.clone()
                }
                (None, Some((object, origin))) => match there {
                    Some(there) if there.object == object && there.origin == origin => there.clone(),
                    _ => DatasetRef { object, origin, at: now, made: None },
                },
                (None, None) => continue,
            };
            roots.push((path.clone(), value));
        }
        // They are in order, as the datasets are.
        let lost = |path: &&DatasetPath| report.kept.binary_search(path).is_err() && !self.reset;
        let by_user = before.iter().filter(|(_, value)| value.origin == Origin::User).map(|(path, _)| path);
        report.dropped = by_user.filter(lost).cloned().collect();
        (roots, report)
    }
}

/// Deploys a package, unless the workspace is as it would make it already. Outputs that the package has too are kept:
/// whether they are current follows from what they were made of.
pub async fn deploy(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    lease: &WorkspaceLease,
    deployment: Deployment<'_>,
) -> Result<DeployReport, WorkspaceError> {
    let workspace = lease.workspace();
    loop {
        let head_name = operations::head_name(workspace);
        let head = storage.refs().read(std::slice::from_ref(&head_name)).await.map_err(StorageError::from)?;
        let head = head.into_iter().next().flatten();
        let now = clock.now();
        let before = datasets::read_roots(storage.refs(), workspace).await.map_err(StorageError::from)?;
        let old = match find(storage, workspace).await {
            Ok(record) => Some(record.package),
            Err(WorkspaceError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let other = match old.filter(|object| *object != deployment.object) {
            Some(object) => match super::packages::load(storage, object).await {
                Err(PackageError::Storage(error)) if !error.is_of_a_lost_object() => return Err(error.into()),
                other => other.ok(),
            },
            None => None,
        };
        let old_package =
            if old == Some(deployment.object) { Some(deployment.package) } else { other.as_ref() };
        let (roots, mut report) = deployment.applied_to(&before, old_package, now);
        report.is_new_package = old != Some(deployment.object);
        let package = (old != Some(deployment.object))
            .then_some(PackageChange { before: old, after: deployment.object });
        let changes = difference(before, roots);
        let followed_before = followed::find(storage, workspace).await.map_err(StorageError::from)?;
        let follow = |operation| {
            let remember = |looks: &Looks| {
                let now = Followed::new(operation, deployment.object.hash, looks, report.kept.clone());
                let is_news = followed_before.as_ref() != Some(&now);
                is_news.then(|| now.remember(workspace, &looks.0, followed_before.as_ref(), None))
            };
            deployment.looks.and_then(remember).unwrap_or_default()
        };
        let number = operations::number_of(workspace, head.as_ref()).map_err(StorageError::from)?;
        if package.is_none() && changes.is_empty() {
            // Another operation at the same time makes it another number, and this of no account.
            storage.refs().write(follow(number)).await.map_err(StorageError::from)?;
            return Ok(report);
        }
        let kind =
            if package.is_some() || deployment.reset { OperationKind::Deploy } else { OperationKind::Track };
        let operation = Operation { number: 0, at: now, kind, package, changes };
        let mut changes = operations::commit(workspace, head, operation)?;
        changes.extend(follow(number + 1));
        if report.is_new_package {
            let record = WorkspaceRecord { package: deployment.object, deployed: now };
            changes.push(RefChange::set(deployed_name(workspace), encode(&record)));
            let outputs =
                datasets::read_outputs(storage.refs(), workspace).await.map_err(StorageError::from)?;
            let stays: HashSet<_> = deployment.package.tasks.values().map(|task| &task.output).collect();
            changes.extend(
                outputs
                    .keys()
                    .filter(|path| !stays.contains(path))
                    .map(|path| datasets::withdraw(workspace, path)),
            );
        }
        match storage.refs().write(changes).await {
            Ok(()) => return Ok(report),
            Err(RefError::Conflict(_)) => {}
            Err(error) => return Err(StorageError::from(error).into()),
        }
    }
}

/// A workspace to which nothing was done since a deployment that has looked at the files of the tracked inputs.
#[derive(Debug)]
pub struct Following {
    followed: Followed,
    before: Looks,
    /// The numbers of those inputs whose files look otherwise now, or might have held something else then.
    pub changed: Vec<usize>,
}

/// Whether this package was deployed last, and nothing was done to the workspace since; then what looks otherwise now.
pub async fn following(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    package: Hash,
    looks: &Looks,
) -> Result<Option<Following>, StorageError> {
    let operation = operations::head(storage, workspace).await?;
    let is_last = |followed: &Followed| {
        (followed.operation, followed.package, followed.inputs) == (operation, package, looks.0.0.len())
    };
    let Some(followed) = followed::find(storage, workspace).await?.filter(is_last) else { return Ok(None) };
    let before = match followed::looks(storage, workspace, &followed).await {
        Err(RefError::Corrupt { name, message }) => {
            // All of it can be found out again.
            tracing::warn!(%name, message, "what is followed cannot be read: all files are asked about");
            return Ok(None);
        }
        other => Looks(other?),
    };
    let pairs = before.0.0.iter().zip(&looks.0.0).enumerate();
    let changed = pairs.filter(|(_, (before, now))| before != now);
    let changed = changed.map(|(number, _)| number).collect();
    Ok(Some(Following { followed, before, changed }))
}

/// Gives those inputs that follow files which look otherwise now what these hold: `values`. What the others hold is not asked.
/// Returns the inputs that keep what a person has set; nothing is done, and `None` returned, if that is not all there is to do.
pub async fn follow(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    lease: &WorkspaceLease,
    following: &Following,
    values: &[Assignment],
    looks: &Looks,
) -> Result<Option<Vec<DatasetPath>>, WorkspaceError> {
    let workspace = lease.workspace();
    let Following { followed, before, .. } = following;
    let paths: Vec<&DatasetPath> = values.iter().map(|value| &value.path).collect();
    let head_name = operations::head_name(workspace);
    let head = storage.refs().read(std::slice::from_ref(&head_name)).await.map_err(StorageError::from)?;
    let head = head.into_iter().next().flatten();
    let there =
        datasets::read_some_roots(storage.refs(), workspace, &paths).await.map_err(StorageError::from)?;
    let number = operations::number_of(workspace, head.as_ref()).map_err(StorageError::from)?;
    if number != followed.operation || there.contains(&None) {
        return Ok(None);
    }
    let at = clock.now();
    let mut changes = Vec::new();
    for (Assignment { path, object, .. }, before) in values.iter().zip(there) {
        let is_kept = |before: &DatasetRef| before.origin == Origin::User;
        let is_same = |before: &DatasetRef| before.object == *object && before.origin == Origin::Project;
        if before.as_ref().is_some_and(|before| !is_kept(before) && !is_same(before)) {
            let after = Some(DatasetRef { object: *object, origin: Origin::Project, at, made: None });
            changes.push(RootChange { path: path.clone(), before, after });
        }
    }
    let operation = if changes.is_empty() { number } else { number + 1 };
    let now = Followed::new(operation, followed.package, looks, followed.kept.clone());
    let remembered = now.remember(workspace, &looks.0, Some(followed), Some(&before.0));
    let changes = if changes.is_empty() {
        remembered
    } else {
        let operation = Operation { number: 0, at, kind: OperationKind::Track, package: None, changes };
        let mut changes = operations::commit(workspace, head, operation)?;
        changes.extend(remembered);
        changes
    };
    match storage.refs().write(changes).await {
        Ok(()) => Ok(Some(now.kept)),
        Err(RefError::Conflict(_)) => Ok(None),
        Err(error) => Err(StorageError::from(error).into()),
    }
}

/// What has to change to get from one set of inputs to another.
fn difference(
    mut before: BTreeMap<DatasetPath, DatasetRef>,
    after: impl IntoIterator<Item = (DatasetPath, DatasetRef)>,
) -> Vec<RootChange> {
    let mut changes = Vec::new();
    for (path, after) in after {
        let before = before.remove(&path);
        if before.as_ref() != Some(&after) {
            changes.push(RootChange { path, before, after: Some(after) });
        }
    }
    let gone = before.into_iter();
    changes.extend(gone.map(|(path, before)| RootChange { path, before: Some(before), after: None }));
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    changes
}

/// The names of all workspaces.
pub async fn list(storage: &dyn StorageBackend) -> Result<Vec<WorkspaceName>, StorageError> {
    let mut names = Vec::new();
    let mut after: Option<RefName> = None;
    loop {
        let mut scan = Scan::under(&[&"workspaces"]);
        (scan.after, scan.limit) = (after, 1);
        let Some((name, _)) = storage.refs().scan(scan).await?.pop() else { return Ok(names) };
        let workspace: WorkspaceName =
            name.workspace().and_then(|text| text.parse().ok()).ok_or_else(|| RefError::Corrupt {
                name: name.clone(),
                message: "expected workspaces/NAME/...".to_owned(),
            })?;
        // On to the next one: no name of this workspace sorts behind this.
        after = Some(RefName::from_stored(format!("workspaces/{workspace}/\u{7f}")));
        names.push(workspace);
    }
}

/// Makes a workspace that is like another one: the same package, the same values. Only refs are copied. Returns how many
/// datasets hold something.
pub async fn fork(
    storage: &dyn StorageBackend,
    clock: &dyn Clock,
    from: &WorkspaceName,
    to: &WorkspaceName,
) -> Result<usize, WorkspaceError> {
    // Read again if something has changed meanwhile, so that the copy is of one moment.
    let (record, roots, outputs) = loop {
        let counter = || storage.refs().change_counter(from);
        let before = counter().await.map_err(StorageError::from)?;
        let record = find(storage, from).await?;
        let roots = datasets::read_roots(storage.refs(), from).await.map_err(StorageError::from)?;
        let outputs = datasets::read_outputs(storage.refs(), from).await.map_err(StorageError::from)?;
        if counter().await.map_err(StorageError::from)? == before {
            break (record, roots, outputs);
        }
    };
    let now = clock.now();
    let count = roots.len() + outputs.len();
    let operation = Operation {
        number: 0,
        at: now,
        kind: OperationKind::Fork { from: from.clone() },
        package: Some(PackageChange { before: None, after: record.package }),
        changes: difference(BTreeMap::new(), roots),
    };
    let mut changes = operations::commit(to, None, operation)?;
    let record = WorkspaceRecord { package: record.package, deployed: now };
    changes.push(RefChange::set(deployed_name(to), encode(&record)).when(Precondition::Absent));
    changes.extend(outputs.iter().map(|(path, value)| datasets::publish(to, path, value)));
    match storage.refs().write(changes).await {
        Ok(()) => Ok(count),
        Err(RefError::Conflict(_)) => Err(WorkspaceError::Exists(to.clone())),
        Err(error) => Err(StorageError::from(error).into()),
    }
}

/// Removes a workspace: its package, values and operations. Objects, executions and the records of runs stay.
pub async fn remove(storage: &dyn StorageBackend, lease: &WorkspaceLease) -> Result<(), WorkspaceError> {
    let workspace = lease.workspace();
    find(storage, workspace).await?;
    let mut names = Vec::new();
    // Of what stands there may be more than is settled, if a run was killed at its very end.
    for kind in ["workspaces", "outputs", "standing"] {
        let scan = Scan::under(&[&kind, workspace]);
        let found = storage.refs().scan(scan).await.map_err(StorageError::from)?;
        names.extend(found.into_iter().map(|(name, _)| name));
    }
    names.extend(super::history::durations_names(workspace));
    let mut changes: Vec<_> = names.into_iter().map(RefChange::remove).collect();
    changes.extend(settled::forget(storage, workspace).await.map_err(StorageError::from)?);
    changes.extend(followed::forget(storage, workspace).await.map_err(StorageError::from)?);
    storage.refs().write(changes).await.map_err(StorageError::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_is_new_another_or_gone_in_order() {
        let value = |(path, text): (&str, &str)| {
            let (object, at) = (ObjectRef::of(text.as_bytes()), Timestamp::default());
            (path.parse().unwrap(), DatasetRef { object, origin: Origin::User, at, made: None })
        };
        let before = [("a", "1"), ("c", "1"), ("d", "1"), ("e", "1")].map(value).into();
        let changes = difference(before, [("b", "1"), ("c", "2"), ("d", "1"), ("f", "1")].map(value));
        let told = changes.iter().map(|RootChange { path, before, after }| {
            let object = |value: &Option<DatasetRef>| value.as_ref().map(|value| value.object);
            (path.as_str(), object(before), object(after))
        });
        let (one, two) = (Some(ObjectRef::of(b"1")), Some(ObjectRef::of(b"2")));
        let expected =
            [("a", one, None), ("b", None, one), ("c", one, two), ("e", one, None), ("f", None, one)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}
