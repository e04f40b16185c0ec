//! `e3 run` and `e3 start`: the everyday command, and the part of it that only executes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use e3_core::{
    Cancellation, Deployment, RunReport, Standing, StorageBackend, WorkspaceLease,
    datasets::{self, Assignment},
    kept_if_settled,
    verify::missing_in,
    workspaces,
};
use e3_pipeline::{
    Compiled, Compiler, OutputLink, Project, RunSettings, Sources, StatCache, TrackReport, Tracked,
};
use e3_process::give_memory_back;
use e3_store::LocalStorage;
use e3_types::{DatasetPath, Hash, Kind, ObjectRef, Package, RunState, Timestamp};

use super::{
    detach,
    execute::{self, Finished, Given},
    plan,
    stage::Stage,
    watch, workspace,
};
use crate::{
    args::{ExecuteArgs, RunArgs},
    context::Context,
    error::{Exit, Result},
    interrupt::Interrupts,
    outputs,
};

pub(crate) async fn run(context: &Context, args: RunArgs) -> Result<Exit> {
    if args.execute.dry_run {
        let stage = Stage::for_run(context, args.reset).await?;
        return plan::dry_run(context, stage, args.execute).await;
    }
    let folder = context.project()?;
    let storage = context.create_repository(&folder)?;
    if args.execute.detach {
        return detach::detach(context, &storage).await;
    }
    if args.watch {
        return Box::pin(watch::watch(context, args, folder, storage)).await;
    }
    let round = Round::new(context, &args, folder, storage);
    let prepared = round.read().await?;
    let lease = WorkspaceLease::acquire(&*round.storage, &context.workspace, &context.holder).await?;
    let Deployed { given, beside, .. } = round.deploy(&lease, prepared, args.reset).await?;
    let mut interrupts = Interrupts::listen()?;
    let finished = round.execute(&lease, given, &mut interrupts, Cancellation::default()).await?;
    round.finish(&lease, &beside, finished, &mut interrupts).await
}

pub(crate) async fn start(context: &Context, args: ExecuteArgs) -> Result<Exit> {
    if args.dry_run {
        let stage = Stage::deployed(context).await?;
        return plan::dry_run(context, stage, args).await;
    }
    let storage = context.open_repository()?;
    if args.detach {
        return detach::detach(context, &storage).await;
    }
    let lease = WorkspaceLease::acquire(&*storage, &context.workspace, &context.holder).await?;
    let mut interrupts = Interrupts::listen()?;
    let cancellation = Cancellation::default();
    let settings = context.run_settings()?.into();
    let finished = execute::execute(
        context,
        Arc::clone(&storage),
        &lease,
        &args,
        settings,
        &mut interrupts,
        cancellation,
    )
    .await?;
    execute::tell(context, &*storage, &finished).await
}

/// What a pipeline file says beside the package.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    outputs: BTreeMap<String, OutputLink>,
    run: RunSettings,
}

/// What a pipeline file says.
pub(crate) struct Prepared {
    compiler: Compiler,
    pub(crate) compiled: Compiled,
    /// The package, if it had to be made.
    package: Option<Package>,
}

/// What has been deployed, and is to be run.
pub(crate) struct Deployed {
    pub(crate) package: ObjectRef,
    /// The datasets that follow files of the project, if they are to be followed on. There may be very many.
    pub(crate) tracked: Vec<Tracked>,
    pub(crate) beside: Beside,
    pub(crate) given: Given,
}

