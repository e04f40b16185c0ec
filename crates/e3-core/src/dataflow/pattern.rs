//! `NamePattern`: which tasks are meant on a command line.

use std::{collections::BTreeSet, fmt, str::FromStr};

use e3_types::{Name, Package};

/// A task's name, in which `*`, `?` and `[...]` match as in a shell.
#[derive(Debug, Clone)]
pub struct NamePattern(glob::Pattern);

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
        Ok(Self(glob::Pattern::new(text).map_err(refuse)?))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl NamePattern {
    /// Whether the pattern means this task.
    pub fn matches(&self, name: &Name) -> bool {
        self.0.matches(name.as_str())
    }

    /// The package with only the tasks that the patterns mean and all that these need; the whole package if there is
    /// no pattern. The error is the pattern that matches nothing.
    pub fn select(patterns: &[Self], package: &Package) -> Result<Package, Self> {
        let mut selected = package.clone();
        if patterns.is_empty() {
            return Ok(selected);
        }
        let mut wanted = BTreeSet::new();
        let mut open = Vec::new();
        for pattern in patterns {
            let before = open.len();
            open.extend(package.tasks.keys().filter(|name| pattern.matches(name)));
            if open.len() == before {
                return Err(pattern.clone());
            }
        }
        let producers: std::collections::HashMap<_, _> =
            package.tasks.iter().map(|(name, task)| (&task.output, name)).collect();
        while let Some(name) = open.pop() {
            if wanted.insert(name) {
                open.extend(package.tasks[name].inputs.iter().filter_map(|input| producers.get(input)));
            }
        }
        selected.tasks.retain(|name, _| wanted.contains(name));
        Ok(selected)
    }
}
