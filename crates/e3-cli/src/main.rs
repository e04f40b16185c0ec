//! The command `e3`: the only place where the parts are put together, and the only one that knows a terminal.

mod args;
mod commands;
mod console;
mod context;
mod error;
mod files;
mod format;
mod identity;
mod interrupt;
mod outputs;
mod screen;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::Cli,
    console::Console,
    context::Context,
    error::{CliError, Exit},
};

fn main() -> ExitCode {
    let kept = e3_process::keep_files();
    if let Some(code) = helper() {
        return code;
    }
    e3_process::keep_large_memory_apart();
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    cli.common.json |= cli.command.wants_json();
    let console = Console::new(&cli.common);
    trace(cli.common.verbose);
    if let Err(error) = kept {
        report(console, &CliError::environment("looking at the files that are open", error));
        return ExitCode::from(Exit::Environment as u8);
    }
    let exit = match run(cli) {
        Ok(exit) => exit,
        Err(error) => {
            if error.exit != Exit::Done {
                report(console, &error);
            }
            error.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// How many threads do everything that does not block.
const WORKERS: usize = 2;

/// This program is also what watches over tasks, and what confines them: started so by itself, and by nobody else.
fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    if first == e3_process::LAUNCH {
        let code = e3_process::launch(arguments);
        return Some(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
    }
    if first == e3_process::WATCHDOG {
        let watched = arguments.next().map(|folder| e3_process::watch(folder.as_ref()));
        return Some(if matches!(watched, Some(Ok(()))) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    None
}

fn run(cli: Cli) -> error::Result<Exit> {
    let context = Context::new(&cli.common)?;
    e3_process::keep_threads_apart(WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        // Whoever starts processes keeps to one processor from then on, and so would what that starts.
        .on_thread_start(e3_process::use_all_processors)
        // One waits for each task that runs.
        .max_blocking_threads(16_384)
        .enable_all()
        .build()
        .map_err(|error| CliError::environment("starting the runtime", error))?;
    runtime.block_on(commands::dispatch(&context, cli.command))
}

fn report(console: Console, error: &CliError) {
    if console.json {
        if let Err(unwritten) = console.document(&error.document()) {
            console.warn(&format!("error: {}", unwritten.message));
        }
    } else {
        console.warn(&e3_console::error_line(&error.message));
    }
}

/// What the parts of e3 say to its developers; events are what they say to users.
fn trace(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::ERROR,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).without_time().init();
}

/// Help and version are results; everything else is an error of usage.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    if error.use_stderr() && wants_json {
        let error = CliError::usage(error.render().to_string());
        report(Console { json: true, quiet: false }, &error);
        return ExitCode::from(error.exit as u8);
    }
    match error.print() {
        Ok(()) if !error.use_stderr() => ExitCode::SUCCESS,
        _ => ExitCode::from(Exit::Usage as u8),
    }
}
