//! `e3 get`: a dataset as a file, a folder or on standard output.

use std::{fs, path::Path};

use e3_core::{
    Access, DatasetRef, HistoryEntry, ObjectStoreExt, Origin, StorageBackend, history, operations,
};
use e3_exec::materialise;
use e3_pipeline::most_similar;
use e3_types::{DatasetPath, Kind, Package, Timestamp};
use futures::TryStreamExt;

use crate::{
    args::GetArgs,
    console::write_bytes,
    context::{Context, Deployed},
    error::{CliError, Exit, Result},
    format,
};

pub(crate) async fn get(context: &Context, args: &GetArgs) -> Result<Exit> {
    let Deployed { storage, package, values, .. } = context.deployed().await?;
    let path = &args.dataset;
    let slot = package.datasets.get(path).ok_or_else(|| {
        let similar = most_similar(path.as_str(), package.datasets.keys().map(DatasetPath::as_str));
        let hint = similar.map(|name| format!(": did you mean `{name}`?")).unwrap_or_default();
        CliError::not_found(format!(
            "there is no dataset `{path}` in workspace `{}`{hint}",
            context.workspace
        ))
    })?;
    let then = match args.at {
        Some(moment) => Some(at(context, &*storage, &package, path, moment.time(context.clock.now())).await?),
        None => None,
    };
    let value = then.as_ref().or_else(|| values.get(path)).ok_or_else(|| {
        let is_output = package.tasks.values().any(|task| task.output == *path);
        let hint = if is_output {
            format!("`e3 run {path}` makes it")
        } else {
            format!("`e3 set {path} FILE` gives it one")
        };
        CliError::new(Exit::Blocked, format!("`{path}` has no value yet: {hint}"))
    })?;

    if args.output == Path::new("-") {
        if slot.kind == Kind::Dir {
            return Err(CliError::usage(format!("`{path}` is a folder: `-o PATH` says where to put it")));
        }
        let mut pieces = storage
            .objects()
            .get_stream(&value.object.hash)
            .await
            .map_err(|error| lost(context, path, error))?;
        while let Some(piece) = pieces.try_next().await? {
            write_bytes(&piece)?;
        }
    } else {
        if fs::symlink_metadata(&args.output).is_ok() {
            let message =
                format!("`{}` is there already: choose another place or remove it", args.output.display());
            return Err(CliError::new(Exit::Conflict, message));
        }
        materialise(&*storage, slot.kind, value.object, &args.output, Access::Private)
            .await
            .map_err(|error| lost(context, path, error))?;
    }
    Ok(Exit::Done)
}

/// An error about an object, for those who know the dataset.
fn lost(context: &Context, path: &DatasetPath, error: impl Into<CliError>) -> CliError {
    let CliError { exit, message } = error.into();
    match exit {
        Exit::Corrupt => {
            let next = context.command("verify --repair");
            CliError::new(exit, format!("the value of `{path}` is not whole: {message}; next: {next}"))
        }
        _ => CliError::new(exit, format!("reading `{path}`: {message}")),
    }
}

/// What a dataset held at a time: an input by the operations of the workspace, an output by the history of its task.
async fn at(
    context: &Context,
    storage: &dyn StorageBackend,
    package: &Package,
    path: &DatasetPath,
    time: Timestamp,
) -> Result<DatasetRef> {
    let workspace = &context.workspace;
    let nothing = || {
        CliError::not_found(format!("`{path}` held nothing at {}, as far as is known", format::time(time)))
    };
    let Some((task, _)) = package.tasks.iter().find(|(_, task)| task.output == *path) else {
        let value = operations::value_at(storage, workspace, path, time).await?;
        return value.ok_or_else(nothing);
    };
    let mut before = None;
    loop {
        let page = history::list(storage, workspace, task, before, PAGE).await?;
        before = Some(page.last().map(|entry| (entry.run, entry.seq)).ok_or_else(nothing)?);
        for HistoryEntry { record, .. } in page {
            if let (Some(object), None) = (record.output, &record.item)
                && record.at <= time
                && record.published
            {
                return Ok(DatasetRef { object, origin: Origin::Task, at: record.at, made: None });
            }
        }
    }
}

/// How many entries of the history are read at once.
const PAGE: usize = 64;
