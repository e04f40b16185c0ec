//! The command line.

use std::{num::NonZeroUsize, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use e3_core::NamePattern;
use e3_pipeline::{parse_duration, parse_size};
use e3_types::{DatasetPath, ExecutionId, Name, RunId, Timestamp, WorkspaceName};

/// A durable, content-addressed dataflow engine: declare datasets and tasks, and nothing is computed twice.
#[derive(Debug, Parser)]
#[command(name = "e3", version, propagate_version = false, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Run as if started in DIR; given several times, each is relative to the one before
    #[arg(short = 'C', value_name = "DIR")]
    pub(crate) folder: Vec<PathBuf>,
    /// The repository [default: .e3 beside e3.toml, looked for upwards]
    #[arg(short = 'R', long, value_name = "PATH", env = "E3_REPO", global = true)]
    pub(crate) repo: Option<PathBuf>,
    /// The workspace
    #[arg(short, long, value_name = "NAME", default_value = "main", env = "E3_WORKSPACE", global = true)]
    pub(crate) workspace: WorkspaceName,
    /// Print one JSON document on standard output, errors too
    // Not global for clap: after `set`, `--json VALUE` is something else.
    #[arg(long)]
    pub(crate) json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; given twice, also what is meant for the developers of e3
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to use colours; `auto` obeys `NO_COLOR` and `CLICOLOR_FORCE`
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Colour::Auto, env = "E3_COLOR", global = true)]
    pub(crate) color: Colour,
    /// How a run shows its progress: `plain` is a line per finished task
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Progress::Auto, env = "E3_PROGRESS", global = true)]
    pub(crate) progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    Auto,
    Plain,
    None,
}

/// The arguments of a command with the flag `--json`.
#[derive(Debug, Args)]
pub(crate) struct WithJson<T: Args> {
    #[command(flatten)]
    pub(crate) args: T,
    /// Print one JSON document on standard output, errors too
    #[arg(long)]
    pub(crate) json: bool,
}

impl Command {
    /// Whether the flag `--json` stands after the command.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Init(args) => args.json,
            Self::Run(args) => args.json,
            Self::Start(args) => args.json,
            Self::Ls(args) => args.json,
            Self::Get(args) => args.json,
            Self::Set(_) => false,
            Self::Logs(args) => args.json,
            Self::Plan(args) => args.json,
            Self::Why(args) => args.json,
            Self::Diff(args) => args.json,
            Self::Executions(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Op(OpCommand::Log(args)) => args.json,
            Self::Workspace(WorkspaceCommand::Fork(args)) => args.json,
            Self::Workspace(WorkspaceCommand::Deploy(args)) => args.json,
            Self::Workspace(WorkspaceCommand::Remove(args)) => args.json,
            Self::Runs(RunsCommand { action: Some(RunsAction::Show(args)), .. }) => args.json,
            Self::Runs(RunsCommand { action: Some(RunsAction::Follow(args)), .. }) => args.json,
            Self::Runs(RunsCommand { action: None, args }) => args.json,
            Self::Status(args)
            | Self::Undo(args)
            | Self::Workspace(WorkspaceCommand::List(args))
            | Self::Package(PackageCommand::Build(args) | PackageCommand::List(args)) => args.json,
            Self::Package(PackageCommand::Import(args)) => args.json,
            Self::Package(PackageCommand::Export(args)) => args.json,
        }
    }
}

