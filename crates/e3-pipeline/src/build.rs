//! `Pipeline` -> package: names become datasets, commands become task objects, and everything is wired.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::OsString,
    ops::{Bound, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use e3_core::{Graph, GraphError, parallel};
use e3_types::{
    DatasetPath, Hash, Kind, Name, ObjectRef, Package, PackageTask, Slot, TaskInput, TaskObject, Template,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{PipelineError, Place},
    model::{At, InputSpec, Pipeline, Said, Task, TaskSpec},
    named::{Named, find},
    parse::task_in,
    similar::most_similar,
};

/// A package as it comes out of a pipeline file.
#[derive(Debug)]
pub struct Built {
    /// The package. Datasets that follow files of the project have no default here: see `tracked`.
    pub package: Package,
    /// The objects that the package refers to: tasks, and values that stand in the file.
    pub objects: Vec<Bytes>,
    /// The datasets that follow files of the project.
    pub tracked: Vec<Tracked>,
}

/// A dataset that follows files of the project.
#[derive(Debug, Clone)]
pub struct Tracked {
    /// The dataset.
    pub path: DatasetPath,
    /// What it follows.
    pub source: TrackedSource,
    /// Where the pipeline file says so, if one does.
    pub(crate) place: Option<Place>,
}

/// What a dataset follows. Paths are relative to the project folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrackedSource {
    /// A file.
    File(String),
    /// A folder.
    Dir(String),
    /// The code of a task: files, folders and patterns.
    Code(Vec<String>),
}

impl Tracked {
    /// An error about this dataset, at its place in the pipeline file.
    pub(crate) fn error(
        &self,
        class: e3_types::ErrorClass,
        message: impl std::fmt::Display,
    ) -> PipelineError {
        let message =
            if self.place.is_some() { format!("{}: {message}", self.path) } else { message.to_string() };
        PipelineError { location: self.place.as_ref().map(Place::location), message, class }
    }

    /// The folders in which a change can matter, below the project folder or elsewhere, and whether a change anywhere below
    /// them can.
    pub fn places(&self, project: &Path) -> Vec<(PathBuf, bool)> {
        let beside = |path: &Path| (path.parent().unwrap_or(path).to_owned(), false);
        let patterns = match &self.source {
            TrackedSource::File(file) => return vec![beside(&project.join(file))],
            TrackedSource::Dir(dir) => return vec![(project.join(dir), true)],
            TrackedSource::Code(patterns) => patterns,
        };
        let mut places = Vec::new();
        for pattern in patterns {
            let is_special = |part: &std::path::Component<'_>| {
                part.as_os_str().to_string_lossy().contains(['*', '?', '['])
            };
            let parts: Vec<_> = Path::new(pattern).components().collect();
            let plain = parts.iter().position(is_special).unwrap_or(parts.len());
            let base = project.join(parts[..plain].iter().collect::<PathBuf>());
            if plain == parts.len() {
                places.push(if base.is_dir() { (base, true) } else { beside(&base) });
                continue;
            }
            let is_deep = plain + 1 < parts.len();
            if base == project && is_deep {
                // Not all of the project: the repository is in it, and changes all the time.
                let folders = std::fs::read_dir(project).into_iter().flatten().flatten();
                let folders = folders.map(|entry| entry.path()).filter(|path| path.is_dir());
                places.extend(folders.filter(|path| !path.ends_with(".e3")).map(|path| (path, true)));
                places.push((base, false));
            } else {
                places.push((base, is_deep));
            }
        }
        places
    }

    /// The kind of the dataset.
    pub fn kind(&self) -> Kind {
        match self.source {
            TrackedSource::File(_) => Kind::File,
            TrackedSource::Dir(_) | TrackedSource::Code(_) => Kind::Dir,
        }
    }
}

/// Makes a package. `environment` is asked for the variables in `pass_env`; one that is not set stays unset.
pub fn build(
    pipeline: Pipeline,
    environment: impl FnMut(&str) -> Option<OsString>,
) -> Result<Built, PipelineError> {
    let mut builder = Builder::new(pipeline, environment);
    let mut objects = Vec::new();
    while let Some(more) = builder.objects()? {
        objects.extend(more);
    }
    let (package, tracked) = builder.finish()?;
    Ok(Built { package, objects, tracked })
}