/// One round of `run`: read, deploy, execute, put the outputs in place.
pub(crate) struct Round<'a> {
    pub(crate) context: &'a Context,
    pub(crate) args: &'a RunArgs,
    pub(crate) folder: PathBuf,
    pub(crate) storage: Arc<LocalStorage>,
    /// What has been said, so that a later round does not say it again.
    told: RefCell<BTreeSet<String>>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(
        context: &'a Context,
        args: &'a RunArgs,
        folder: PathBuf,
        storage: Arc<LocalStorage>,
    ) -> Self {
        Self { context, args, folder, storage, told: RefCell::default() }
    }

    pub(crate) async fn read(&self) -> Result<Prepared> {
        let Self { context, storage, folder, .. } = self;
        let compiler = context.compiler(storage, folder)?;
        let repository = Arc::clone(storage) as _;
        let (compiled, package) = compiler.compile(&repository, |name| context.variable(name)).await?;
        if package.is_some() {
            // What the file says was in memory twice: as it is written, and as a package.
            give_memory_back();
        }
        Ok(Prepared { compiler, compiled, package })
    }

    /// Deploys the package, and gives the inputs that follow files of the project what these hold now.
    pub(crate) async fn deploy(
        &self,
        lease: &WorkspaceLease,
        prepared: Prepared,
        reset: bool,
    ) -> Result<Deployed> {
        let Self { context, storage, .. } = self;
        let Prepared { compiler, compiled: Compiled { package: object, mut tracked, outputs, run }, package } =
            prepared;
        let deployed = |tracked, package: Option<Package>, standing| Deployed {
            package: object,
            tracked,
            given: Given {
                settings: run.clone(),
                package: package.map(|package| (object, package)),
                standing,
            },
            beside: Beside { outputs, run },
        };
        let mut standing = None;
        let project = project(storage, &self.folder);
        let sources = Sources::look(&project, &tracked).await?;
        let kept = kept_if_settled(&**storage, lease.workspace(), object, &sources.looks()).await?;
        let kept = match kept {
            None if !reset => self.follow(lease, object.hash, &sources, &mut standing).await?,
            other => other,
        };
        if let Some(kept) = kept.filter(|_| !reset) {
            self.tell_kept(&kept, tracked.iter().map(|tracked| &tracked.path), false);
            drop(sources);
            return Ok(deployed(tracked, package, standing));
        }
        let TrackReport { values, looks, .. } =
            sources.track(&**storage, &*context.clock, stat_cache(storage)).await?;
        drop(sources);
        let repository = Arc::clone(storage) as _;
        let package = match package {
            Some(package) => package,
            // With all that a run needs of it in the store.
            None => compiler.complete(&repository, object, |name| context.variable(name)).await?,
        };
        // Of many inputs the text, and what it says of each, is much, and all that is deployed comes to be now.
        if !self.args.watch {
            // Emptied: another variable of that name would only hide what this one holds.
            tracked = Vec::new();
        }
        drop(compiler);
        give_memory_back();
        let deployment =
            Deployment { object, package: &package, tracked: &values, looks: Some(&looks), reset };
        let report = workspaces::deploy(&**storage, &*context.clock, lease, deployment).await?;
        self.tell_kept(&report.kept, values.iter().map(|value| &value.path), report.is_new_package);
        for path in &report.dropped {
            self.note(workspace::dropped(path));
        }
        Ok(deployed(tracked, Some(package), standing))
    }

    /// Deploys what has changed, if nothing but files has since the last deployment, and everything that the last complete
    /// run was made of is there; then the inputs that keep what a person has set.
    async fn follow(
        &self,
        lease: &WorkspaceLease,
        package: Hash,
        sources: &Sources<'_>,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<Option<Vec<DatasetPath>>> {
        let Self { context, storage, .. } = self;
        let workspace = lease.workspace();
        let looks = sources.looks();
        let Some(following) = workspaces::following(&**storage, workspace, package, &looks).await? else {
            return Ok(None);
        };
        *standing = Standing::find(&**storage, workspace, package).await?.map(Box::new);
        if standing.is_none() {
            return Ok(None);
        }
        let (clock, changed) = (&*context.clock, &following.changed);
        let TrackReport { values, looks, .. } =
            sources.track_some(&**storage, clock, stat_cache(storage), changed).await?;
        Ok(workspaces::follow(&**storage, clock, lease, &following, &values, &looks).await?)
    }

    /// Says which inputs keep the value that was set; `following` are those that would follow a file otherwise.
    fn tell_kept<'p>(
        &self,
        kept: &[DatasetPath],
        following: impl Iterator<Item = &'p DatasetPath>,
        is_new_package: bool,
    ) {
        // There may be very many of both.
        let following: HashSet<_> = if kept.is_empty() { HashSet::new() } else { following.collect() };
        for path in kept {
            if following.contains(path) {
                self.note(format!(
                    "input `{path}` keeps the value that was set, its file is not followed; `--reset` drops it"
                ));
            } else if is_new_package {
                self.note(format!("input `{path}` keeps the value that was set; `--reset` drops it"));
            }
        }
    }

    /// Says something, once.
    fn note(&self, text: String) {
        let mut told = self.told.borrow_mut();
        if !told.contains(&text) {
            self.context.console.note(&text);
            told.insert(text);
        }
    }

    pub(crate) async fn execute(
        &self,
        lease: &WorkspaceLease,
        given: Given,
        interrupts: &mut Interrupts,
        cancellation: Cancellation,
    ) -> Result<Finished> {
        let (storage, args) = (Arc::clone(&self.storage), &self.args.execute);
        execute::execute(self.context, storage, lease, args, given, interrupts, cancellation).await
    }

    /// The outputs are part of what is reported, so they are in place before it is.
    pub(crate) async fn finish(
        &self,
        lease: &WorkspaceLease,
        Beside { outputs, run }: &Beside,
        mut finished: Finished,
        interrupts: &mut Interrupts,
    ) -> Result<Exit> {
        match self.place(outputs, &finished.report).await {
            Err(error) if error.exit == Exit::Corrupt && self.drop_incomplete(outputs).await? => {
                self.note("something in an output is no longer in the store: making it again".to_owned());
                let again = run.clone().into();
                finished = self.execute(lease, again, interrupts, Cancellation::default()).await?;
                self.place(outputs, &finished.report).await?;
            }
            other => other?,
        }
        execute::tell(self.context, &*self.storage, &finished).await
    }

    /// Takes those outputs for missing in which something is; whether there are any.
    async fn drop_incomplete(&self, links: &BTreeMap<String, OutputLink>) -> Result<bool> {
        let Self { context, storage, .. } = self;
        let mut dropped = false;
        for OutputLink { from, kind, .. } in links.values().filter(|link| link.kind == Kind::Dir) {
            let path = DatasetPath::from(from);
            let value = datasets::read_output(storage.refs(), &context.workspace, &path).await?;
            if let Some(value) = value
                && missing_in(&**storage, *kind, value.object).await?.is_some()
            {
                let any_time = Timestamp::from_unix_ms(u64::MAX);
                storage.objects().delete_many(&[value.object.hash], any_time).await?;
                dropped = true;
            }
        }
        Ok(dropped)
    }

    /// Puts the outputs in place, if the run has made them.
    async fn place(&self, links: &BTreeMap<String, OutputLink>, report: &RunReport) -> Result<()> {
        if report.state != RunState::Completed || links.is_empty() {
            return Ok(());
        }
        let Self { context, args, folder, storage, .. } = self;
        let written = outputs::place(context, storage, folder, links, args.force_outputs).await?;
        for path in written {
            context.console.note(&format!("wrote {path}"));
        }
        Ok(())
    }
}

/// What the files of the project hold now that inputs follow.
pub(crate) async fn track_files(
    context: &Context,
    storage: &LocalStorage,
    folder: &Path,
    datasets: &[Tracked],
) -> Result<Vec<Assignment>> {
    let project = project(storage, folder);
    let sources = Sources::look(&project, datasets).await?;
    Ok(sources.track(storage, &*context.clock, stat_cache(storage)).await?.values)
}

fn project(storage: &LocalStorage, folder: &Path) -> Project {
    Project { folder: folder.to_owned(), repository: storage.root().to_owned() }
}

fn stat_cache(storage: &LocalStorage) -> StatCache {
    StatCache::at(&storage.root().join("cache/stat"))
}
