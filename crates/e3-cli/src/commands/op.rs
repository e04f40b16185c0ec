//! `e3 op log` and `e3 undo`: the changes of a workspace, and taking them back.

use e3_core::{Operation, OperationKind, RootChange, WorkspaceError, WorkspaceLease, operations};
use e3_types::WorkspaceName;
use serde::Serialize;

use crate::{
    args::OpLogArgs,
    context::Context,
    error::{CliError, Exit, Result},
    format,
};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    workspace: &'a WorkspaceName,
    operations: Vec<Operation>,
}

#[derive(Serialize)]
struct Undone<'a> {
    schema: &'static str,
    workspace: &'a WorkspaceName,
    undone: Operation,
    operation: u64,
}

pub(crate) async fn log(context: &Context, args: &OpLogArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    let found = operations::list(&*storage, &context.workspace, args.before, args.limit).await?;
    if found.is_empty() && args.before.is_none() {
        return Err(WorkspaceError::NotFound(context.workspace.clone()).into());
    }
    if context.console.json {
        let workspace = &context.workspace;
        context.console.document(&Document { schema: "e3.operations/1", workspace, operations: found })?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|operation| {
            [operation.number.to_string(), format::time(operation.at), kind(&operation.kind), what(operation)]
        })
        .collect();
    context.console.result(&format::table(["NUMBER", "WHEN", "WHAT", ""], &rows))?;
    if let (true, Some(last)) = (found.len() == args.limit, found.last().filter(|last| last.number > 1)) {
        let next = format!("op log --before {}", last.number);
        context.console.note(&format!("more: {}", context.command(&next)));
    }
    Ok(Exit::Done)
}

pub(crate) async fn undo(context: &Context) -> Result<Exit> {
    let storage = context.open_repository()?;
    // What changes the package needs an idle workspace; what changes inputs does not, as `set` does not.
    let target = operations::last_standing(&*storage, &context.workspace).await?;
    let _lease = match target {
        Some(Operation { package: Some(_), .. }) => {
            Some(WorkspaceLease::acquire(&*storage, &context.workspace, &context.holder).await?)
        }
        _ => None,
    };
    let (undone, operation) = operations::undo(&*storage, &*context.clock, &context.workspace).await?;
    if context.console.json {
        let workspace = &context.workspace;
        let operation = operation.number;
        context.console.document(&Undone { schema: "e3.undo/1", workspace, undone, operation })?;
    } else {
        let text =
            format!("took back operation {}: {} {}\n", undone.number, kind(&undone.kind), what(&undone));
        context.console.result(&text)?;
    }
    Ok(Exit::Done)
}

impl From<e3_core::UndoError> for CliError {
    fn from(error: e3_core::UndoError) -> Self {
        match error {
            e3_core::UndoError::Workspace(error) => error.into(),
            other => Self::new(Exit::NoMatch, other.to_string()),
        }
    }
}

fn kind(kind: &OperationKind) -> String {
    match kind {
        OperationKind::Deploy => "deploy".to_owned(),
        OperationKind::Set => "set".to_owned(),
        OperationKind::Track => "track".to_owned(),
        OperationKind::Fork { from } => format!("fork of {from}"),
        OperationKind::Undo { undone } => format!("undo of {undone}"),
    }
}

/// How many inputs are named.
const SHOWN: usize = 6;

fn what(operation: &Operation) -> String {
    let mut parts = Vec::new();
    if let Some(package) = &operation.package {
        parts.push(format!("package {}", super::why::short(package.after.hash)));
    }
    for RootChange { path, before, after } in operation.changes.iter().take(SHOWN) {
        let short = |value: &e3_core::DatasetRef| super::why::short(value.object.hash);
        parts.push(match (before, after) {
            (Some(before), Some(after)) => format!("{path} {} -> {}", short(before), short(after)),
            (None, Some(after)) => format!("{path} = {}", short(after)),
            (_, None) => format!("{path} has no value any more"),
        });
    }
    if operation.changes.len() > SHOWN {
        parts.push(format!("and {} more", operation.changes.len() - SHOWN));
    }
    parts.join(", ")
}
