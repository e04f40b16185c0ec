//! `--detach`: the same command again, as a process of its own that outlives the terminal.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use e3_core::runs;
use e3_store::LocalStorage;
use e3_types::RunId;
use serde::Serialize;

use crate::{
    context::Context,
    error::{CliError, Exit, Result},
};

/// How often the new process is looked at until its run has begun.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    run: RunId,
    pid: u32,
}

/// Starts this command again in the background and returns when its run has begun. What it says goes to a file beside the
/// repository's logs; if it ends before its run begins, it is told here.
pub(crate) async fn detach(context: &Context, storage: &LocalStorage) -> Result<Exit> {
    let run = context.clock.new_run();
    let folder = storage.root().join("detached");
    let said = folder.join(format!("{run}.txt"));
    let failed = |error| {
        CliError::environment(format!("starting a process in the background (`{}`)", said.display()), error)
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    let output = File::create(&said).map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(again(context, run))
        .current_dir(&context.started_in)
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        // A group of its own: a Ctrl-C in this terminal is not meant for it.
        .process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    loop {
        if runs::find(storage, &context.workspace, run).await?.is_some() {
            break;
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            let text = fs::read_to_string(&said).map_err(failed)?;
            fs::remove_file(&said).map_err(failed)?;
            let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim()).to_owned();
            let exit = status.code().map_or(Exit::Internal, Exit::from_code);
            return Err(CliError::new(exit, message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if context.console.json {
        context.console.document(&Document { schema: "e3.detached/1", run, pid: child.id() })?;
    } else {
        context.console.result(&format!("{run}\n"))?;
        let next = context.command(&format!("runs follow {run}"));
        context
            .console
            .note(&format!("runs in the background as process {}; look on with: {next}", child.id()));
    }
    Ok(Exit::Done)
}

/// The arguments of this process, but for the wish to be in the background.
fn again(context: &Context, run: RunId) -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> =
        context.arguments.iter().filter(|word| **word != "--detach" && **word != "--json").cloned().collect();
    arguments.push(format!("--run-id={run}").into());
    arguments
}
