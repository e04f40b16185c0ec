//! `e3 why`: why a task ran, or would run.

use e3_console::reason_text;
use e3_core::{
    Decision, Detail, DetailChange, Difference, Earlier, EntriesPlan, Origin, Provenance, Why,
    why as find_out,
};
use e3_pipeline::most_similar;
use e3_types::{CommandLine, ExecutionState, Hash, Name, WorkspaceName};
use serde::Serialize;

use super::{plan::decision_text, stage::Stage};
use crate::{
    args::WhyArgs,
    context::Context,
    error::{CliError, Exit, Result},
    format,
};

/// How many entries are named.
const SHOWN_ENTRIES: usize = 5;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    workspace: &'a WorkspaceName,
    #[serde(flatten)]
    why: &'a Why,
}

pub(crate) async fn why(context: &Context, args: &WhyArgs) -> Result<Exit> {
    let stage = Stage::for_run(context, false).await?;
    let Some(task) = stage.package.tasks.get(&args.task) else {
        let similar = most_similar(args.task.as_str(), stage.package.tasks.keys().map(Name::as_str));
        let hint = similar.map(|name| format!(": did you mean `{name}`?")).unwrap_or_default();
        return Err(CliError::not_found(format!("there is no task `{}`{hint}", args.task)));
    };
    let item = args.item.as_deref();
    if item.is_some() && task.each.is_none() {
        return Err(CliError::usage(format!(
            "`{}` does not run once per entry: `--item` means nothing",
            args.task
        )));
    }
    let storage = &*stage.storage;
    let found = find_out(storage, &context.workspace, &stage.package, &stage.roots, &args.task, item).await?;
    if context.console.json {
        let workspace = &context.workspace;
        context.console.document(&Document { schema: "e3.why/1", workspace, why: &found })?;
    } else {
        context.console.result(&text(&found))?;
    }
    Ok(Exit::Done)
}

fn text(why: &Why) -> String {
    let name = why.item.as_ref().map_or_else(|| why.task.to_string(), |item| format!("{}[{item}]", why.task));
    let now = match &why.now {
        Decision::Run { because } => format!("would run: {}", reason_text(*because)),
        Decision::Cached { .. } => "is up to date: its result is known".to_owned(),
        Decision::Depends { .. } => format!("may run: {}", decision_text(&why.now)),
        Decision::Blocked { .. } => format!("cannot run: {}", decision_text(&why.now)),
        Decision::Error { message } => format!("cannot run: {message}"),
    };
    let mut text = format!("{name} {now}\n");
    match &why.entries {
        Some(EntriesPlan::Known { total, run }) => {
            let names: Vec<_> = run.keys().take(SHOWN_ENTRIES).map(|name| format::quoted(name)).collect();
            let more = if run.len() > names.len() { ", ..." } else { "" };
            let which =
                if names.is_empty() { String::new() } else { format!(": {}{more}", names.join(", ")) };
            text += &format!("  {} of {total} entries to run{which}\n", run.len());
            if !run.is_empty() {
                text += "  `--item NAME` says why one of them\n";
            }
        }
        Some(EntriesPlan::Unknown) => text += "  how many entries it has is not known yet\n",
        None => {}
    }
    if let Some(made) = &why.made {
        text += &format!("  made by {}\n", execution(made));
        if let Some(because) = made.because {
            text += &format!("  which was executed because it had {}\n", past(because));
        }
    }
    match (&why.earlier, &why.key) {
        (None, _) if why.made.is_some() => text += "  there was no execution before it in this workspace\n",
        (None, _) if why.entries.is_some() => {}
        (None, _) => text += "  it has never been executed in this workspace\n",
        (Some(earlier), None) => text += &format!("  last: {}\n", execution(earlier)),
        (Some(earlier), Some(_)) if why.differences.is_empty() => {
            text += &format!("  nothing has changed since {}\n", execution(earlier));
        }
        (Some(earlier), Some(_)) => {
            text += &format!("  since {}:\n", execution(earlier));
            for difference in &why.differences {
                text += &difference_text(difference, why);
            }
            text += "  everything else is as it was\n";
        }
    }
    text
}

