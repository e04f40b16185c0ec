//! `e3 package`: packages as things to keep and to pass on.

use std::{fs::File, path::Path};

use e3_core::{StorageBackend, archive, packages};
use e3_pipeline::build;
use e3_types::{Hash, ObjectRef, PackageName, PackageVersion};
use serde::Serialize;

use super::run::track_files;
use crate::{
    args::{ExportArgs, ImportArgs, PackageCommand},
    context::Context,
    error::{CliError, Exit, Result},
    format,
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    packages: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    name: PackageName,
    version: PackageVersion,
    object: Hash,
}

pub(crate) async fn package(context: &Context, command: PackageCommand) -> Result<Exit> {
    match command {
        PackageCommand::Build(_) => build_package(context).await,
        PackageCommand::Import(args) => import(context, &args.args).await,
        PackageCommand::Export(args) => export(context, &args.args).await,
        PackageCommand::List(_) => list(context).await,
    }
}

/// A package has its values with it: the files of the project as they are now become its defaults.
async fn build_package(context: &Context) -> Result<Exit> {
    let folder = context.project()?;
    let pipeline = context.pipeline(&folder)?;
    let mut built = build(pipeline, |name| context.variable(name))?;
    let storage = context.create_repository(&folder)?;
    for value in track_files(context, &storage, &folder, &built.tracked).await? {
        if let Some(slot) = built.package.datasets.get_mut(&value.path) {
            slot.default = Some(Box::new(value.object));
        }
    }
    let sources = built.objects.into_iter().map(e3_core::Source::Bytes).collect();
    storage.objects().put_many(sources).await?;
    let object = packages::store(&*storage, &built.package).await?;
    packages::publish(&*storage, &built.package, object, true).await?;
    let listed = Listed { name: built.package.name, version: built.package.version, object: object.hash };
    tell(context, vec![listed], "built")
}

async fn list(context: &Context) -> Result<Exit> {
    let storage = context.open_repository()?;
    let found = packages::list(&*storage).await?;
    let listed: Vec<_> = found
        .into_iter()
        .map(|(name, version, object)| Listed { name, version, object: object.hash })
        .collect();
    if context.console.json {
        context.console.document(&Document { schema: "e3.packages/1", packages: listed })?;
    } else {
        let rows: Vec<_> = listed
            .iter()
            .map(|package| {
                [package.name.to_string(), package.version.to_string(), package.object.to_string()]
            })
            .collect();
        context.console.result(&format::table(["PACKAGE", "VERSION", "OBJECT"], &rows))?;
    }
    Ok(Exit::Done)
}

async fn export(context: &Context, args: &ExportArgs) -> Result<Exit> {
    let storage = context.open_repository()?;
    let (name, version, object) = find_package(&*storage, &args.package).await?;
    let path = &args.output;
    let failed = |error| CliError::environment(format!("writing `{}`", path.display()), error);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".e3-").tempfile_in(parent).map_err(failed)?;
    archive::export(&*storage, object, file.as_file_mut()).await?;
    file.persist(path).map_err(|error| failed(error.error))?;
    tell(context, vec![Listed { name, version, object: object.hash }], "exported")
}

/// The package that is meant by NAME or NAME@VERSION.
pub(crate) async fn find_package(
    storage: &dyn StorageBackend,
    text: &str,
) -> Result<(PackageName, PackageVersion, ObjectRef)> {
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let name: PackageName = name.parse().map_err(|error| CliError::usage(format!("{error}")))?;
    let version: Option<PackageVersion> =
        version.map(str::parse).transpose().map_err(|error| CliError::usage(format!("{error}")))?;
    let version = match version {
        Some(version) => version,
        None => only_version(storage, &name).await?,
    };
    let object = packages::find(storage, &name, &version).await?;
    Ok((name, version, object))
}

async fn only_version(storage: &dyn StorageBackend, name: &PackageName) -> Result<PackageVersion> {
    let versions: Vec<_> = packages::list(storage)
        .await?
        .into_iter()
        .filter(|(other, ..)| other == name)
        .map(|(_, version, _)| version)
        .collect();
    match versions.as_slice() {
        [version] => Ok(version.clone()),
        [] => Err(CliError::not_found(format!(
            "there is no package `{name}` in this repository: `e3 package list` shows what there is, \
             `e3 package build` makes one of e3.toml"
        ))),
        several => {
            let names: Vec<_> = several.iter().map(|version| format!("{name}@{version}")).collect();
            Err(CliError::usage(format!(
                "package `{name}` has several versions: name one of {}",
                names.join(", ")
            )))
        }
    }
}

async fn import(context: &Context, args: &ImportArgs) -> Result<Exit> {
    let path = &args.file;
    let mut file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            CliError::not_found(format!("there is no archive `{}`", path.display()))
        }
        _ => CliError::environment(format!("reading `{}`", path.display()), error),
    })?;
    let storage = match context.project() {
        Ok(folder) => context.create_repository(&folder)?,
        Err(_) => context.open_repository()?,
    };
    let (package, object) = archive::import(&*storage, &mut file).await.map_err(|error| {
        let error = CliError::from(error);
        CliError { message: format!("`{}`: {}", path.display(), error.message), ..error }
    })?;
    tell(
        context,
        vec![Listed { name: package.name, version: package.version, object: object.hash }],
        "imported",
    )
}

fn tell(context: &Context, packages: Vec<Listed>, done: &str) -> Result<Exit> {
    if context.console.json {
        context.console.document(&Document { schema: "e3.packages/1", packages })?;
    } else {
        for Listed { name, version, object } in packages {
            context.console.note(&format!("{done} {name} {version}"));
            context.console.result(&format!("{object}\n"))?;
        }
    }
    Ok(Exit::Done)
}
