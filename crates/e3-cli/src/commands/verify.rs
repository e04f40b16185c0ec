//! `e3 verify`: whether the repository is sound, and with `--sample` whether its tasks always make the same.

use std::sync::Arc;

use e3_core::{
    Cancellation, StorageBackend, StorageError, WorkspaceLease, executions,
    verify::{Replay, ReplayVerdict, SampleOptions, Verification, sample, verify as look},
    workspaces,
};
use e3_store::LocalStorage;
use e3_types::{ExecutionId, Hash, Timestamp};
use serde::Serialize;

use super::{execute, stage::Stage};
use crate::{
    args::{ExecuteArgs, VerifyArgs},
    context::Context,
    error::{CliError, Exit, Result},
    format,
    interrupt::Interrupts,
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    objects: u64,
    bytes: u64,
    records: u64,
    corrupt: Vec<Hash>,
    problems: Vec<Wrong>,
    repaired: bool,
    put_aside: Vec<String>,
    sample: Option<Vec<Replayed>>,
}

#[derive(Serialize)]
struct Wrong {
    place: String,
    message: String,
}

#[derive(Serialize)]
struct Replayed {
    execution: ExecutionId,
    label: String,
    verdict: &'static str,
    message: Option<String>,
}

pub(crate) async fn verify(context: &Context, args: &VerifyArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    let quarantined =
        || storage.quarantined().map_err(|error| CliError::environment("reading the quarantine", error));
    let aside_before = quarantined()?;
    let damage = storage.check_database().map_err(StorageError::from)?;
    if !damage.is_empty() {
        let message = format!("the database of the repository is damaged: {}", damage.join("; "));
        return Err(CliError::new(Exit::Corrupt, message));
    }
    let copies = storage.drop_altered_copies().await?;
    let mut found = look(&*storage).await?;
    let first = found.clone();
    if args.repair && !found.is_sound() {
        repair(context, &storage, &found).await?;
        found = look(&*storage).await?;
    }
    let replays = match &args.sample {
        Some(share) => Some(replay(context, &storage, share.0).await?),
        None => None,
    };
    let put_aside: Vec<String> = quarantined()?.difference(&aside_before).cloned().collect();
    if context.console.json {
        let repaired = args.repair && found != first;
        context.console.document(&document(&found, repaired, put_aside, replays.as_deref()))?;
    } else {
        for name in &put_aside {
            context.console.warn(&format!("put aside: .e3/quarantine/{name}, the altered file of an object"));
        }
        if copies > 0 {
            context.console.note(&format!("{copies} altered executable copies were dropped"));
        }
        if found != first {
            context.console.result(&format!("found before the repair:\n{}", text(&first)))?;
        }
        context.console.result(&text(&found))?;
        if let Some(replays) = &replays {
            context.console.result(&replays_text(replays))?;
        }
    }
    if !found.is_sound() {
        let next = if args.repair {
            "what is left has to be set or imported again".to_owned()
        } else {
            format!("next: {}", context.command("verify --repair"))
        };
        context.console.warn(&next);
        return Ok(Exit::Corrupt);
    }
    let differs = |replay: &Replay| replay.verdict != ReplayVerdict::Same;
    Ok(if replays.is_some_and(|replays| replays.iter().any(differs)) { Exit::TaskFailed } else { Exit::Done })
}

