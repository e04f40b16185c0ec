//! Text -> package in the store, at most once for a given text.
//!
//! What a pipeline file comes to is kept in a cache beside the repository's other caches. While the text is the same, and the
//! variables that it asks for, and the program that compiles it, it is neither parsed nor built again: for a file of many tasks
//! that is most of what a run without anything to do would cost.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    mem,
    ops::Range,
    panic::resume_unwind,
    path::PathBuf,
    sync::Arc,
};

use e3_core::{ObjectError, ObjectStoreExt, PackageError, Source, StorageBackend, StorageError, packages};
use e3_types::{DatasetPath, Hash, ObjectRef, Package};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    build::{Builder, Tracked, TrackedSource},
    error::{PipelineError, SourceText},
    kept,
    model::{OutputLink, RunSettings},
    parse::parse,
};

/// How it is written down. A file of another version is not read: its content can be found out again.
const VERSION: u32 = 1;

/// What a pipeline file comes to. Its package and all that this refers to is in the store.
#[derive(Debug)]
pub struct Compiled {
    /// The package.
    pub package: ObjectRef,
    /// The datasets that follow files of the project.
    pub tracked: Vec<Tracked>,
    /// What is put into the project folder: relative path -> what.
    pub outputs: BTreeMap<String, OutputLink>,
    /// The settings in `[run]`.
    pub run: RunSettings,
}

/// A pipeline file, and where it is kept what it comes to.
#[derive(Debug)]
pub struct Compiler {
    /// The name of the file in messages.
    pub file: PathBuf,
    /// Its text.
    pub text: Arc<str>,
    /// The file in which is kept what it came to.
    pub cache: PathBuf,
    /// Something that is another one for each program that might compile otherwise.
    pub program: String,
}

impl Compiler {
    /// Compiles the file, unless that was done before. The package is there if it had to be made. `environment` is asked for the
    /// variables in `pass_env`.
    pub async fn compile(
        &self,
        storage: &Arc<dyn StorageBackend>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Compiled, Option<Package>), PipelineError> {
        let found =
            kept::load::<Entry>(&self.cache, VERSION).filter(|entry| entry.is_about(self, &environment));
        if let Some(entry) = found {
            let size = storage.objects().stat(&entry.package.hash).await;
            if size.map_err(|error| of_storage(&error.into()))? == Some(entry.package.size) {
                return Ok((entry.compiled(self), None));
            }
        }
        let (compiled, package) = self.compile_anew(storage, environment).await?;
        Ok((compiled, Some(package)))
    }

    /// The package that the file came to, with all that it refers to in the store: compiled anew if something is gone.
    pub async fn complete(
        &self,
        storage: &Arc<dyn StorageBackend>,
        package: ObjectRef,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Package, PipelineError> {
        let package = match packages::load(&**storage, package).await {
            Ok(package) => Some(package),
            // Gone since, or no longer what it was.
            Err(PackageError::Storage(StorageError::Object(
                ObjectError::NotFound(_) | ObjectError::Corrupt { .. },
            ))) => None,
            Err(error) => return Err(PipelineError::general(error.class(), error.to_string())),
        };
        if let Some(package) = package
            && packages::is_complete(&**storage, &package).await.map_err(|error| of_storage(&error))?
        {
            return Ok(package);
        }
        Ok(self.compile_anew(storage, environment).await?.1)
    }

    /// Compiles the file, whatever is known.
    async fn compile_anew(
        &self,
        storage: &Arc<dyn StorageBackend>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Compiled, Package), PipelineError> {
        let mut pipeline = parse(&self.file, Arc::clone(&self.text))?;
        let (outputs, run) = (mem::take(&mut pipeline.outputs), pipeline.run.clone());
        let mut variables = BTreeMap::new();
        let mut builder = Builder::new(pipeline, |name| {
            let value = environment(name);
            variables.insert(name.to_owned(), value.as_deref().map(fingerprint));
            value
        });
        // Some are written while the next ones are built.
        let mut writing = JoinSet::new();
        loop {
            let objects = match builder.objects() {
                Ok(Some(objects)) => objects,
                Ok(None) => break,
                Err(error) => {
                    writing.shutdown().await;
                    return Err(error);
                }
            };
            written(&mut writing).await?;
            let (storage, objects) = (Arc::clone(storage), objects.into_iter().map(Source::Bytes).collect());
            writing.spawn(async move { storage.objects().put_many(objects).await.map(drop) });
        }
        written(&mut writing).await?;
        let (package, tracked) = builder.finish()?;
        let object = packages::store(&**storage, &package).await.map_err(|error| of_storage(&error))?;
        let compiled = Compiled { package: object, tracked, outputs, run };
        let entry = Entry::new(self, variables, &compiled);
        if let Err(error) = kept::save(&self.cache, VERSION, entry) {
            // It is only found out again the next time.
            tracing::warn!(path = %self.cache.display(), %error, "a compiled pipeline could not be kept");
        }
        Ok((compiled, package))
    }
}

/// What is kept of a compilation: what it depends on, and what it came to.
#[derive(Serialize, Deserialize)]
struct Entry {
    program: String,
    text: Hash,
    /// The values of the variables that were asked for, as hashes: they may be secret.
    variables: BTreeMap<String, Option<Hash>>,
    package: ObjectRef,
    tracked: Vec<(DatasetPath, TrackedSource, Option<Range<usize>>)>,
    outputs: BTreeMap<String, OutputLink>,
    run: RunSettings,
}

impl Entry {
    fn new(compiler: &Compiler, variables: BTreeMap<String, Option<Hash>>, compiled: &Compiled) -> Self {
        let tracked = compiled.tracked.iter().map(|Tracked { path, source, place }| {
            (path.clone(), source.clone(), place.as_ref().map(|place| place.span.clone()))
        });
        Self {
            program: compiler.program.clone(),
            text: Hash::of(compiler.text.as_bytes()),
            variables,
            package: compiled.package,
            tracked: tracked.collect(),
            outputs: compiled.outputs.clone(),
            run: compiled.run.clone(),
        }
    }

    fn is_about(&self, compiler: &Compiler, environment: impl Fn(&str) -> Option<OsString>) -> bool {
        self.program == compiler.program
            && self.text == Hash::of(compiler.text.as_bytes())
            && self
                .variables
                .iter()
                .all(|(name, value)| environment(name).as_deref().map(fingerprint) == *value)
    }

    fn compiled(self, compiler: &Compiler) -> Compiled {
        let source = SourceText::new(compiler.file.clone(), Arc::clone(&compiler.text));
        let tracked = self.tracked.into_iter().map(|(path, followed, span)| Tracked {
            path,
            source: followed,
            place: span.map(|span| source.place(span)),
        });
        Compiled { package: self.package, tracked: tracked.collect(), outputs: self.outputs, run: self.run }
    }
}

/// Waits until everything is written.
async fn written(writing: &mut JoinSet<Result<(), ObjectError>>) -> Result<(), PipelineError> {
    while let Some(done) = writing.join_next().await {
        // Nothing is aborted while it is waited for.
        let done = done.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        done.map_err(|error| of_storage(&error.into()))?;
    }
    Ok(())
}

fn fingerprint(value: &OsStr) -> Hash {
    Hash::of(value.as_encoded_bytes())
}

fn of_storage(error: &StorageError) -> PipelineError {
    PipelineError::general(error.class(), error.to_string())
}
