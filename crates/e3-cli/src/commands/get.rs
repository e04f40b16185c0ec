//! `e3 get`: a dataset as a file, a folder or on standard output.

use std::{fs, path::Path};

use e3_core::{Access, ObjectStoreExt, StorageBackend};
use e3_exec::materialise;
use e3_pipeline::most_similar;
use e3_types::{DatasetPath, Kind};
use futures::TryStreamExt;

use crate::{
    args::GetArgs,
    console::write_bytes,
    context::{Context, Deployed},
    error::{CliError, Exit, Result},
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
    let value = values.get(path).ok_or_else(|| {
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
        let mut pieces = storage.objects().get_stream(&value.object.hash).await?;
        while let Some(piece) = pieces.try_next().await? {
            write_bytes(&piece)?;
        }
    } else {
        if fs::symlink_metadata(&args.output).is_ok() {
            let message =
                format!("`{}` is there already: choose another place or remove it", args.output.display());
            return Err(CliError::new(Exit::Conflict, message));
        }
        materialise(&*storage, slot.kind, value.object, &args.output, Access::Private).await?;
    }
    Ok(Exit::Done)
}
