//! The commands, one file each.

mod execute;
mod get;
mod init;
mod logs;
mod ls;
mod package;
mod run;
mod runs;
mod set;
mod status;

use crate::{
    args::Command,
    context::Context,
    error::{Exit, Result},
};

pub(crate) async fn dispatch(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => init::init(context, &args.args),
        Command::Run(args) => run::run(context, args.args).await,
        Command::Start(args) => run::start(context, args.args).await,
        Command::Status(_) => status::status(context).await,
        Command::Ls(args) => ls::ls(context, &args.args).await,
        Command::Get(args) => get::get(context, &args.args).await,
        Command::Set(args) => set::set(context, &args).await,
        Command::Logs(args) => logs::logs(context, &args.args).await,
        Command::Runs(args) => runs::runs(context, &args.args).await,
        Command::Package(command) => package::package(context, command).await,
    }
}
