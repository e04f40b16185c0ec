//! `e3 set`: a new value for an input.

use std::path::Path;

use e3_core::{
    DatasetError, ObjectStoreExt, Origin, StorageBackend,
    datasets::{self, Assignment},
};
use e3_pipeline::{most_similar, store_path};
use e3_types::{DatasetPath, Hash, Json, Kind, ObjectRef};
use serde::Serialize;

use crate::{
    args::SetArgs,
    context::{Context, Deployed},
    error::{CliError, Exit, Result},
};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    dataset: &'a DatasetPath,
    object: Hash,
}

pub(crate) async fn set(context: &Context, args: &SetArgs) -> Result<Exit> {
    let Deployed { storage, package, .. } = context.deployed().await?;
    let path = &args.dataset;
    let slot = package.datasets.get(path).ok_or_else(|| {
        let names = package.datasets.keys().map(DatasetPath::as_str);
        let similar = most_similar(path.as_str(), names).map(str::to_owned);
        DatasetError::NotFound { path: path.clone(), workspace: context.workspace.clone(), similar }
    })?;
    if let Some((task, _)) = package.tasks.iter().find(|(_, task)| task.output == *path) {
        return Err(DatasetError::NotAnInput { path: path.clone(), task: task.clone() }.into());
    }
    let object = match &args.value {
        Some(value) => store_json(&*storage, path, slot.kind, value).await?,
        None => store_file(context, &*storage, path, slot.kind, args.file.as_deref()).await?,
    };
    let values = [Assignment { path: path.clone(), kind: slot.kind, object }];
    datasets::set(&*storage, &*context.clock, &context.workspace, &values, Origin::User).await?;
    if context.console.json {
        context.console.document(&Document { schema: "e3.set/1", dataset: path, object: object.hash })?;
    }
    Ok(Exit::Done)
}

async fn store_json(
    storage: &dyn StorageBackend,
    path: &DatasetPath,
    kind: Kind,
    value: &str,
) -> Result<ObjectRef> {
    if kind != Kind::Json {
        return Err(DatasetError::Kind { path: path.clone(), expected: kind, found: Kind::Json }.into());
    }
    let json = Json::parse(value.as_bytes())
        .map_err(|error| CliError::usage(format!("the value for `{path}` is {error}: {value}")))?;
    Ok(storage.objects().put_bytes(json.to_canonical()).await?)
}

async fn store_file(
    context: &Context,
    storage: &dyn StorageBackend,
    path: &DatasetPath,
    kind: Kind,
    file: Option<&Path>,
) -> Result<ObjectRef> {
    let file = file.ok_or_else(|| CliError::usage(format!("`{path}` needs a FILE or `--json VALUE`")))?;
    if file != Path::new("-") {
        return Ok(store_path(storage, &*context.clock, file, kind).await?);
    }
    if kind == Kind::Dir {
        return Err(CliError::usage(format!("`{path}` holds a folder: give the path of one instead of `-`")));
    }
    // Through a file, so that a large value is never whole in memory.
    let failed = |error| CliError::environment("reading standard input", error);
    let mut spooled = tempfile::NamedTempFile::new().map_err(failed)?;
    std::io::copy(&mut std::io::stdin().lock(), &mut spooled).map_err(failed)?;
    Ok(store_path(storage, &*context.clock, spooled.path(), kind).await?)
}
