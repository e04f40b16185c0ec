//! The commands, one file each.

mod detach;
mod diff;
mod execute;
mod executions;
mod get;
mod init;
mod logs;
mod ls;
mod op;
mod package;
mod plan;
mod run;
mod runs;
mod set;
mod stage;
mod status;
mod verify;
mod watch;
mod why;
mod workspace;

use crate::{
    args::{Command, OpCommand},
    context::Context,
    error::{Exit, Result},
};

pub(crate) async fn dispatch(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => init::init(context, &args.args),
        Command::Run(args) => Box::pin(run::run(context, args.args)).await,
        Command::Start(args) => run::start(context, args.args).await,
        Command::Status(_) => status::status(context).await,
        Command::Ls(args) => ls::ls(context, &args.args).await,
        Command::Get(args) => get::get(context, &args.args).await,
        Command::Set(args) => set::set(context, &args).await,
        Command::Logs(args) => logs::logs(context, &args.args).await,
        Command::Plan(args) => plan::plan(context, args.args).await,
        Command::Why(args) => why::why(context, &args.args).await,
        Command::Diff(args) => diff::diff(context, &args.args).await,
        Command::Runs(command) => runs::runs(context, command).await,
        Command::Executions(args) => executions::executions(context, &args.args).await,
        Command::Verify(args) => verify::verify(context, &args.args).await,
        Command::Undo(_) => op::undo(context).await,
        Command::Op(OpCommand::Log(args)) => op::log(context, &args.args).await,
        Command::Workspace(command) => workspace::workspace(context, command).await,
        Command::Package(command) => package::package(context, command).await,
    }
}
