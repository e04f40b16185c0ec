//! `e3 status`: how the tasks of the workspace stand.

use std::collections::BTreeMap;

use e3_core::{TaskStatus, runs, status};
use e3_types::{Hash, Name, PackageName, PackageVersion, RunId, RunState, Timestamp, WorkspaceName};
use serde::Serialize;

use crate::{
    context::{Context, Deployed},
    error::{Exit, Result},
    format,
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    workspace: WorkspaceName,
    package: PackageName,
    version: PackageVersion,
    deployed: Timestamp,
    last_run: Option<LastRun>,
    tasks: BTreeMap<Name, Task>,
}

#[derive(Serialize)]
struct LastRun {
    run: RunId,
    state: RunState,
    started: Timestamp,
}

#[derive(Serialize)]
struct Task {
    state: &'static str,
    detail: Option<String>,
    output: Option<Hash>,
    at: Option<Timestamp>,
}

pub(crate) async fn status(context: &Context) -> Result<Exit> {
    let Deployed { storage, since, package, values } = context.deployed().await?;
    runs::settle_lost(&*storage, &*context.clock, &context.workspace, None).await?;
    let statuses = status::tasks(&*storage, &package, &values).await?;
    let last = runs::list(&*storage, &context.workspace, None, 1).await?.pop();
    let last_run = last.map(|run| LastRun { run: run.run, state: run.state, started: run.started });

    let mut tasks = BTreeMap::new();
    for (name, status) in statuses {
        let value = values.get(&package.tasks[&name].output);
        let (state, detail) = match status {
            TaskStatus::UpToDate => ("up to date", None),
            TaskStatus::Running { holders } => {
                let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
                ("running", Some(format!("by {}", holders.join(", "))))
            }
            TaskStatus::Failed { item: Some(item), failure, .. } => {
                ("failed", Some(format!("entry `{item}` {failure}")))
            }
            TaskStatus::Failed { item: None, failure, .. } => ("failed", Some(failure)),
            TaskStatus::OutputMissing => {
                ("out of date", Some("its output is no longer in the store".to_owned()))
            }
            TaskStatus::Pending if value.is_some() => ("out of date", None),
            TaskStatus::Pending => ("not run", None),
            TaskStatus::Blocked { dataset } => ("blocked", Some(format!("input `{dataset}` has no value"))),
        };
        let output = value.map(|value| value.object.hash);
        tasks.insert(name, Task { state, detail, output, at: value.map(|value| value.at) });
    }
    let document = Document {
        schema: "e3.status/1",
        workspace: context.workspace.clone(),
        package: package.name,
        version: package.version,
        deployed: since,
        last_run,
        tasks,
    };
    if context.console.json {
        context.console.document(&document)?;
    } else {
        show(context, &document)?;
    }
    Ok(Exit::Done)
}

fn show(context: &Context, document: &Document) -> Result<()> {
    let now = context.clock.now();
    let mut text = format!("workspace {}: {} {}", document.workspace, document.package, document.version);
    if let Some(LastRun { run, state, started }) = &document.last_run {
        text += &format!(", last run {run} {state}, {}", format::age(*started, now));
    }
    text += "\n\n";
    let rows: Vec<_> = document
        .tasks
        .iter()
        .map(|(name, task)| {
            let age = task.at.map_or_else(|| "-".to_owned(), |at| format::age(at, now));
            let detail = task.detail.as_deref().and_then(|detail| detail.lines().next()).unwrap_or_default();
            [name.to_string(), task.state.to_owned(), age, detail.to_owned()]
        })
        .collect();
    text += &format::table(["TASK", "STATE", "OUTPUT", ""], &rows);
    context.console.result(&text)
}
