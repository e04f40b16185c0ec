//! What the tracked sources consist of: which files, folders and links. Nothing is read here.

use std::{
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use e3_core::parallel;
use e3_types::{ErrorClass, Hasher};
use walkdir::{DirEntry, WalkDir};

use crate::{
    build::{Tracked, TrackedSource},
    error::PipelineError,
    look::{Look, Looker},
};

/// How many files are looked at in one go.
const GROUP: usize = 1000;

/// Something that a tracked source consists of.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its place in the dataset; empty for a dataset that is one file.
    pub(crate) relative: PathBuf,
    pub(crate) what: What,
}

impl Found {
    /// Where it is and how it looks, if it is a file.
    pub(crate) fn file(&self) -> Option<(&Path, &Look)> {
        if let What::File { path, look } = &self.what { Some((path, look)) } else { None }
    }

    /// Takes it into a fingerprint.
    pub(crate) fn tell(&self, hasher: &mut Hasher) {
        let place = self.relative.as_os_str().as_encoded_bytes();
        let (kind, text, look) = match &self.what {
            What::File { path, look } => (b"f", path.as_os_str().as_encoded_bytes(), Some(look)),
            What::Dir => (b"d", &[][..], None),
            What::Symlink { target } => (b"l", target.as_encoded_bytes(), None),
            What::Special => (b"s", &[][..], None),
        };
        hasher.update(kind);
        for text in [place, text] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        if let Some(look) = look {
            look.tell(hasher);
        }
    }
}

#[derive(Debug)]
pub(crate) enum What {
    File {
        path: PathBuf,
        look: Look,
    },
    Dir,
    Symlink {
        target: OsString,
    },
    /// A device, a socket or a fifo.
    Special,
}

/// Walks a tracked source. `skip` is left out wherever it is met: the repository itself.
pub(crate) fn walk(
    project: &Path,
    skip: &Path,
    tracked: &Tracked,
    looker: &mut Looker,
) -> Result<Vec<Found>, PipelineError> {
    let walker = Walker { project, skip, tracked, found: Vec::new() };
    match &tracked.source {
        TrackedSource::File(file) => walker.file(file, looker),
        TrackedSource::Dir(dir) => walker.dir(dir),
        TrackedSource::Code(patterns) => walker.code(patterns),
    }
}

struct Walker<'a> {
    project: &'a Path,
    skip: &'a Path,
    tracked: &'a Tracked,
    found: Vec<Found>,
}

