//! `NamePattern`: which tasks are meant on a command line.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
};

use e3_types::{DatasetPath, Name, Package};

/// A task's name, in which `*`, `?` and `[...]` match as in a shell; `NAME+` means also all tasks that depend on it, and
/// `+NAME` all that it needs, which are selected in any case.
#[derive(Debug, Clone)]
pub struct NamePattern {
    name: glob::Pattern,
    with_dependencies: bool,
    with_dependents: bool,
}

/// The text is not a pattern.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{text}` is not a pattern for names: {message}")]
pub struct NamePatternError {
    text: String,
    message: &'static str,
}

impl FromStr for NamePattern {
    type Err = NamePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse =
            |error: glob::PatternError| NamePatternError { text: text.to_owned(), message: error.msg };
        let name = text.strip_prefix('+').unwrap_or(text);
        let with_dependencies = name.len() < text.len();
        let (name, with_dependents) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
        Ok(Self { name: glob::Pattern::new(name).map_err(refuse)?, with_dependencies, with_dependents })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plus = |is_there| if is_there { "+" } else { "" };
        write!(f, "{}{}{}", plus(self.with_dependencies), self.name.as_str(), plus(self.with_dependents))
    }
}

impl NamePattern {
    /// Whether the pattern means this task by its name.
    pub fn matches(&self, name: &Name) -> bool {
        self.name.matches(name.as_str())
    }

    /// The package with only the tasks that the patterns mean and all that these need; the whole package if there is
    /// no pattern. The error is the pattern that matches nothing.
    pub fn select<'a>(patterns: &[Self], package: &'a Package) -> Result<Cow<'a, Package>, Self> {
        if patterns.is_empty() {
            return Ok(Cow::Borrowed(package));
        }
        let mut open = Vec::new();
        let mut down = Vec::new();
        for pattern in patterns {
            let before = open.len();
            open.extend(package.tasks.keys().filter(|name| pattern.matches(name)));
            if open.len() == before {
                return Err(pattern.clone());
            }
            if pattern.with_dependents {
                down.extend_from_slice(&open[before..]);
            }
        }
        let mut readers: HashMap<&DatasetPath, Vec<&Name>> = HashMap::new();
        for (name, task) in package.tasks.iter().filter(|_| !down.is_empty()) {
            for input in &task.inputs {
                readers.entry(input).or_default().push(name);
            }
        }
        open.extend(reach(down, |name| {
            readers.get(&package.tasks[name].output).into_iter().flatten().copied()
        }));
        let producers: HashMap<_, _> =
            package.tasks.iter().map(|(name, task)| (&task.output, name)).collect();
        let wanted = reach(open, |name| {
            package.tasks[name].inputs.iter().filter_map(|input| producers.get(input).copied())
        });
        let tasks = wanted.into_iter().map(|name| (name.clone(), package.tasks[name].clone())).collect();
        let (name, version) = (package.name.clone(), package.version.clone());
        Ok(Cow::Owned(Package { name, version, datasets: package.datasets.clone(), tasks }))
    }
}

/// Everything that can be reached from `open`, itself included.
fn reach<'a, Next: Iterator<Item = &'a Name>>(
    mut open: Vec<&'a Name>,
    next: impl Fn(&'a Name) -> Next,
) -> BTreeSet<&'a Name> {
    let mut reached = BTreeSet::new();
    while let Some(name) = open.pop() {
        if reached.insert(name) {
            open.extend(next(name));
        }
    }
    reached
}