/// Puts what is corrupt aside and lets the workspaces make again what they can.
async fn repair(context: &Context, storage: &Arc<LocalStorage>, found: &Verification) -> Result<()> {
    // Nobody may be at work on what is taken away.
    let mut leases = Vec::new();
    for workspace in workspaces::list(&**storage).await? {
        leases.push(WorkspaceLease::acquire(&**storage, &workspace, &context.holder).await?);
    }
    storage.put_aside(&found.corrupt).await?;
    executions::forget(&**storage, &found.suspects).await?;
    // A folder in which something is missing counts as missing itself, so that whoever made it is asked.
    let any_time = Timestamp::from_unix_ms(u64::MAX);
    storage.objects().delete_many(&found.incomplete, any_time).await?;
    // Reads the files of the project again, where there is one.
    if context.project().is_ok() {
        Stage::for_run(context, false).await?;
    }
    for lease in &leases {
        let workspace = lease.workspace();
        let args = ExecuteArgs::default();
        let mut interrupts = Interrupts::listen()?;
        let (settings, cancellation) = (context.run_settings()?, Cancellation::default());
        let run = execute::execute(
            context,
            Arc::clone(storage),
            lease,
            &args,
            settings.into(),
            &mut interrupts,
            cancellation,
        );
        match Box::pin(run).await {
            Ok(finished) => {
                context.console.note(&format!(
                    "workspace {workspace}: {}",
                    e3_console::totals(finished.report.state, &finished.report.summary)
                ));
            }
            // What is wrong with this workspace is found again by the second look.
            Err(CliError { exit: Exit::Corrupt, message }) => {
                context.console.warn(&format!("workspace {workspace}: {message}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn replay(context: &Context, storage: &Arc<LocalStorage>, share: f64) -> Result<Vec<Replay>> {
    let runner = context.local_runner(storage, &context.run_settings()?, false)?;
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let (salt, cancellation) = (context.clock.new_run().to_string(), Cancellation::default());
    let options = SampleOptions { share, salt, jobs, cancellation: cancellation.clone() };
    let mut interrupts = Interrupts::listen()?;
    let work = sample(&**storage, &runner, &options);
    let (replays, interrupted) = interrupts.guard(context.console, &cancellation, work).await;
    match interrupted {
        Some(exit) => Err(CliError::new(exit, "interrupted")),
        None => Ok(replays?),
    }
}

fn document(
    found: &Verification,
    repaired: bool,
    put_aside: Vec<String>,
    replays: Option<&[Replay]>,
) -> Document {
    let problems = found.problems.iter();
    Document {
        schema: "e3.verify/1",
        objects: found.objects,
        bytes: found.bytes,
        records: found.records,
        corrupt: found.corrupt.clone(),
        problems: problems
            .map(|problem| Wrong { place: problem.place.clone(), message: problem.message.clone() })
            .collect(),
        repaired,
        put_aside,
        sample: replays.map(|replays| replays.iter().map(replayed).collect()),
    }
}

fn replayed(replay: &Replay) -> Replayed {
    let (verdict, message) = match &replay.verdict {
        ReplayVerdict::Same => ("same", None),
        ReplayVerdict::Differs { first, .. } => ("differs", Some(first.clone())),
        ReplayVerdict::Failed(failure) => ("failed", Some(failure.to_string())),
    };
    Replayed { execution: replay.execution, label: replay.label.clone(), verdict, message }
}

fn text(found: &Verification) -> String {
    let mut text = String::new();
    for object in &found.corrupt {
        text += &format!("corrupt: object {object}\n");
    }
    for problem in &found.problems {
        text += &format!("{}: {}\n", problem.place, problem.message);
    }
    if !found.suspects.is_empty() {
        text += &format!("{} results were made of corrupt objects\n", found.suspects.len());
    }
    let verdict = if found.is_sound() {
        "all sound".to_owned()
    } else {
        format!("{} corrupt, {} problems", found.corrupt.len(), found.problems.len())
    };
    let size = format::size(found.bytes);
    text + &format!("{} objects ({size}) and {} records: {verdict}\n", found.objects, found.records)
}

fn replays_text(replays: &[Replay]) -> String {
    let mut text = String::new();
    let mut same = 0;
    for replay in replays.iter().map(replayed) {
        match replay.message {
            None => same += 1,
            Some(message) => {
                text += &format!(
                    "{} {}: {message} (execution {})\n",
                    replay.label, replay.verdict, replay.execution
                );
            }
        }
    }
    let results = if replays.len() == 1 { "1 result was" } else { "results were" };
    let count = if replays.len() == 1 { String::new() } else { format!("{} ", replays.len()) };
    text + &format!("{count}{results} executed again: {same} the same, {} not\n", replays.len() - same)
}
