//! `e3 workspace`: list, fork, deploy, remove.

use e3_core::{Deployment, WorkspaceLease, packages, runs, workspaces};
use e3_types::{DatasetPath, PackageName, PackageVersion, RunState, Timestamp, WorkspaceName};
use serde::Serialize;

use super::package::find_package;
use crate::{
    args::{DeployArgs, ForkArgs, WorkspaceCommand},
    context::Context,
    error::{Exit, Result},
    format,
};

#[derive(Serialize)]
struct Listed {
    workspace: WorkspaceName,
    package: PackageName,
    version: PackageVersion,
    deployed: Timestamp,
    last_run: Option<RunState>,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    workspaces: Vec<Listed>,
}

#[derive(Serialize)]
struct Done<'a> {
    schema: &'static str,
    workspace: &'a WorkspaceName,
}

pub(crate) async fn workspace(context: &Context, command: WorkspaceCommand) -> Result<Exit> {
    match command {
        WorkspaceCommand::List(_) => list(context).await,
        WorkspaceCommand::Fork(args) => fork(context, &args.args).await,
        WorkspaceCommand::Deploy(args) => deploy(context, &args.args).await,
        WorkspaceCommand::Remove(args) => remove(context, &args.args.name).await,
    }
}

async fn list(context: &Context) -> Result<Exit> {
    let storage = context.open_repository()?;
    let mut found = Vec::new();
    for workspace in workspaces::list(&*storage).await? {
        runs::settle_lost(&*storage, &*context.clock, &workspace, None).await?;
        let record = workspaces::find(&*storage, &workspace).await?;
        let package = packages::load(&*storage, record.package).await?;
        let last_run = runs::list(&*storage, &workspace, None, 1).await?.pop().map(|run| run.state);
        let (name, version) = (package.name, package.version);
        found.push(Listed { workspace, package: name, version, deployed: record.deployed, last_run });
    }
    if context.console.json {
        context.console.document(&Document { schema: "e3.workspaces/1", workspaces: found })?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|listed| {
            [
                listed.workspace.to_string(),
                format!("{} {}", listed.package, listed.version),
                format::time(listed.deployed),
                listed.last_run.map_or_else(|| "-".to_owned(), |state| state.to_string()),
            ]
        })
        .collect();
    context.console.result(&format::table(["WORKSPACE", "PACKAGE", "DEPLOYED", "LAST RUN"], &rows))?;
    Ok(Exit::Done)
}

async fn fork(context: &Context, args: &ForkArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    let count = workspaces::fork(&*storage, &*context.clock, &context.workspace, &args.name).await?;
    told(
        context,
        &args.name,
        &format!("made workspace {} with the {count} values of {}", args.name, context.workspace),
    )
}

async fn deploy(context: &Context, args: &DeployArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    let (_, _, object) = find_package(&*storage, &args.package).await?;
    let package = packages::load(&*storage, object).await?;
    let lease = WorkspaceLease::acquire(&*storage, &context.workspace, &context.holder).await?;
    let deployment = Deployment { object, package: &package, tracked: &[], looks: None, reset: args.reset };
    let report = workspaces::deploy(&*storage, &*context.clock, &lease, deployment).await?;
    for path in &report.kept {
        context.console.note(&format!("input `{path}` keeps the value that was set; `--reset` drops it"));
    }
    for path in &report.dropped {
        context.console.note(&dropped(path));
    }
    let text = format!("deployed {} {} in {}", package.name, package.version, context.workspace);
    told(context, &context.workspace, &text)
}

/// What is said of a value that a deployment does not keep.
pub(crate) fn dropped(path: &DatasetPath) -> String {
    format!(
        "input `{path}` has another kind now, or is gone: the value that was set is dropped; `e3 undo` brings it back"
    )
}

async fn remove(context: &Context, name: &WorkspaceName) -> Result<Exit> {
    let storage = context.open_repository()?;
    let lease = WorkspaceLease::acquire(&*storage, name, &context.holder).await?;
    workspaces::remove(&*storage, &lease).await?;
    told(context, name, &format!("removed workspace {name}"))
}

fn told(context: &Context, workspace: &WorkspaceName, text: &str) -> Result<Exit> {
    if context.console.json {
        context.console.document(&Done { schema: "e3.workspace/1", workspace })?;
    } else {
        context.console.note(text);
    }
    Ok(Exit::Done)
}
