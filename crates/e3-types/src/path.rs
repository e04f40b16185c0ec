//! `DatasetPath`: where a dataset lives in a workspace.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Name, NameError};

/// One or more names joined by `.`, such as `stats` or `stats.code`.
///
/// A path is only a name: `stats` and `stats.code` are two datasets, neither contains the other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetPath(Arc<str>);

/// The text does not follow the grammar of a dataset path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a dataset path: expected names joined by `.`, such as `stats` or `stats.code`")]
pub struct DatasetPathError {
    text: String,
    #[source]
    source: NameError,
}

impl DatasetPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path `self.name`.
    #[must_use]
    pub fn child(&self, name: &Name) -> Self {
        Self(format!("{}.{name}", self.0).into())
    }

    /// Whether this is `ancestor` itself or one of the paths that start with it, name by name.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl From<&Name> for DatasetPath {
    fn from(name: &Name) -> Self {
        Self(Arc::clone(&name.0))
    }
}

impl FromStr for DatasetPath {
    type Err = DatasetPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for name in text.split('.') {
            name.parse::<Name>().map_err(|source| DatasetPathError { text: text.to_owned(), source })?;
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for DatasetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DatasetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for DatasetPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for DatasetPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DatasetPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_joined_by_dots() {
        for good in ["a", "a.code", "a.b.c"] {
            assert_eq!(good.parse::<DatasetPath>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a/b", "a.2"] {
            assert!(bad.parse::<DatasetPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn within_goes_by_whole_names() {
        let path = |text: &str| text.parse::<DatasetPath>().unwrap();
        assert!(path("a.b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert!(!path("a").is_within(&path("a.b")));
    }
}
