//! `e3 init`: a project that works from the first moment.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::Path,
};

use serde::Serialize;

use crate::{
    args::InitArgs,
    context::{Context, PIPELINE, REPOSITORY},
    error::{CliError, Exit, Result},
};

const EXAMPLE: &str = include_str!("init.toml");
const WORDS: &str = "apple\npear\napple\nplum\npear\napple\n";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    project: &'a Path,
    repository: &'a Path,
}

pub(crate) fn init(context: &Context, args: &InitArgs) -> Result<Exit> {
    let folder = &args.folder;
    let failed = |path: &Path| {
        let doing = format!("making `{}`", path.display());
        move |error: std::io::Error| CliError::environment(doing, error)
    };
    fs::create_dir_all(folder.join("data")).map_err(failed(folder))?;
    let pipeline = folder.join(PIPELINE);
    write_new(&pipeline, EXAMPLE).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => CliError::new(
            Exit::Conflict,
            format!("`{}` is there already: it is left as it is", pipeline.display()),
        ),
        _ => failed(&pipeline)(error),
    })?;
    let words = folder.join("data/words.txt");
    match write_new(&words, WORDS) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other.map_err(failed(&words))?,
    }
    let ignore = folder.join(".gitignore");
    add_line(&ignore, &format!("{REPOSITORY}/")).map_err(failed(&ignore))?;
    let storage = context.create_repository(folder)?;

    if context.console.json {
        let document = Document { schema: "e3.init/1", project: folder, repository: storage.root() };
        context.console.document(&document)?;
    } else {
        let enter =
            if folder == Path::new(".") { String::new() } else { format!("-C {} ", folder.display()) };
        context
            .console
            .note(&format!("made `{}` with an example task; next: e3 {enter}run", pipeline.display()));
    }
    Ok(Exit::Done)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// Adds a line to a file, unless it is there.
fn add_line(path: &Path, line: &str) -> std::io::Result<()> {
    let old = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        other => other?,
    };
    if old.lines().any(|other| other.trim() == line) {
        return Ok(());
    }
    let gap = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(format!("{gap}{line}\n").as_bytes())
}
