//! What a run would start from: the package and the inputs, as `run` would deploy them, without doing so.

use std::{collections::BTreeMap, sync::Arc};

use e3_core::{
    DatasetRef, Deployment, PackageError, StorageBackend, WorkspaceError, datasets, packages, workspaces,
};
use e3_pipeline::RunSettings;
use e3_store::LocalStorage;
use e3_types::{DatasetPath, ObjectRef, Package};

use super::run::track_files;
use crate::{
    context::Context,
    error::{Exit, Result},
};

/// A workspace as a run would find it.
pub(crate) struct Stage {
    pub(crate) storage: Arc<LocalStorage>,
    pub(crate) package: Package,
    pub(crate) roots: BTreeMap<DatasetPath, DatasetRef>,
    /// What the pipeline file says about runs.
    pub(crate) settings: RunSettings,
}

impl Stage {
    /// As `run` would make it, if there is a pipeline file; else what is deployed. Objects are stored, but nothing refers
    /// to them.
    pub(crate) async fn for_run(context: &Context, reset: bool) -> Result<Self> {
        let folder = match context.project() {
            Ok(folder) => folder,
            Err(error) if error.exit == Exit::NotFound => return Self::deployed(context).await,
            Err(error) => return Err(error),
        };
        let storage = context.create_repository(&folder)?;
        let compiler = context.compiler(&storage, &folder)?;
        let variable = |name: &str| context.variable(name);
        let repository = Arc::clone(&storage) as Arc<dyn StorageBackend>;
        let (compiled, package) = compiler.compile(&repository, variable).await?;
        let tracked = track_files(context, &storage, &folder, &compiled.tracked).await?;
        let before = datasets::read_roots(storage.refs(), &context.workspace).await?;
        let old = match workspaces::find(&*storage, &context.workspace).await {
            Ok(record) => loaded(packages::load(&*storage, record.package).await)?,
            Err(WorkspaceError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let object = compiled.package;
        let package = match package {
            Some(package) => package,
            None => compiler.complete(&repository, object, variable).await?,
        };
        let deployment = Deployment { object, package: &package, tracked: &tracked, looks: None, reset };
        let (roots, _) = deployment.applied_to(&before, old.as_ref(), context.clock.now());
        Ok(Self { storage, package, roots: roots.into_iter().collect(), settings: compiled.run })
    }

    /// What is deployed.
    pub(crate) async fn deployed(context: &Context) -> Result<Self> {
        let storage = context.open_repository()?;
        let record = workspaces::find(&*storage, &context.workspace).await?;
        let package = packages::load(&*storage, record.package).await?;
        let roots = datasets::read_roots(storage.refs(), &context.workspace).await?;
        Ok(Self { storage, package, roots, settings: context.run_settings()? })
    }

    /// The objects of the inputs.
    pub(crate) fn objects(&self) -> BTreeMap<DatasetPath, ObjectRef> {
        self.roots.iter().map(|(path, value)| (path.clone(), value.object)).collect()
    }
}

/// A package that cannot be read any more has nothing that could be kept, as for a deployment.
fn loaded(package: std::result::Result<Package, PackageError>) -> Result<Option<Package>> {
    match package {
        Ok(package) => Ok(Some(package)),
        Err(PackageError::Storage(error)) if !error.is_of_a_lost_object() => Err(error.into()),
        Err(_) => Ok(None),
    }
}
