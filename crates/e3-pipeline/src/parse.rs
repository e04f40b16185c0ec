//! `e3.toml` -> `Pipeline`: the grammar of the file, key by key.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
    path::{Component, Path},
    sync::Arc,
};

use e3_types::{CommandLine, Kind, Name, PackageVersion};
use memchr::{memchr, memmem};
use toml::de::{DeTable, DeValue};

use crate::{
    build::in_lots,
    error::{PipelineError, SourceText},
    model::{At, InputSpec, OutputLink, Pipeline, RunSettings, Said, Task, TaskSpec},
    pieces::{self, Pieces},
    policy,
    reader::{TableReader, Value, boolean, json, parsed, string, strings, wrong_type},
};

/// Reads a pipeline file. `file` is its name in messages.
pub fn parse(file: &Path, text: impl Into<Arc<str>>) -> Result<Pipeline, PipelineError> {
    let source = &SourceText::new(file.to_owned(), text);
    match in_pieces(source) {
        Some(pipeline) => Ok(pipeline),
        // It is written in another way, or something is wrong with it, and this knows what.
        None => whole(source),
    }
}

fn whole(source: &SourceText) -> Result<Pipeline, PipelineError> {
    let table = DeTable::parse(source.text()).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        source.error(&span, error.message())
    })?;
    let mut root = TableReader::root(source, &table);
    let mut pipeline = beginning(source, &mut root)?;
    if let Some(value) = root.get("tasks") {
        for (name, spec, span) in tasks(source, value, &pipeline.run)? {
            if pipeline.inputs.contains_key(&name) {
                let message = format!("`{name}` is an input already: inputs and tasks share one namespace");
                return Err(source.error(&span, message));
            }
            let task = Task { kind: spec.dataset_kind(), span, said: Said::Here(Box::new(spec)) };
            pipeline.tasks.insert(name, task);
        }
    }
    if let Some(value) = root.get("outputs") {
        outputs(source, value, &mut pipeline)?;
    }
    root.finish()?;
    Ok(pipeline)
}

/// The pipeline of a file that can be taken apart into its inputs and tasks, and in which nothing is wrong.
fn in_pieces(source: &SourceText) -> Option<Pipeline> {
    let Pieces { rest, inputs, tasks: pieces } = pieces::split(source.text());
    let table = DeTable::parse(&rest).ok()?;
    let mut root = TableReader::root(source, &table);
    let mut pipeline = beginning(source, &mut root).ok()?;
    for some in in_lots(inputs, |piece| inputs_in(source, &piece).ok_or(())).ok()? {
        for (name, input) in some {
            if pipeline.inputs.insert(name, input).is_some() {
                return None;
            }
        }
    }
    let read = |piece: Range<usize>| {
        let (name, spec, span) = task_in(source, &piece, &pipeline.run).ok_or(())?;
        Ok::<_, ()>((name, Task { kind: spec.dataset_kind(), span, said: Said::InText(piece) }))
    };
    for (name, task) in in_lots(pieces, read).ok()? {
        if pipeline.inputs.contains_key(&name) || pipeline.tasks.insert(name, task).is_some() {
            return None;
        }
    }
    if let Some(value) = root.get("outputs") {
        outputs(source, value, &mut pipeline).ok()?;
    }
    root.finish().ok()?;
    Some(pipeline)
}

/// All of a file that comes before its tasks.
fn beginning(source: &SourceText, root: &mut TableReader<'_>) -> Result<Pipeline, PipelineError> {
    let mut package = TableReader::new(source, "[package]", root.require("package")?)?;
    let name = string(source, &package.what("name"), package.require("name")?)?;
    let name = parsed(source, &name)?;
    let version: PackageVersion = match package.get("version") {
        Some(value) => parsed(source, &string(source, &package.what("version"), value)?)?,
        None => "0.0.0".parse().expect("this is a version"),
    };
    package.finish()?;

    let mut pipeline = Pipeline {
        source: source.clone(),
        name,
        version,
        inputs: BTreeMap::new(),
        tasks: BTreeMap::new(),
        outputs: BTreeMap::new(),
        run: RunSettings::default(),
    };
    if let Some(value) = root.get("run") {
        pipeline.run = policy::run(source, value)?;
    }
    if let Some(value) = root.get("inputs") {
        pipeline.inputs.extend(inputs(source, &TableReader::new(source, "[inputs]", value)?)?);
    }
    Ok(pipeline)
}

