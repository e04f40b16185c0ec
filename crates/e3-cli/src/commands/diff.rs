//! `e3 diff`: what differs between two runs.

use e3_core::{RunsDifference, StorageBackend, runs, runs_difference};
use e3_types::RunId;
use serde::Serialize;

use super::why::lines;
use crate::{
    args::DiffArgs,
    context::Context,
    error::{CliError, Exit, Result},
};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    before: RunId,
    after: RunId,
    #[serde(flatten)]
    difference: &'a RunsDifference,
}

pub(crate) async fn diff(context: &Context, args: &DiffArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    for run in [args.before, args.after] {
        must_be_there(&*storage, run).await?;
    }
    let found = runs_difference(&*storage, args.before, args.after).await?;
    if context.console.json {
        let (before, after) = (args.before, args.after);
        context.console.document(&Document { schema: "e3.diff/1", before, after, difference: &found })?;
    } else {
        context.console.result(&text(&found))?;
    }
    Ok(Exit::Done)
}

/// Runs of other workspaces can be compared too, so they are looked for by their events.
async fn must_be_there(storage: &dyn StorageBackend, run: RunId) -> Result<()> {
    let first = runs::next_events(storage, run, &mut runs::EventCursor::default()).await?;
    if first.is_empty() {
        return Err(CliError::not_found(format!("there is no run {run}: `e3 runs` shows what there is")));
    }
    Ok(())
}

fn text(found: &RunsDifference) -> String {
    let mut text = String::new();
    for (task, difference) in &found.tasks {
        let shown = |end: &Option<String>| match end {
            None => "not part of it".to_owned(),
            Some(end) => end.parse().map_or_else(|_| end.clone(), super::why::short),
        };
        let (before, after) = (shown(&difference.before), shown(&difference.after));
        text += &if before == after {
            format!("{task}: {before} in both\n")
        } else {
            format!("{task}: {before} -> {after}\n")
        };
        for difference in &difference.differences {
            text += &lines(difference, "");
        }
    }
    let tasks = if found.same == 1 { "1 task is".to_owned() } else { format!("{} tasks are", found.same) };
    text + &format!("{tasks} the same in both\n")
}
