//! Names that people choose. Each kind of name is a type of its own with one grammar, checked when it is made.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The text does not follow the grammar of the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: expected {expected}")]
pub struct NameError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

pub(crate) fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.len() <= 128
}

fn is_label(text: &str) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        && text.len() <= 128
}

fn is_version(text: &str) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+'))
        && text.len() <= 128
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $grammar:path, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $grammar(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { what: $what, text: text.to_owned(), expected: $expected })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a task, of an input, or of a staged input: an identifier, so that it can stand in a command as
    /// `{name}` and in an environment variable.
    Name, "name", is_identifier,
    "a letter or `_`, then letters, digits or `_`, at most 128 in all"
);
name!(
    /// The name of a package.
    PackageName, "package name", is_label,
    "a letter or digit, then letters, digits, `-`, `_` or `.`, at most 128 in all"
);
name!(
    /// The version of a package: any label; e3 compares it for equality only.
    PackageVersion, "package version", is_version,
    "a letter or digit, then letters, digits, `-`, `_`, `.` or `+`, at most 128 in all"
);
name!(
    /// The name of a workspace.
    WorkspaceName, "workspace name", is_label,
    "a letter or digit, then letters, digits, `-`, `_` or `.`, at most 128 in all"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers() {
        for good in ["a", "_x", "stats_2024", "Z"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "2a", "a-b", "a.b", "ä", "a b", &"a".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_cannot_leave_their_folder() {
        for good in ["main", "my-team.v2", "0"] {
            assert!(good.parse::<WorkspaceName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a\0b", "-x"] {
            assert!(bad.parse::<WorkspaceName>().is_err(), "{bad}");
        }
        assert!("1.0.0+linux".parse::<PackageVersion>().is_ok());
    }

    #[test]
    fn errors_name_the_text_and_the_grammar() {
        let message = "my task".parse::<Name>().unwrap_err().to_string();
        assert_eq!(
            message,
            "`my task` is not a name: expected a letter or `_`, then letters, digits or `_`, at most 128 in all"
        );
    }
}