/// How many tasks are built in one go.
const AT_ONCE: usize = 4096;
/// So few are not worth a thread.
const FEW: usize = 64;

/// Makes a package some tasks at a time, so that neither what a large file says nor all objects are in memory at once.
pub(crate) struct Builder<Environment> {
    pipeline: Pipeline,
    environment: Environment,
    /// All of it but the tasks.
    built: Built,
    tasks: Vec<(Name, PackageTask)>,
    /// The last task that was built.
    last: Option<Name>,
}

impl<Environment: FnMut(&str) -> Option<OsString>> Builder<Environment> {
    pub(crate) fn new(pipeline: Pipeline, environment: Environment) -> Self {
        let mut built = Built {
            package: Package {
                name: pipeline.name.clone(),
                version: pipeline.version.clone(),
                datasets: BTreeMap::new(),
                tasks: BTreeMap::new(),
            },
            objects: Vec::new(),
            tracked: Vec::with_capacity(pipeline.inputs.len()),
        };
        // A map that is made of all of its entries takes half the memory of one that they come into in order.
        let mut datasets = Vec::with_capacity(pipeline.inputs.len() + pipeline.tasks.len());
        for (name, At { value: input, span }) in &pipeline.inputs {
            let path = DatasetPath::from(name);
            let mut follow = |source| {
                let place = Some(pipeline.source.place(span.clone()));
                built.tracked.push(Tracked { path: path.clone(), source, place });
            };
            let slot = match input {
                InputSpec::File(file) => {
                    follow(TrackedSource::File(file.clone()));
                    Slot { kind: Kind::File, default: None }
                }
                InputSpec::Dir(dir) => {
                    follow(TrackedSource::Dir(dir.clone()));
                    Slot { kind: Kind::Dir, default: None }
                }
                InputSpec::Json(json) => {
                    let bytes = json.to_canonical();
                    let default = Some(Box::new(ObjectRef::of(&bytes)));
                    built.objects.push(bytes.into());
                    Slot { kind: Kind::Json, default }
                }
                InputSpec::Unassigned(kind) => Slot { kind: *kind, default: None },
            };
            datasets.push((path, slot));
        }
        for (name, task) in &pipeline.tasks {
            datasets.push((DatasetPath::from(name), Slot { kind: task.kind, default: None }));
        }
        built.package.datasets = datasets.into_iter().collect();
        let tasks = Vec::with_capacity(pipeline.tasks.len());
        Self { pipeline, environment, built, tasks, last: None }
    }

    /// Builds the next tasks, and returns the objects that have come to be; none when all is done.
    pub(crate) fn objects(&mut self) -> Result<Option<Vec<Bytes>>, PipelineError> {
        let Self { pipeline, environment, built, tasks, last } = self;
        let after = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<_> = pipeline.tasks.range::<Name, _>((after, Bound::Unbounded)).take(AT_ONCE).collect();
        *last = next.last().map(|(name, _)| (*name).clone()).or(last.take());
        let specs = in_lots(next, |(name, task)| Ok((name, spec_of(pipeline, task))))?;
        let wanted = specs.iter().flat_map(|(_, spec)| &spec.pass_env).map(|variable| &variable.value);
        let variables: Variables = wanted.map(|name| (name.clone(), environment(name))).collect();
        let wired = in_lots(specs.iter().collect(), |(name, spec)| {
            let wired = wire(pipeline, name, spec, &variables)?;
            Ok(((*name).clone(), wired))
        })?;
        for (name, Wired { task, object, code }) in wired {
            tasks.push((name, task));
            built.objects.push(object);
            if let Some(code) = code {
                built.package.datasets.insert(code.path.clone(), Slot { kind: Kind::Dir, default: None });
                built.tracked.push(code);
            }
        }
        let objects = std::mem::take(&mut built.objects);
        Ok((!objects.is_empty()).then_some(objects))
    }

