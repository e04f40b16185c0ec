//! `e3 run --watch`: one run after the other, whenever something has changed. Changes of files are followed while a run
//! goes on too, and reach it as changes of its inputs.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use e3_core::{
    Cancellation, Origin, StorageBackend, WorkspaceLease,
    datasets::{self, Assignment},
    operations,
};
use e3_pipeline::Tracked;
use e3_store::LocalStorage;
use e3_types::{DatasetPath, ObjectRef, RunState};

use super::run::{Deployed, Round, track_files};
use crate::{
    args::RunArgs,
    context::Context,
    error::{CliError, Exit, Result},
    files::Files,
    interrupt::Interrupts,
};

pub(crate) async fn watch(
    context: &Context,
    args: RunArgs,
    folder: PathBuf,
    storage: Arc<LocalStorage>,
) -> Result<Exit> {
    let round = Round::new(context, &args, folder, storage);
    let lease = WorkspaceLease::acquire(&*round.storage, &context.workspace, &context.holder).await?;
    let mut interrupts = Interrupts::listen()?;
    let mut files = Files::new(&round.folder)?;
    // What the last run has taken in: the last operation, and what the pipeline file says beside the package.
    let mut done = None;
    let mut complaint = None;
    // Values that are set from now on are not to be dropped.
    let mut reset = args.reset;
    loop {
        let counter = round.storage.refs().change_counter(&context.workspace).await?;
        let there = async {
            let prepared = round.read().await?;
            files.follow(&prepared.compiled.tracked)?;
            let deployed = round.deploy(&lease, prepared, reset).await?;
            let head = operations::head(&*round.storage, &context.workspace).await?;
            Ok::<_, CliError>((deployed, head))
        };
        match there.await {
            Ok((Deployed { package, tracked, beside, given }, head)) => {
                (reset, complaint) = (false, None);
                if done != Some((head, beside.clone())) {
                    let cancellation = Cancellation::default();
                    let run = round.execute(&lease, given, &mut interrupts, cancellation.clone());
                    let finished = tokio::select! {
                        finished = run => finished?,
                        never = follow(&round, package, &tracked, &mut files, &cancellation) => match never {},
                    };
                    let interrupted = finished.interrupted.is_some();
                    let (state, operation) = (finished.report.state, finished.report.operation);
                    let exit = round.finish(&lease, &beside, finished, &mut interrupts).await?;
                    if interrupted {
                        return Ok(exit);
                    }
                    // One that made way for another pipeline has taken nothing in.
                    done = (state != RunState::Cancelled).then_some((operation, beside));
                    if done.is_some() {
                        context.console.note("watching for changes; Ctrl-C ends it");
                    }
                    continue;
                }
            }
            // A file may be gone for a moment, or the pipeline wrong until it is mended.
            Err(error) if complaint.as_ref() != Some(&error.message) => {
                context.console.warn(&e3_console::error_line(&error.message));
                complaint = Some(error.message);
            }
            Err(_) => {}
        }
        tokio::select! {
            exit = interrupts.next() => return Ok(exit),
            () = files.changed() => {}
            changed = round.storage.refs().changed(&context.workspace, counter) => drop(changed?),
        }
    }
}

/// Brings changes of files into the workspace while it runs. Another pipeline has to wait for the end of the run, or ends it
/// if that is asked for.
async fn follow(
    round: &Round<'_>,
    package: ObjectRef,
    tracked: &[Tracked],
    files: &mut Files,
    cancellation: &Cancellation,
) -> Infallible {
    let mut told = false;
    loop {
        files.changed().await;
        // One that cannot be read is in the middle of being written.
        let now = round.read().await;
        let another = now.is_ok_and(|now| now.compiled.package != package);
        if another && round.args.execute.restart_on_change {
            cancellation.stop.cancel();
        } else if another && !told {
            round.context.console.note("the pipeline has changed: that counts when this run has ended");
            told = true;
        } else if !another && let Err(error) = bring(round, tracked).await {
            round.context.console.warn(&e3_console::error_line(&error.message));
        }
    }
}

async fn bring(round: &Round<'_>, tracked: &[Tracked]) -> Result<()> {
    let Round { context, storage, folder, .. } = round;
    let tracked = track_files(context, storage, folder, tracked).await?;
    let now = datasets::read_roots(storage.refs(), &context.workspace).await?;
    let by_user = |path: &DatasetPath| now.get(path).is_some_and(|value| value.origin == Origin::User);
    let values: Vec<Assignment> = tracked.into_iter().filter(|value| !by_user(&value.path)).collect();
    Ok(datasets::set(&**storage, &*context.clock, &context.workspace, &values, Origin::Project).await?)
}
