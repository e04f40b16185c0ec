//! `e3 run` and `e3 start`: the everyday command, and the part of it that only executes.

use std::{path::PathBuf, sync::Arc};

use e3_core::{
    Deployment, RunReport, StorageBackend, WorkspaceLease, datasets::Assignment, packages, workspaces,
};
use e3_pipeline::{Built, OutputLink, Project, StatCache, build, track};
use e3_store::LocalStorage;
use e3_types::RunState;

use super::execute::{self, Settings};
use crate::{
    args::{ExecuteArgs, RunArgs},
    context::Context,
    error::{CliError, Exit, Result},
    outputs,
};

pub(crate) async fn run(context: &Context, args: RunArgs) -> Result<Exit> {
    let folder = context.project()?;
    let pipeline = context.pipeline(&folder)?;
    let built = build(&pipeline, |name| context.variable(name))?;
    let storage = context.create_repository(&folder)?;
    let lease = WorkspaceLease::acquire(&*storage, &context.workspace, &context.holder).await?;

    let tracked = track_files(context, &storage, &folder, &built).await?;
    deploy(context, &*storage, &lease, &built, &tracked, args.reset).await?;
    let settings = Settings {
        jobs: pipeline.run.jobs,
        keep_going: pipeline.run.keep_going,
        grace: pipeline.run.grace,
        limits: pipeline.run.limits.clone(),
    };
    let finished = execute::execute(context, Arc::clone(&storage), &lease, &args.execute, settings).await?;

    // The outputs are part of what is reported, so they are in place before it is.
    place(context, &storage, folder, &pipeline.outputs, &finished.report, args.force_outputs).await?;
    execute::tell(context, &*storage, &finished).await
}

pub(crate) async fn start(context: &Context, args: ExecuteArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    let lease = WorkspaceLease::acquire(&*storage, &context.workspace, &context.holder).await?;
    let finished =
        execute::execute(context, Arc::clone(&storage), &lease, &args, Settings::default()).await?;
    execute::tell(context, &*storage, &finished).await
}

/// Deploys the package, and gives the inputs that follow files of the project what these hold now.
async fn deploy(
    context: &Context,
    storage: &dyn StorageBackend,
    lease: &WorkspaceLease,
    built: &Built,
    tracked: &[Assignment],
    reset: bool,
) -> Result<()> {
    let sources = built.objects.iter().cloned().map(e3_core::Source::Bytes).collect();
    storage.objects().put_many(sources).await?;
    let object = packages::store(storage, &built.package).await?;
    let deployment = Deployment { object, package: &built.package, tracked, reset };
    let report = workspaces::deploy(storage, &*context.clock, lease, deployment).await?;
    for path in report.kept {
        if tracked.iter().any(|value| value.path == path) {
            context.console.note(&format!(
                "input `{path}` keeps the value that was set, its file is not followed; `--reset` drops it"
            ));
        } else if report.is_new_package {
            context.console.note(&format!("input `{path}` keeps the value that was set; `--reset` drops it"));
        }
    }
    Ok(())
}

/// What the files of the project hold now that inputs follow.
async fn track_files(
    context: &Context,
    storage: &LocalStorage,
    folder: &std::path::Path,
    built: &Built,
) -> Result<Vec<Assignment>> {
    let mut cache = StatCache::load(&storage.root().join("cache/stat.json"));
    let project = Project { folder: folder.to_owned(), repository: storage.root().to_owned() };
    let tracked = track(storage, &*context.clock, &mut cache, &project, &built.tracked).await?;
    cache.save().map_err(|error| CliError::environment("writing the stat cache", error))?;
    Ok(tracked.values)
}

/// Puts the outputs in place, if the run has made them.
async fn place(
    context: &Context,
    storage: &LocalStorage,
    folder: PathBuf,
    links: &std::collections::BTreeMap<String, OutputLink>,
    report: &RunReport,
    force: bool,
) -> Result<()> {
    if report.state != RunState::Completed || links.is_empty() {
        return Ok(());
    }
    let written = outputs::place(context, storage, &folder, links, force).await?;
    for path in written {
        context.console.note(&format!("wrote {path}"));
    }
    Ok(())
}