fn inputs(source: &SourceText, table: &TableReader<'_>) -> Result<Vec<NamedInput>, PipelineError> {
    let named = |(key, value)| {
        let name = dataset_name(source, key)?;
        let spec = input(source, &name, value)?;
        Ok((name, At { value: spec, span: key.span() }))
    };
    table.entries().map(named).collect()
}

/// What a piece of the file says of its inputs; none if it is not such a piece, or something is wrong with it.
fn inputs_in(source: &SourceText, piece: &Range<usize>) -> Option<Vec<NamedInput>> {
    // At the beginning of a text the parser takes a byte order mark for none, but this is the middle of one.
    let text = &source.text()[piece.clone()];
    let table = DeTable::parse(text).ok().filter(|_| !text.starts_with('\u{feff}'))?;
    let mut inputs = inputs(source, &TableReader::root(source, &table)).ok()?;
    for (_, At { span, .. }) in &mut inputs {
        *span = span.start + piece.start..span.end + piece.start;
    }
    Some(inputs)
}

/// What a piece of the file says of its one task; none if it is not such a piece, or something is wrong with it.
pub(crate) fn task_in(source: &SourceText, piece: &Range<usize>, run: &RunSettings) -> Option<NamedTask> {
    let table = DeTable::parse(&source.text()[piece.clone()]).ok()?;
    let mut root = TableReader::root(source, &table);
    let mut tasks = tasks(source, root.require("tasks").ok()?, run).ok()?;
    root.finish().ok()?;
    let (name, mut spec, span) = tasks.pop().filter(|_| tasks.is_empty())?;
    spec.move_by(piece.start);
    Some((name, spec, span.start + piece.start..span.end + piece.start))
}

/// An input with its name, at the place of that.
type NamedInput = (Name, At<InputSpec>);

/// A task with its name, and the place of that.
type NamedTask = (Name, TaskSpec, Range<usize>);

fn tasks(source: &SourceText, value: &Value<'_>, run: &RunSettings) -> Result<Vec<NamedTask>, PipelineError> {
    let named = |(key, value)| {
        let name = dataset_name(source, key)?;
        let spec = task(source, &name, value, run)?;
        Ok((name, spec, key.span()))
    };
    TableReader::new(source, "[tasks]", value)?.entries().map(named).collect()
}

