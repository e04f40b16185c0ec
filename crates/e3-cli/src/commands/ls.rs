//! `e3 ls`: the datasets of the workspace.

use e3_core::{DatasetRef, StorageBackend, tree_size};
use e3_types::{DatasetPath, Hash, Kind, Timestamp, WorkspaceName};
use serde::Serialize;

use crate::{
    args::LsArgs,
    context::{Context, Deployed},
    error::{CliError, Exit, Result},
    format,
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    workspace: WorkspaceName,
    datasets: Vec<Dataset>,
}

#[derive(Serialize)]
struct Dataset {
    path: DatasetPath,
    kind: Kind,
    origin: Option<&'static str>,
    object: Option<Hash>,
    /// Of a folder: all its files together.
    bytes: Option<u64>,
    files: Option<u64>,
    at: Option<Timestamp>,
}

pub(crate) async fn ls(context: &Context, args: &LsArgs) -> Result<Exit> {
    let Deployed { storage, package, values, .. } = context.deployed().await?;
    let mut listed = Vec::new();
    for (path, slot) in package.datasets {
        if args.path.as_ref().is_some_and(|wanted| !path.is_within(wanted)) {
            continue;
        }
        let value = values.get(&path);
        let (files, bytes) = sizes(&*storage, slot.kind, value).await?;
        listed.push(Dataset {
            path,
            kind: slot.kind,
            origin: value.map(|value| value.origin.as_str()),
            object: value.map(|value| value.object.hash),
            bytes,
            files,
            at: value.map(|value| value.at),
        });
    }
    if listed.is_empty()
        && let Some(path) = &args.path
    {
        return Err(CliError::not_found(format!(
            "there is no dataset `{path}` in workspace `{}`: `e3 ls` shows what there is",
            context.workspace
        )));
    }
    let document = Document { schema: "e3.ls/1", workspace: context.workspace.clone(), datasets: listed };
    if context.console.json {
        context.console.document(&document)?;
    } else {
        show(context, &document)?;
    }
    Ok(Exit::Done)
}

async fn sizes(
    storage: &dyn StorageBackend,
    kind: Kind,
    value: Option<&DatasetRef>,
) -> Result<(Option<u64>, Option<u64>)> {
    Ok(match (kind, value) {
        (_, None) => (None, None),
        (Kind::Dir, Some(value)) => {
            let (files, bytes) = tree_size(storage.objects(), &value.object).await?;
            (Some(files), Some(bytes))
        }
        (_, Some(value)) => (None, Some(value.object.size)),
    })
}

fn show(context: &Context, document: &Document) -> Result<()> {
    let now = context.clock.now();
    let rows: Vec<_> = document
        .datasets
        .iter()
        .map(|dataset| {
            let size = match (dataset.bytes, dataset.files) {
                (None, _) => "no value".to_owned(),
                (Some(bytes), None) => format::size(bytes),
                (Some(bytes), Some(1)) => format!("{} in 1 file", format::size(bytes)),
                (Some(bytes), Some(files)) => format!("{} in {files} files", format::size(bytes)),
            };
            [
                dataset.path.to_string(),
                dataset.kind.to_string(),
                dataset.origin.unwrap_or("-").to_owned(),
                size,
                dataset.at.map_or_else(|| "-".to_owned(), |at| format::age(at, now)),
            ]
        })
        .collect();
    context.console.result(&format::table(["DATASET", "KIND", "FROM", "SIZE", "SET"], &rows))
}
