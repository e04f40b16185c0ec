//! `e3 plan`: what a run would do, and why.

use std::collections::BTreeMap;

use e3_console::reason_text;
use e3_core::{Decision, EntriesPlan, Force, Plan, PlanOptions, PlannedTask, plan as make_plan};
use e3_types::WorkspaceName;
use serde::Serialize;

use super::{
    execute::{limits, no_match_in},
    stage::Stage,
};
use crate::{
    args::{ExecuteArgs, PlanArgs, SelectArgs},
    context::Context,
    error::{Exit, Result},
    format,
};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    workspace: &'a WorkspaceName,
    counts: BTreeMap<&'static str, usize>,
    #[serde(flatten)]
    plan: &'a Plan,
}

pub(crate) async fn plan(context: &Context, args: PlanArgs) -> Result<Exit> {
    let stage = Stage::for_run(context, args.reset).await?;
    tell(context, stage, args.select).await
}

/// The same for `run --dry-run` and `start --dry-run`.
pub(crate) async fn dry_run(context: &Context, stage: Stage, args: ExecuteArgs) -> Result<Exit> {
    tell(context, stage, args.select).await
}

async fn tell(context: &Context, stage: Stage, args: SelectArgs) -> Result<Exit> {
    let limits = limits(stage.settings.limits.clone(), &args);
    let options = PlanOptions { targets: args.targets, force: Force::from_option(args.force), limits };
    let made = make_plan(&*stage.storage, &stage.package, &stage.objects(), &options).await;
    let made = made.map_err(|error| no_match_in(&stage.package, error))?;
    let mut counts = BTreeMap::new();
    for task in &made.tasks {
        *counts.entry(word(&task.decision)).or_default() += 1;
    }
    if context.console.json {
        let workspace = &context.workspace;
        context.console.document(&Document { schema: "e3.plan/1", workspace, counts, plan: &made })?;
    } else {
        context.console.result(&text(&made, &counts))?;
    }
    Ok(Exit::Done)
}

/// The word for a decision; `--json` has the same.
pub(crate) fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Run { .. } => "run",
        Decision::Cached { .. } => "cached",
        Decision::Depends { .. } => "depends",
        Decision::Blocked { .. } => "blocked",
        Decision::Error { .. } => "error",
    }
}

fn text(plan: &Plan, counts: &BTreeMap<&'static str, usize>) -> String {
    let rows: Vec<_> = plan
        .tasks
        .iter()
        .map(|task| [word(&task.decision).to_owned(), task.task.to_string(), detail(task)])
        .collect();
    let mut text = format::table(["WHAT", "TASK", "WHY"], &rows);
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let tasks =
        if plan.tasks.len() == 1 { "1 task".to_owned() } else { format!("{} tasks", plan.tasks.len()) };
    text += &format!("\n{tasks}: {}\n", counts.join(", "));
    text
}

fn detail(task: &PlannedTask) -> String {
    let entries = match &task.entries {
        None => String::new(),
        Some(EntriesPlan::Unknown) => "; how many entries it has is not known yet".to_owned(),
        Some(EntriesPlan::Known { total, run }) => {
            let mut text = format!("; {} of {total} entries to run", run.len());
            let names: Vec<_> = run.keys().take(SHOWN).map(|name| &**name).collect();
            if !names.is_empty() {
                let more = if run.len() > SHOWN { ", ..." } else { "" };
                text += &format!(": {}{more}", names.join(", "));
            }
            text
        }
    };
    decision_text(&task.decision) + &entries
}

/// How many entries are named.
const SHOWN: usize = 5;

/// Why that is to be done.
pub(crate) fn decision_text(decision: &Decision) -> String {
    match decision {
        Decision::Run { because } => reason_text(*because).to_owned(),
        Decision::Cached { execution: Some(execution), .. } => format!("known from execution {execution}"),
        Decision::Cached { execution: None, .. } => "known for every entry".to_owned(),
        Decision::Depends { on } => {
            let names: Vec<_> = on.iter().map(|name| format!("`{name}`")).collect();
            let verb = if on.len() == 1 { "makes" } else { "make" };
            format!("only if {} {verb} something that it has not been executed on", names.join(", "))
        }
        Decision::Blocked { dataset } => format!("input `{dataset}` has no value"),
        Decision::Error { message } => message.clone(),
    }
}