/// No arguments.
#[derive(Debug, Args)]
pub(crate) struct NoArgs {}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a project: a commented e3.toml with a working example task, and its repository
    Init(WithJson<InitArgs>),
    /// Build the package from e3.toml, track changed files, execute what is not known yet, put the outputs in place
    Run(WithJson<RunArgs>),
    /// Execute the deployed workspace as it is
    Start(WithJson<ExecuteArgs>),
    /// How the tasks of the workspace stand
    Status(WithJson<NoArgs>),
    /// The datasets of the workspace
    Ls(WithJson<LsArgs>),
    /// Read a dataset
    Get(WithJson<GetArgs>),
    /// Write an input
    Set(SetArgs),
    /// What a task printed
    Logs(WithJson<LogsArgs>),
    /// What `run` would do, and why; without an e3.toml, what `start` would do
    Plan(WithJson<PlanArgs>),
    /// Why a task ran, or would run
    Why(WithJson<WhyArgs>),
    /// What differs between two runs
    Diff(WithJson<DiffArgs>),
    /// The runs of the workspace, newest first
    Runs(RunsCommand),
    /// The executions of a task in this workspace, or of the whole repository, newest first
    Executions(WithJson<ExecutionsArgs>),
    /// Hash every object again and check every record; execute cached work again to see whether it comes to the same
    Verify(WithJson<VerifyArgs>),
    /// Take the last change of the workspace back: a deployment or new values of inputs; again, the one before it
    Undo(WithJson<NoArgs>),
    /// The changes of the workspace
    #[command(subcommand)]
    Op(OpCommand),
    /// Workspaces: list, fork, deploy, remove
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// Packages: build, export, import, list
    #[command(subcommand)]
    Package(PackageCommand),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder of the new project
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) execute: ExecuteArgs,
    /// Drop values that were set with `e3 set`
    #[arg(long)]
    pub(crate) reset: bool,
    /// Overwrite files of the project that stand where `[outputs]` go and that e3 did not write
    #[arg(long)]
    pub(crate) force_outputs: bool,
    /// Go on after the end: whenever e3.toml, a file that an input follows, or an input changes
    #[arg(long, conflicts_with_all = ["detach", "dry_run"])]
    pub(crate) watch: bool,
}

/// Which tasks, and how: the same words for `run`, `start` and `plan`.
#[derive(Debug, Default, Args)]
pub(crate) struct SelectArgs {
    /// Which tasks, with all that they need; names or patterns, `NAME+` with all that depends on them [default: all]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<NamePattern>,
    /// How many cores the running tasks may use together; a task uses one unless it says more [default: all]
    #[arg(short, long, value_name = "N", env = "E3_JOBS")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// After a failure, run everything that can still be run
    #[arg(long, conflicts_with = "fail_fast")]
    pub(crate) keep_going: bool,
    /// After a failure, cancel what runs
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Execute even what is known; with a pattern, only the tasks that it means
    #[arg(long, value_name = "TASK", num_args = 0..=1, require_equals = true)]
    pub(crate) force: Option<Option<NamePattern>>,
    /// How much of a resource the running tasks may use together, as `NAME=N`; `memory=4GiB` is a size
    #[arg(long, value_name = "NAME=N")]
    pub(crate) limit: Vec<Limit>,
}

#[derive(Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct ExecuteArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// When an input changes meanwhile, stop tasks that run on its old value instead of letting them end
    #[arg(long)]
    pub(crate) restart_on_change: bool,
    /// Only say what would be done, as `e3 plan` does
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Run in the background; `e3 runs follow` looks on
    #[arg(long, conflicts_with_all = ["dry_run", "events"])]
    pub(crate) detach: bool,
    /// The id that the run is to have: how a run in the background is told its own
    #[arg(long, hide = true, value_name = "ID")]
    pub(crate) run_id: Option<RunId>,
    /// Keep the folder in which each task ran
    #[arg(long)]
    pub(crate) keep_scratch: bool,
    /// Write the events of the run to FILE as JSON lines while it runs; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
}

