//! `dataflow_execute`: runs a workspace with a runner and a storage, both given from outside.

use std::{collections::BTreeMap, sync::Arc};

use e3_types::{Name, ObjectRef, Package, RunState, WorkspaceName};

use super::{
    graph::Graph,
    journal,
    options::{DataflowError, DataflowOptions, DataflowPolicy, Force, RunReport},
    orchestrator::Orchestrator,
    pattern::NamePattern,
    ready::CPU_NAME,
    settled,
    standing::Standing,
    state::Dataflow,
};
use crate::{
    PackageError, RunRecord, StorageBackend, WorkspaceError, WorkspaceLease, datasets, history, operations,
    packages, runs, workspaces,
};

/// Executes what is deployed in a workspace until every output is what it should be: on the inputs as they are then, also
/// if they change meanwhile.
pub async fn dataflow_execute(
    storage: Arc<dyn StorageBackend>,
    workspace: &WorkspaceName,
    options: DataflowOptions,
) -> Result<RunReport, DataflowError> {
    let lease = WorkspaceLease::acquire(&*storage, workspace, &options.holder).await?;
    dataflow_execute_held(storage, &lease, options).await
}

/// The same for a caller who holds the workspace already.
pub async fn dataflow_execute_held(
    storage: Arc<dyn StorageBackend>,
    lease: &WorkspaceLease,
    mut options: DataflowOptions,
) -> Result<RunReport, DataflowError> {
    let workspace = lease.workspace();
    let failed = |error: crate::RefError| WorkspaceError::Storage(error.into());
    let lost = runs::settle_lost(&*storage, &*options.clock, workspace, Some(lease))
        .await
        .map_err(WorkspaceError::from)?;
    let deployed = workspaces::find(&*storage, workspace).await?;
    // What is read first is at most older than what is read next: a change in between is seen as one, and does nothing.
    let counter = storage.refs().change_counter(workspace).await.map_err(failed)?;
    let operation = operations::head(&*storage, workspace).await.map_err(failed)?;
    let mut record = RunRecord {
        run: options.run.unwrap_or_else(|| options.clock.new_run()),
        workspace: workspace.clone(),
        package: deployed.package,
        operation,
        options: options.record(),
        state: RunState::Running,
        started: options.clock.now(),
        ended: None,
        summary: None,
        owner: options.holder.clone(),
    };
    let mut standing = None;
    if settled::covers_everything(&options)
        && let Some(settled) = settled::find(&*storage, workspace).await.map_err(failed)?
    {
        let hash = deployed.package.hash;
        if settled.is_of_now(&*storage, counter, hash).await.map_err(WorkspaceError::from)? {
            let report = settled::run(&*storage, &options, record, &settled).await.map_err(failed)?;
            return Ok(RunReport { lost, ..report });
        }
        standing = options.standing.take().filter(|standing| standing.is_of(&settled));
        if standing.is_none() {
            let found = Standing::find(&*storage, workspace, hash).await.map_err(WorkspaceError::from)?;
            standing = found.map(Box::new);
        }
        if let Some(found) = &mut standing
            && !found.bring_up_to_date(&*storage, workspace).await.map_err(WorkspaceError::from)?
        {
            standing = None;
        }
    }
    let flow = match &mut standing {
        Some(standing) => from_what_stands(&options, standing)?,
        None => from_the_start(&*storage, workspace, &mut options, deployed.package).await?,
    };
    // It may be large, and what stands needs none of it.
    options.package = None;
    let run = record.run;
    let interrupted = |source| DataflowError::Interrupted { run, source };
    let started = runs::record_start(&*storage, &record, standing.is_some()).await;
    started.map_err(|error| interrupted(error.into()))?;
    let (journal, entries) = journal::open();
    let orchestrator = Orchestrator::new(&storage, &options, &mut record, flow, standing, counter, journal)
        .await
        .map_err(|error| interrupted(error.into()))?;
    // The loop and the journal run side by side, so that neither outlives the other.
    let (ended, kept) =
        tokio::join!(orchestrator.run(), journal::keep(&*storage, run, entries, &*options.events));
    // If the journal failed, the loop only noticed that nobody listens any more.
    kept.map_err(interrupted)?;
    Ok(RunReport { lost, ..ended? })
}

/// The state of a run that has to ask about every task.
async fn from_the_start(
    storage: &dyn StorageBackend,
    workspace: &WorkspaceName,
    options: &mut DataflowOptions,
    deployed: ObjectRef,
) -> Result<Dataflow, DataflowError> {
    let failed = |error: crate::RefError| WorkspaceError::Storage(error.into());
    // It may be large: from here on, all that is needed of it is in the graph.
    let graph = {
        let package = match options.package.take().filter(|(object, _)| *object == deployed) {
            Some((_, package)) => package,
            None => packages::load(storage, deployed).await?,
        };
        graph(&package, &options.targets, &options.force)?
    };
    check_limits(&graph, &options.limits)?;
    let roots = datasets::read_roots(storage.refs(), workspace).await.map_err(failed)?;
    let durations = history::durations(storage, workspace).await.map_err(failed)?;
    let root = |path: &_| roots.get(path).map(|value| value.object);
    let took = |task| durations.get(graph.name(task)).copied();
    let uncached = |name: &_| options.force.reason(name);
    Ok(Dataflow::new(&graph, &policy(options), root, uncached, took))
}

/// The state of a run that takes over what stands.
fn from_what_stands(options: &DataflowOptions, standing: &mut Standing) -> Result<Dataflow, DataflowError> {
    let graph = Arc::clone(&standing.graph);
    check_limits(&graph, &options.limits)?;
    let roots = standing.take_roots();
    let standing = &*standing;
    let stands = |task| standing.result(task).map(|cell| (cell.object, cell.took_ms));
    let took = |task| standing.took_ms(task);
    Ok(Dataflow::standing(&graph, &policy(options), roots, |_| None, took, stands))
}

fn policy(options: &DataflowOptions) -> DataflowPolicy {
    DataflowPolicy { slots: options.slots, limits: options.limits.clone(), on_failure: options.on_failure }
}

/// The graph of the tasks that are meant.
pub(crate) fn graph(
    package: &Package,
    targets: &[NamePattern],
    force: &Force,
) -> Result<Arc<Graph>, DataflowError> {
    let no_match =
        |pattern: NamePattern| DataflowError::NoMatch { pattern: pattern.to_string(), similar: None };
    let selected = NamePattern::select(targets, package).map_err(no_match)?;
    if let Force::Matching(patterns) = force {
        NamePattern::select(patterns, package).map_err(no_match)?;
    }
    let graph =
        Graph::new(&selected).map_err(|source| PackageError::Graph { name: package.name.clone(), source })?;
    Ok(Arc::new(graph))
}

/// Refuses tasks that need more than there is.
pub(crate) fn check_limits(graph: &Graph, limits: &BTreeMap<Name, u64>) -> Result<(), DataflowError> {
    for policy in graph.policies() {
        for (resource, &needs) in policy.resources.iter().filter(|(name, _)| name.as_str() != CPU_NAME) {
            if let Some(&limit) = limits.get(resource)
                && needs > limit
            {
                let task = graph.in_order().find(|task| graph.policy(*task) == policy);
                let task: Name =
                    task.map(|task| graph.name(task).clone()).expect("every policy is that of a task");
                return Err(DataflowError::Unsatisfiable { task, resource: resource.clone(), needs, limit });
            }
        }
    }
    Ok(())
}
