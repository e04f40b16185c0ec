//! `TaskObject`: a command with named inputs and one output. It holds what can change the output and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, ObjectFormatError, decode, encode};
use crate::Name;

/// A task as it is stored. Its hash is the first half of every execution key.
///
/// Names that it has in a package, resources, retries and timeouts are not here: they cannot change the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskObject {
    /// What to run.
    pub command: CommandLine,
    /// Environment variables that the task names, beside the fixed allow-list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The inputs, in the order in which their hashes are joined to the inputs hash.
    pub inputs: Vec<TaskInput>,
    /// The kind of the output.
    pub output: Kind,
}

/// What to run. The words are templates (see `Template`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandLine {
    /// A program and its arguments, started without a shell.
    Argv(Vec<String>),
    /// A script, run as `sh -ec SCRIPT`.
    Shell(String),
}

/// An input of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskInput {
    /// The input is staged as `inputs/<name>`. Without a name it is a folder whose entries are staged in the working
    /// folder itself: the code of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The kind that is expected.
    pub kind: Kind,
    /// Whether the task gets a private copy that it may change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writable: bool,
}

impl CommandLine {
    /// The words that are templates.
    pub fn words(&self) -> &[String] {
        match self {
            Self::Argv(words) => words,
            Self::Shell(script) => std::slice::from_ref(script),
        }
    }
}

impl TaskObject {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectFormatError> {
        decode(bytes, "task")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Hash;

    fn example() -> TaskObject {
        TaskObject {
            command: CommandLine::Shell("awk -f clean.awk {raw} > {output}".into()),
            env: BTreeMap::from([("LC_ALL".into(), "C".into())]),
            inputs: vec![
                TaskInput { name: Some("raw".parse().unwrap()), kind: Kind::File, writable: false },
                TaskInput { name: None, kind: Kind::Dir, writable: false },
            ],
            output: Kind::File,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = example().encode();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"command":{"shell":"awk -f clean.awk {raw} > {output}"},"env":{"LC_ALL":"C"},"inputs":[{"kind":"file","name":"raw"},{"kind":"dir"}],"output":"file"}"#
        );
        assert_eq!(
            Hash::of(&bytes).to_string(),
            "324cfe40820dccf6a0b5577e3de7448ac92861132d475debb103d12fcd7c2463",
            "a changed encoding orphans every cached result: raise the format version instead"
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        let canonical = String::from_utf8(example().encode()).unwrap();
        for other in [
            canonical.replace(r#""output":"file""#, r#""output": "file""#),
            canonical.replace(r#""kind":"dir""#, r#""kind":"dir","writable":false"#),
            canonical.replace(r#"{"kind":"file","name":"raw"}"#, r#"{"name":"raw","kind":"file"}"#),
            canonical.replace(r#""output":"file""#, r#""output":"file","retries":3"#),
            format!("{canonical}\n"),
        ] {
            assert_ne!(other, canonical);
            assert!(TaskObject::decode(other.as_bytes()).is_err(), "{other}");
        }
    }

    pub(crate) fn any_name() -> impl Strategy<Value = Name> {
        "[A-Za-z_][A-Za-z0-9_]{0,12}".prop_map(|text| text.parse().expect("the pattern is the grammar"))
    }

    pub(crate) fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::File), Just(Kind::Dir), Just(Kind::Json)]
    }

    fn any_task() -> impl Strategy<Value = TaskObject> {
        let command = prop_oneof![
            prop::collection::vec(any::<String>(), 1..4).prop_map(CommandLine::Argv),
            any::<String>().prop_map(CommandLine::Shell),
        ];
        let input = (prop::option::of(any_name()), any_kind(), any::<bool>())
            .prop_map(|(name, kind, writable)| TaskInput { name, kind, writable });
        (
            command,
            prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
            prop::collection::vec(input, 0..4),
            any_kind(),
        )
            .prop_map(|(command, env, inputs, output)| TaskObject { command, env, inputs, output })
    }

    proptest! {
        #[test]
        fn decode_is_the_inverse_of_encode(task in any_task()) {
            prop_assert_eq!(TaskObject::decode(&task.encode()).unwrap(), task);
        }

        #[test]
        fn what_decodes_is_canonical(bytes: Vec<u8>) {
            if let Ok(task) = TaskObject::decode(&bytes) {
                prop_assert_eq!(task.encode(), bytes);
            }
        }
    }
}