    /// The package, and the datasets that follow files of the project.
    pub(crate) fn finish(self) -> Result<(Package, Vec<Tracked>), PipelineError> {
        let Self { pipeline, built: Built { mut package, tracked, .. }, tasks, .. } = self;
        package.tasks = tasks.into_iter().collect();
        let graph = Graph::new(&package);
        graph.map_err(|error| {
            let blamed = match &error {
                GraphError::Cycle(names) => names.first(),
                GraphError::TwoProducers { tasks, .. } => tasks.first(),
                GraphError::UnknownDataset { task, .. } | GraphError::Each { task, .. } => Some(task),
                GraphError::TooMany(_) => None,
            };
            let span =
                blamed.and_then(|name| pipeline.tasks.get(name)).map_or(0..0, |task| task.span.clone());
            pipeline.source.error(&span, error.to_string())
        })?;
        Ok((package, tracked))
    }
}

/// What the file says of a task.
pub(crate) fn spec_of<'a>(pipeline: &Pipeline, task: &'a Task) -> Cow<'a, TaskSpec> {
    match &task.said {
        Said::Here(spec) => Cow::Borrowed(spec),
        Said::InText(piece) => {
            let (_, spec, _) = task_in(&pipeline.source, piece, &pipeline.run).expect("it was read before");
            Cow::Owned(spec)
        }
    }
}

/// Does `work` for each thing, on all cores if there are many.
pub(crate) fn in_lots<Thing: Send, Made: Send, Error: Send>(
    things: Vec<Thing>,
    work: impl Fn(Thing) -> Result<Made, Error> + Sync,
) -> Result<Vec<Made>, Error> {
    if things.len() <= FEW {
        things.into_iter().map(work).collect()
    } else {
        parallel::for_each(things, work)
    }
}

/// The values of environment variables.
type Variables = BTreeMap<String, Option<OsString>>;

/// A task as it is in a package.
struct Wired {
    task: PackageTask,
    object: Bytes,
    /// Its code, if it has any.
    code: Option<Tracked>,
}

fn wire(
    pipeline: &Pipeline,
    name: &Name,
    task: &TaskSpec,
    variables: &Variables,
) -> Result<Wired, PipelineError> {
    let source = &pipeline.source;
    let mut named = Named::default();
    for word in task.command.value.words() {
        for place in Template::of(word).places() {
            if place == "output" || (place == ITEM && task.each.is_some()) {
                continue;
            }
            named.add(find(pipeline, place).ok_or_else(|| {
                let span = find_place(source.text(), &task.command.span, place);
                unknown_name(pipeline, place, &span)
            })?);
        }
    }
    for At { value: input, span } in &task.inputs {
        named
            .add(find(pipeline, input.as_str()).ok_or_else(|| unknown_name(pipeline, input.as_str(), span))?);
    }
    let each = match &task.each {
        Some(each) => Some(check_each(pipeline, task, each, &mut named)?),
        None => check_no_item(pipeline, name, task).map(|()| None)?,
    };
    let is_input = |name: &Name| named.contains(name) || (each.is_some() && name.as_str() == ITEM);
    if let Some(stranger) = task.writable.iter().find(|writable| !is_input(&writable.value)) {
        let message = format!("`{}` is not an input of task `{name}`", stranger.value);
        return Err(source.error(&stranger.span, message));
    }

    let each_name = task.each.as_ref().map(|each| each.value.clone());
    let writable = |input: &Name| {
        let entry = each_name.as_ref() == Some(input);
        task.writable.iter().any(|at| at.value == *input || (entry && at.value.as_str() == ITEM))
    };
    let input = |(name, kind)| TaskInput { name: Some(Name::clone(name)), kind, writable: writable(name) };
    let mut inputs: Vec<TaskInput> = named.iter().map(input).collect();
    let mut paths: Vec<DatasetPath> = named.iter().map(|(name, _)| DatasetPath::from(name)).collect();
    let code = task.code.first().map(|first| {
        // Code is an input like any other, without a name: it is staged in the working folder itself.
        let path = DatasetPath::from(name).child(&"code".parse().expect("this is a name"));
        inputs.push(TaskInput { name: None, kind: Kind::Dir, writable: false });
        paths.push(path.clone());
        let patterns = task.code.iter().map(|pattern| pattern.value.clone()).collect();
        let end = task.code.last().map_or(first.span.end, |last| last.span.end);
        let place = Some(source.place(first.span.start..end));
        Tracked { path, source: TrackedSource::Code(patterns), place }
    });
    let mut env = task.env.clone();
    for At { value: variable, span } in &task.pass_env {
        let Some(value) = variables.get(variable).cloned().flatten() else { continue };
        let value = value.into_string().map_err(|_| {
            source.error(
                span,
                format!("the value of `{variable}` is not UTF-8, so it cannot be part of an identity"),
            )
        })?;
        env.insert(variable.clone(), value);
    }
    let object =
        TaskObject { command: task.command.value.clone(), each: each_name, env, inputs, output: task.output };
    let object: Bytes = object.encode().into();
    let wired = PackageTask {
        task: Hash::of(&object),
        inputs: paths,
        output: DatasetPath::from(name),
        each,
        policy: Arc::clone(&task.policy),
    };
    Ok(Wired { task: wired, object, code })
}