fn past(because: e3_types::RunReason) -> &'static str {
    use e3_types::RunReason;
    match because {
        RunReason::NoResult => "not been executed on these inputs before",
        RunReason::LastFailed => "failed on these inputs before",
        RunReason::OutputMissing => "lost its output from the store",
        RunReason::Forced => "been forced",
        RunReason::NeverCached => "been declared with `cache = false`",
    }
}

fn execution(found: &Earlier) -> String {
    let state = match (&found.failure, found.state) {
        (Some(failure), _) => format!(", {}", failure.lines().next().unwrap_or_default()),
        (None, ExecutionState::Success) => String::new(),
        (None, _) => ", not finished".to_owned(),
    };
    format!("execution {} ({}{state})", found.execution, format::time(found.at))
}

/// A difference, in one line or more.
fn difference_text(difference: &Difference, why: &Why) -> String {
    let from = match difference {
        Difference::Input { name, .. } => why.provenance.get(name).map(provenance).unwrap_or_default(),
        _ => String::new(),
    };
    lines(difference, &from)
}

/// The lines for a difference; `from` says where the new value of an input comes from.
pub(crate) fn lines(difference: &Difference, from: &str) -> String {
    match difference {
        Difference::Command { before, after } => {
            format!(
                "  - the command changed\n      from {}\n      to   {}\n",
                command(before),
                command(after)
            )
        }
        Difference::Env { name, before, after } => match (before, after) {
            (Some(before), Some(after)) => {
                format!("  - the variable {name} changed {before:?} -> {after:?}\n")
            }
            (None, _) => {
                format!("  - the variable {name} is new: {:?}\n", after.as_deref().unwrap_or_default())
            }
            (_, None) => format!("  - the variable {name} is gone\n"),
        },
        Difference::Output { before, after } => {
            format!("  - the kind of the output changed {before} -> {after}\n")
        }
        Difference::Staging => "  - the inputs are staged in another way\n".to_owned(),
        Difference::Input { name, before, after, details, more } => {
            let what = if name == "code" { "its code".to_owned() } else { format!("input `{name}`") };
            let mut text = match (before, after) {
                (Some(before), Some(after)) => {
                    format!("  - {what} changed {} -> {}{from}\n", short(*before), short(*after))
                }
                (None, _) => format!("  - {what} is new{from}\n"),
                (_, None) => format!("  - {what} is gone\n"),
            };
            for Detail { path, change } in details {
                let path = if path.is_empty() { "(the whole)" } else { path };
                text += &match change {
                    DetailChange::Added => format!("      added    {path}\n"),
                    DetailChange::Removed => format!("      removed  {path}\n"),
                    DetailChange::Changed { before, after } => {
                        format!("      changed  {path}  {} -> {}\n", value(before), value(after))
                    }
                };
            }
            if *more > 0 {
                text += &format!("      and {more} more\n");
            }
            text
        }
    }
}

fn provenance(found: &Provenance) -> String {
    match found {
        Provenance::Task { task, .. } => format!(", made by task `{task}`"),
        Provenance::Operation { origin, at, operation, undo, .. } => {
            let how = match (origin, undo) {
                (_, true) => "by undo",
                (Origin::User, _) => "by set",
                (Origin::Project, _) => "with its file",
                (Origin::Default, _) => "with the package",
                (Origin::Task, _) => "by a task",
            };
            match operation {
                Some(number) => format!(", {how} at {} (operation {number})", format::time(*at)),
                // Not deployed yet: `run` will do it.
                None => format!(", {how}"),
            }
        }
    }
}

fn command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(script) => script.trim().replace('\n', "\n           "),
        CommandLine::Argv(words) => {
            words.iter().map(|word| format::quoted(word)).collect::<Vec<_>>().join(" ")
        }
    }
}

/// The first digits of a hash.
pub(crate) fn short(hash: Hash) -> String {
    let text = hash.to_string();
    format!("{}..", &text[..8])
}

/// A hash shortened, any other value as it is, if it is not too long.
fn value(text: &str) -> String {
    if let Ok(hash) = text.parse::<Hash>() {
        return short(hash);
    }
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown += "...";
    }
    shown
}