/// Whether a pipeline file has the letters in it that are needed to speak of runs. It is not kept in memory: it may be long.
pub fn may_have_run_settings(mut file: impl Read) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    // What the last piece ends with, as a word may lie across the border.
    let mut kept = 0;
    loop {
        let read = match file.read(&mut buffer[kept..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let filled = kept + read;
        let piece = &buffer[..filled];
        // With an escape any word can be written.
        if memchr(b'\\', piece).is_some() || memmem::find(piece, RUN).is_some() {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        kept = filled.min(RUN.len() - 1);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

const RUN: &[u8] = b"run";

/// What a pipeline file says about runs. Where that is nothing, the rest of it is not looked at.
pub fn run_settings(file: &Path, text: &str) -> Result<RunSettings, PipelineError> {
    if may_speak_of_runs(text) { Ok(parse(file, text)?.run) } else { Ok(RunSettings::default()) }
}

/// Whether a line may begin with the key `run` or a table below it. A key with an escape may be any key.
fn may_speak_of_runs(text: &str) -> bool {
    text.lines().any(|line| {
        let key = line.trim_start_matches(['[', ' ', '\t', '"', '\'', '\u{feff}']);
        let end = key.find(['"', '\'', ']', '.', '=', ' ', '\t']).unwrap_or(key.len());
        &key[..end] == "run" || (line.trim_start().starts_with(['"', '[']) && key[..end].contains('\\'))
    })
}

fn dataset_name(
    source: &SourceText,
    key: &toml::Spanned<toml::de::DeString<'_>>,
) -> Result<Name, PipelineError> {
    let text = At { value: key.get_ref().clone().into_owned(), span: key.span() };
    if text.value == "output" {
        let message = "`output` cannot be a name: `{output}` is where a task writes";
        return Err(source.error(&text.span, message));
    }
    parsed(source, &text)
}

fn kind(source: &SourceText, what: &str, value: &Value<'_>) -> Result<Kind, PipelineError> {
    let text = string(source, what, value)?;
    let refuse = |()| {
        let message = format!("{what} must be \"file\", \"dir\" or \"json\", but is \"{}\"", text.value);
        source.error(&text.span, message)
    };
    text.value.parse().map_err(refuse)
}

fn input(source: &SourceText, name: &Name, value: &Value<'_>) -> Result<InputSpec, PipelineError> {
    let what = format!("input `{name}`");
    let mut table = TableReader::new(source, what.clone(), value)?;
    table.not_yet("keep")?;
    let mut found = Vec::new();
    if let Some(value) = table.get("file") {
        found.push(InputSpec::File(path(source, &table.what("file"), value)?));
    }
    if let Some(value) = table.get("dir") {
        found.push(InputSpec::Dir(path(source, &table.what("dir"), value)?));
    }
    if let Some(value) = table.get("json") {
        found.push(InputSpec::Json(json(source, value)?));
    }
    if let Some(value) = table.get("kind") {
        found.push(InputSpec::Unassigned(kind(source, &table.what("kind"), value)?));
    }
    table.finish()?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(spec), None) => Ok(spec),
        _ => Err(source.error(
            &value.span(),
            format!(
                "{what} must have exactly one of `file` (a path), `dir` (a path), `json` (a value) or `kind` \
                 (\"file\", \"dir\" or \"json\": no value yet)"
            ),
        )),
    }
}

fn path(source: &SourceText, what: &str, value: &Value<'_>) -> Result<String, PipelineError> {
    let path = string(source, what, value)?;
    if path.value.is_empty() {
        return Err(source.error(&path.span, format!("{what} is empty: expected a path")));
    }
    Ok(path.value)
}

fn names(source: &SourceText, what: &str, value: &Value<'_>) -> Result<Vec<At<Name>>, PipelineError> {
    strings(source, what, value)?
        .into_iter()
        .map(|text| Ok(At { value: parsed(source, &text)?, span: text.span }))
        .collect()
}

fn task(
    source: &SourceText,
    name: &Name,
    value: &Value<'_>,
    run: &RunSettings,
) -> Result<TaskSpec, PipelineError> {
    let mut table = TableReader::new(source, format!("task `{name}`"), value)?;
    let command = command(source, &table.what("command"), table.require("command")?)?;
    let list = |table: &mut TableReader<'_>, key| match table.get(key) {
        Some(value) => names(source, &table.what(key), value),
        None => Ok(Vec::new()),
    };
    let spec = TaskSpec {
        command,
        inputs: list(&mut table, "inputs")?,
        each: match table.get("each") {
            Some(value) => {
                let text = string(source, &table.what("each"), value)?;
                Some(At { value: parsed(source, &text)?, span: text.span })
            }
            None => None,
        },
        code: match table.get("code") {
            Some(value) => strings(source, &table.what("code"), value)?,
            None => Vec::new(),
        },
        output: match table.get("output") {
            Some(value) => kind(source, &table.what("output"), value)?,
            None => Kind::File,
        },
        env: match table.get("env") {
            Some(value) => env(source, &table.what("env"), value)?,
            None => BTreeMap::new(),
        },
        pass_env: match table.get("pass_env") {
            Some(value) => variables(source, &table.what("pass_env"), value)?,
            None => Vec::new(),
        },
        writable: list(&mut table, "writable")?,
        policy: policy::task(source, &mut table, run)?.shared(),
    };
    table.finish()?;
    if let Some(twice) = spec.pass_env.iter().find(|variable| spec.env.contains_key(&variable.value)) {
        let message = format!("`{}` is in `env` already: a variable has one source", twice.value);
        return Err(source.error(&twice.span, message));
    }
    Ok(spec)
}

fn command(source: &SourceText, what: &str, value: &Value<'_>) -> Result<At<CommandLine>, PipelineError> {
    let empty = || source.error(&value.span(), format!("{what} is empty"));
    let command = match value.get_ref() {
        DeValue::String(_) => {
            let script = string(source, what, value)?.value;
            if script.trim().is_empty() {
                return Err(empty());
            }
            CommandLine::Shell(script)
        }
        DeValue::Array(_) => {
            let words: Vec<_> = strings(source, what, value)?.into_iter().map(|word| word.value).collect();
            if words.first().is_none_or(String::is_empty) {
                return Err(empty());
            }
            CommandLine::Argv(words)
        }
        other => {
            let expected = "a string (run by sh) or a list of strings (a program and its arguments)";
            return Err(wrong_type(source, &value.span(), what, expected, other));
        }
    };
    Ok(At { value: command, span: value.span() })
}

fn env(
    source: &SourceText,
    what: &str,
    value: &Value<'_>,
) -> Result<BTreeMap<String, String>, PipelineError> {
    let mut variables = BTreeMap::new();
    for (key, value) in TableReader::new(source, what, value)?.entries() {
        let name = At { value: key.get_ref().clone().into_owned(), span: key.span() };
        check_variable(source, &name)?;
        let value = string(source, &format!("`{}` in {what}", name.value), value)?;
        variables.insert(name.value, value.value);
    }
    Ok(variables)
}

fn variables(source: &SourceText, what: &str, value: &Value<'_>) -> Result<Vec<At<String>>, PipelineError> {
    let names = strings(source, what, value)?;
    names.iter().try_for_each(|name| check_variable(source, name))?;
    Ok(names)
}

fn check_variable(source: &SourceText, name: &At<String>) -> Result<(), PipelineError> {
    if name.value.is_empty() || name.value.contains('=') {
        let message = format!("`{}` cannot be the name of an environment variable", name.value);
        return Err(source.error(&name.span, message));
    }
    if name.value.starts_with("E3_") || name.value == "TMPDIR" {
        let message = format!("`{}` is set by e3 itself", name.value);
        return Err(source.error(&name.span, message));
    }
    Ok(())
}

fn outputs(source: &SourceText, value: &Value<'_>, pipeline: &mut Pipeline) -> Result<(), PipelineError> {
    for (key, value) in TableReader::new(source, "[outputs]", value)?.entries() {
        let path = At { value: key.get_ref().clone().into_owned(), span: key.span() };
        check_output_path(source, &path)?;
        let inside = |one: &str, other: &str| Path::new(one).starts_with(other);
        if let Some(other) =
            pipeline.outputs.keys().find(|other| inside(&path.value, other) || inside(other, &path.value))
        {
            let message =
                format!("`{}` and `{other}` cannot both be outputs: one lies in the other", path.value);
            return Err(source.error(&path.span, message));
        }
        let what = format!("output \"{}\"", path.value);
        let (from, link) = if value.get_ref().is_str() {
            (string(source, &what, value)?, false)
        } else {
            let mut table = TableReader::new(source, what, value)?;
            let from = string(source, &table.what("from"), table.require("from")?)?;
            let link = match table.get("link") {
                Some(value) => boolean(source, &table.what("link"), value)?,
                None => false,
            };
            table.finish()?;
            (from, link)
        };
        let name: Name = parsed(source, &from)?;
        let Some((_, kind)) = crate::named::find(pipeline, name.as_str()) else {
            return Err(crate::build::unknown_name(pipeline, name.as_str(), &from.span));
        };
        pipeline.outputs.insert(path.value, OutputLink { from: name, kind, link });
    }
    Ok(())
}

/// Outputs go into the project folder and nowhere else.
fn check_output_path(source: &SourceText, path: &At<String>) -> Result<(), PipelineError> {
    let mut components = Path::new(&path.value).components();
    let plain = components.clone().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.value.is_empty() || path.value.contains('\0') {
        let message =
            format!("`{}` must be a path inside the project folder, without `.` and `..`", path.value);
        return Err(source.error(&path.span, message));
    }
    let first = components.next();
    if first == Some(Component::Normal(".e3".as_ref())) || path.value == "e3.toml" {
        return Err(source.error(&path.span, format!("`{}` belongs to e3: choose another place", path.value)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