/// A limit of a resource.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) resource: Name,
    pub(crate) amount: u64,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (resource, amount) = text.split_once('=').ok_or("expected NAME=N, such as license=2")?;
        let resource: Name = resource.parse().map_err(|error: e3_types::NameError| error.to_string())?;
        let amount = match resource.as_str() {
            "cpu" => return Err("the number of cores is limited by --jobs".to_owned()),
            "memory" => parse_size(amount)?,
            _ => amount.parse().map_err(|_| format!("`{amount}` is not a whole number"))?,
        };
        Ok(Self { resource, amount })
    }
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only this dataset and those below it
    pub(crate) path: Option<DatasetPath>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The dataset
    pub(crate) dataset: DatasetPath,
    /// Where to; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value = "-")]
    pub(crate) output: PathBuf,
    /// What it held then: an RFC 3339 time such as 2026-11-24T10:42:00Z, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Moment>,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The input
    pub(crate) dataset: DatasetPath,
    /// The file or folder to read; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "value")]
    pub(crate) file: Option<PathBuf>,
    /// The JSON value itself, instead of a file
    #[arg(long = "json", value_name = "VALUE", conflicts_with = "file")]
    pub(crate) value: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The task
    pub(crate) task: Name,
    /// Go on until the task has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The entry, for a task that runs once per entry of a folder
    #[arg(long, value_name = "NAME")]
    pub(crate) item: Option<String>,
    /// Only standard error, on standard output
    #[arg(long)]
    pub(crate) stderr: bool,
    /// The execution in this run, instead of the newest
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<RunId>,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Only runs before this one: the next page
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<RunId>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RunsCommand {
    #[command(subcommand)]
    pub(crate) action: Option<RunsAction>,
    #[command(flatten)]
    pub(crate) args: WithJson<RunsArgs>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsAction {
    /// One run, event by event
    Show(WithJson<RunArgsId>),
    /// Look on while a run goes on, from its beginning; Ctrl-C leaves it alone
    Follow(WithJson<RunArgsMaybeId>),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgsId {
    /// The run
    pub(crate) run: RunId,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgsMaybeId {
    /// The run [default: the one that goes on in the workspace, else the last one]
    pub(crate) run: Option<RunId>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Drop values that were set with `e3 set`
    #[arg(long)]
    pub(crate) reset: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The task
    pub(crate) task: Name,
    /// The entry, for a task that runs once per entry of a folder
    #[arg(long, value_name = "NAME")]
    pub(crate) item: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The one run
    pub(crate) before: RunId,
    /// The other run
    pub(crate) after: RunId,
}

#[derive(Debug, Args)]
pub(crate) struct ExecutionsArgs {
    /// The task
    pub(crate) task: Option<Name>,
    /// The entry, for a task that runs once per entry of a folder
    #[arg(long, value_name = "NAME", requires = "task")]
    pub(crate) item: Option<String>,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Only executions before this one: the next page
    #[arg(long, value_name = "ID", conflicts_with = "task")]
    pub(crate) before: Option<ExecutionId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OpCommand {
    /// List them, newest first
    Log(WithJson<OpLogArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct OpLogArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Only those before this one: the next page
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// The workspaces of the repository
    List(WithJson<NoArgs>),
    /// Make a workspace that is like this one; nothing but references is copied
    Fork(WithJson<ForkArgs>),
    /// Deploy a package into the workspace; inputs that were set keep their values
    Deploy(WithJson<DeployArgs>),
    /// Remove a workspace: its values and their history; results stay in the cache
    Remove(WithJson<RemoveArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// The new workspace
    pub(crate) name: WorkspaceName,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The workspace
    pub(crate) name: WorkspaceName,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// NAME or NAME@VERSION
    pub(crate) package: String,
    /// Drop values that were set with `e3 set`
    #[arg(long)]
    pub(crate) reset: bool,
}

/// A time, or how long ago.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| {
            "expected a time such as 2026-11-24T10:42:00Z, or how long ago, such as 10m".to_owned()
        })?;
        let ms = u64::try_from(time.as_millisecond()).map_err(|_| "that is before 1970".to_owned())?;
        Ok(Self::At(Timestamp::from_unix_ms(ms)))
    }
}

impl Moment {
    pub(crate) fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                let ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_unix_ms(now.unix_ms().saturating_sub(ms))
            }
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Execute this share of the cached results again, such as `5%`, and compare what comes of it
    #[arg(long, value_name = "P")]
    pub(crate) sample: Option<Share>,
    /// Put aside what is corrupt, and make again what is missing
    #[arg(long)]
    pub(crate) repair: bool,
}

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share(pub(crate) f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent: Option<f64> = text.strip_suffix('%').unwrap_or(text).parse().ok();
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(percent / 100.0)),
            _ => Err(format!(
                "`{text}` is not a share: expected a percentage above 0 and up to 100, such as 5%"
            )),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PackageCommand {
    /// Make a package of e3.toml, with the files as they are now as default values
    Build(WithJson<NoArgs>),
    /// Take packages in from an archive
    Import(WithJson<ImportArgs>),
    /// Write a package to an archive; the same package always makes the same bytes
    Export(WithJson<ExportArgs>),
    /// The packages of the repository
    List(WithJson<NoArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The archive
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// NAME or NAME@VERSION
    pub(crate) package: String,
    /// The archive
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}