impl Walker<'_> {
    fn file(self, file: &str, looker: &mut Looker) -> Result<Vec<Found>, PipelineError> {
        let path = self.project.join(file);
        let Some(look) = looker.look(&path).map_err(|error| self.unavailable(&path, &error))? else {
            return Err(self.refuse(format!("`{file}` is not a file: write `dir` for a folder")));
        };
        // There may be many such datasets: a list of one, without room for more.
        Ok(vec![Found { relative: PathBuf::new(), what: What::File { path, look } }])
    }

    fn dir(mut self, dir: &str) -> Result<Vec<Found>, PipelineError> {
        let path = self.project.join(dir);
        if !self.look(&path)?.is_dir() {
            return Err(self.refuse(format!("`{dir}` is not a folder: write `file` for a file")));
        }
        self.tree(&path, Path::new(""))?;
        Ok(self.found)
    }

    fn code(mut self, patterns: &[String]) -> Result<Vec<Found>, PipelineError> {
        for pattern in patterns {
            if !Path::new(pattern)
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
            {
                let message =
                    format!("code `{pattern}` must be a path inside the project folder, without `..`");
                return Err(self.refuse(message));
            }
            let matches = self.matches(pattern)?;
            if matches.is_empty() {
                return Err(self.refuse(format!("code `{pattern}` matches no file of the project")));
            }
            for path in matches {
                let relative: PathBuf = path
                    .strip_prefix(self.project)
                    .unwrap_or(&path)
                    .components()
                    .filter(|part| matches!(part, Component::Normal(_)))
                    .collect();
                if matches!(
                    relative.iter().next().and_then(|first| first.to_str()),
                    Some("inputs" | "output")
                ) {
                    let message = format!(
                        "code `{}` would stand where e3 puts the task's inputs or its output: give it another name",
                        relative.display()
                    );
                    return Err(self.refuse(message));
                }
                let metadata = self.look(&path)?;
                if metadata.is_dir() {
                    self.tree(&path, &relative)?;
                } else {
                    self.found.push(Found { relative, what: What::File { path, look: Look::of(&metadata) } });
                }
            }
        }
        Ok(self.found)
    }

    /// The paths that a pattern means: itself where there is such a file, otherwise what matches.
    fn matches(&self, pattern: &str) -> Result<Vec<PathBuf>, PipelineError> {
        let literal = self.project.join(pattern);
        if fs::symlink_metadata(&literal).is_ok() {
            return Ok(vec![literal]);
        }
        let project = glob::Pattern::escape(&self.project.to_string_lossy());
        let found = glob::glob(&format!("{project}/{pattern}"))
            .map_err(|error| self.refuse(format!("code `{pattern}` is not a pattern: {}", error.msg)))?;
        let mut paths = Vec::new();
        for path in found {
            let path = path.map_err(|error| self.unavailable(error.path(), error.error()))?;
            if !path.starts_with(self.skip) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn tree(&mut self, root: &Path, below: &Path) -> Result<(), PipelineError> {
        if !below.as_os_str().is_empty() {
            self.found.push(Found { relative: below.to_owned(), what: What::Dir });
        }
        let skip = self.skip.to_owned();
        let mut entries =
            WalkDir::new(root).min_depth(1).into_iter().filter_entry(move |entry| entry.path() != skip);
        // To look at files is most of the work, and each may be looked at alone, while the next ones are listed.
        let groups = std::iter::from_fn(|| {
            let group = entries.by_ref().take(GROUP).collect::<Result<Vec<_>, _>>();
            Some(group).filter(|group| group.as_ref().map_or(true, |entries| !entries.is_empty()))
        });
        let found = parallel::for_each_found(groups, |group| {
            let group = group.map_err(|error| {
                let path = error.path().unwrap_or(root).to_owned();
                self.unavailable(&path, &error.into())
            })?;
            let mut looker = Looker::default();
            let entries = group.into_iter().map(|entry| self.entry(root, below, entry, &mut looker));
            entries.collect::<Result<Vec<_>, _>>()
        })?;
        self.found.extend(found.into_iter().flatten());
        Ok(())
    }

    fn entry(
        &self,
        root: &Path,
        below: &Path,
        entry: DirEntry,
        looker: &mut Looker,
    ) -> Result<Found, PipelineError> {
        let path = entry.path();
        let relative = below.join(path.strip_prefix(root).expect("walked paths start with their root"));
        let kind = entry.file_type();
        let what = if kind.is_dir() {
            What::Dir
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|error| self.unavailable(path, &error))?;
            What::Symlink { target: target.into() }
        } else if kind.is_file() {
            let look = looker.look_at_itself(path).map_err(|error| self.unavailable(path, &error))?;
            What::File { look, path: entry.into_path() }
        } else {
            What::Special
        };
        Ok(Found { relative, what })
    }

    fn look(&self, path: &Path) -> Result<fs::Metadata, PipelineError> {
        fs::metadata(path).map_err(|error| self.unavailable(path, &error))
    }

    fn refuse(&self, message: String) -> PipelineError {
        self.tracked.error(ErrorClass::User, message)
    }

    fn unavailable(&self, path: &Path, error: &io::Error) -> PipelineError {
        let path = path.strip_prefix(self.project).unwrap_or(path).display();
        match error.kind() {
            io::ErrorKind::NotFound => self.refuse(format!("`{path}` does not exist")),
            _ => self.tracked.error(ErrorClass::Environment, format!("`{path}` cannot be read: {error}")),
        }
    }
}