/// What `{item}` in the command of a task that runs once per entry stands for.
const ITEM: &str = TaskObject::ITEM;

/// Adds the input whose entries a task runs for to its inputs, if it is not among them; returns its number.
fn check_each<'a>(
    pipeline: &'a Pipeline,
    task: &TaskSpec,
    each: &At<Name>,
    named: &mut Named<'a>,
) -> Result<u32, PipelineError> {
    let source = &pipeline.source;
    let folder = find(pipeline, each.value.as_str())
        .ok_or_else(|| unknown_name(pipeline, each.value.as_str(), &each.span))?;
    if folder.1 != Kind::Dir {
        let message =
            format!("`each` needs a folder to go through, but `{}` is of kind {}", each.value, folder.1);
        return Err(source.error(&each.span, message));
    }
    if let Some((other, _)) = named.iter().find(|(name, _)| name.as_str() == ITEM) {
        let message =
            format!("`{{{other}}}` stands for an entry of `{}` here: rename the input `{other}`", each.value);
        return Err(source.error(&each.span, message));
    }
    if named.contains(&each.value) {
        let span = find_place(source.text(), &task.command.span, each.value.as_str());
        let message =
            format!("the task runs for one entry of `{}` at a time: `{{item}}` is its path", each.value);
        return Err(source.error(&span, message));
    }
    named.add(folder);
    u32::try_from(named.iter().len() - 1)
        .map_err(|_| source.error(&each.span, "a task cannot have that many inputs".to_owned()))
}

/// Refuses `{item.name}` where there are no entries.
fn check_no_item(pipeline: &Pipeline, name: &Name, task: &TaskSpec) -> Result<(), PipelineError> {
    if task.command.value.words().iter().any(|word| Template::has_item_name(word)) {
        let message = format!(
            "`{{item.name}}` is the name of an entry, but task `{name}` does not say `each = \"FOLDER\"` \
             (`{{{{item.name}}}}` stands for the text itself)"
        );
        return Err(pipeline.source.error(&task.command.span, message));
    }
    Ok(())
}

/// Where `{name}` stands in a command. A string with escapes is longer in the file than its value is, so it is looked
/// for in the text of the file.
fn find_place(text: &str, command: &Range<usize>, name: &str) -> Range<usize> {
    let written = format!("{{{name}}}");
    match text.get(command.clone()).and_then(|command| command.find(&written)) {
        Some(at) => command.start + at..command.start + at + written.len(),
        None => command.clone(),
    }
}

pub(crate) fn unknown_name(pipeline: &Pipeline, name: &str, span: &Range<usize>) -> PipelineError {
    let known = pipeline.inputs.keys().chain(pipeline.tasks.keys()).map(Name::as_str);
    let hint = match most_similar(name, known.chain(["output"])) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => "expected the name of an input or of a task".to_owned(),
    };
    let literal = if pipeline.source.text().get(span.clone()).is_some_and(|text| text.starts_with('{')) {
        format!(" (`{{{{{name}}}}}` stands for the text `{{{name}}}` itself)")
    } else {
        String::new()
    };
    pipeline.source.error(span, format!("there is no input or task `{name}`: {hint}{literal}"))
}
