//! `TaskObject`: a command with named inputs and one output. It holds what can change the output and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, ObjectFormatError, decode, decode_known, encode};
use crate::{Name, Template};

/// A task as it is stored. Its hash is the first half of every execution key.
///
/// Names that it has in a package, resources, retries and timeouts are not here: they cannot change the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskObject {
    /// What to run.
    pub command: CommandLine,
    /// The task runs once per entry of this input, which is a folder; see `for_item`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<Name>,
    /// Environment variables that the task names, beside the fixed allow-list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The inputs, in the order in which their hashes are joined to the inputs hash.
    pub inputs: Vec<TaskInput>,
    /// The kind of the output; of a task that runs once per entry, the kind of each entry's output.
    pub output: Kind,
}

/// Why a task cannot be made for an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The task does not run once per entry.
    #[error("the task has no input whose entries it could run for")]
    NotEach,
    /// The name would mean something else to a shell.
    #[error(
        "the entry `{0}` cannot stand for {{item.name}} in a shell command: write the command as a list, where any \
         name is safe"
    )]
    UnsafeName(String),
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
    /// The name under which the entry is staged of a task that runs once per entry.
    pub const ITEM: &str = "item";

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectFormatError> {
        decode(bytes, "task")
    }

    /// Reads bytes that are known to be canonical: those of an object that was checked when it came into the store.
    pub fn decode_known(bytes: &[u8]) -> Result<Self, ObjectFormatError> {
        decode_known(bytes, "task")
    }

    /// Whether the name of the entry is part of the command, and so of the identity, of each of its tasks.
    pub fn uses_item_name(&self) -> bool {
        self.command.words().iter().any(|word| Template::has_item_name(word))
    }

    /// The task for one entry of the folder that `each` names: an ordinary task, whose input `item` is the entry.
    ///
    /// Its name is not part of it unless the command asks for `{item.name}`, so an entry that is only renamed keeps its
    /// result.
    pub fn for_item(&self, name: &str, kind: Kind) -> Result<Self, ItemError> {
        let each = self.each.as_ref().ok_or(ItemError::NotEach)?;
        let mut task = Self { each: None, ..self.clone() };
        let input = task.inputs.iter_mut().find(|input| input.name.as_ref() == Some(each));
        let input = input.ok_or(ItemError::NotEach)?;
        input.name = Some(Self::ITEM.parse().expect("this is a name"));
        input.kind = kind;
        if self.uses_item_name() {
            task.command = match &self.command {
                CommandLine::Argv(words) => {
                    CommandLine::Argv(words.iter().map(|word| Template::with_item_name(word, name)).collect())
                }
                CommandLine::Shell(_) if !is_shell_safe(name) => {
                    return Err(ItemError::UnsafeName(name.to_owned()));
                }
                CommandLine::Shell(script) => CommandLine::Shell(Template::with_item_name(script, name)),
            };
        }
        Ok(task)
    }
}

/// Whether a word means itself wherever it stands in a shell command: POSIX.1-2017, Shell Command Language, 2.2.
fn is_shell_safe(name: &str) -> bool {
    !name.starts_with('-')
        && name.chars().all(|letter| {
            letter.is_ascii_alphanumeric() || "._-+,:@%=".contains(letter) || !letter.is_ascii()
        })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Hash;

    fn example() -> TaskObject {
        TaskObject {
            command: CommandLine::Shell("awk -f clean.awk {raw} > {output}".into()),
            each: None,
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

    #[test]
    fn a_task_for_an_entry_is_an_ordinary_one() {
        let words =
            ["convert", "{item}", "-o", "{output}", "{item.name}", "{{item.name}}"].map(str::to_owned);
        let mut task = example();
        task.inputs[0].kind = Kind::Dir;
        assert_eq!(task.for_item("a.png", Kind::File), Err(ItemError::NotEach));
        task.each = Some("raw".parse().unwrap());
        let one = task.for_item("a.png", Kind::File).unwrap();
        assert_eq!(one, task.for_item("b.png", Kind::File).unwrap(), "the name is not asked for");
        assert_eq!((one.inputs[0].name.as_ref().unwrap().as_str(), one.inputs[0].kind), ("item", Kind::File));
        assert_eq!(one.each, None);

        task.command = CommandLine::Argv(words.to_vec());
        let CommandLine::Argv(words) = task.for_item("{raw} $(x)", Kind::File).unwrap().command else {
            panic!()
        };
        let place = |name: &str| (name != "raw").then_some("PATH");
        let words: Vec<_> = words.iter().map(|word| Template::of(word).expand(place).unwrap()).collect();
        assert_eq!(words, ["convert", "PATH", "-o", "PATH", "{raw} $(x)", "{item.name}"]);

        task.command = CommandLine::Shell("cp {item} {item.name}".into());
        assert_eq!(
            task.for_item("ü-1.png", Kind::File).unwrap().command,
            CommandLine::Shell("cp {item} ü-1.png".into())
        );
        for name in ["a b", "$(x)", "a;b", "-rf", "`x`", "a'b", "a\nb", "*", "~", "#x"] {
            assert_eq!(task.for_item(name, Kind::File), Err(ItemError::UnsafeName(name.into())));
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
            prop::option::of(any_name()),
        )
            .prop_map(|(command, env, inputs, output, each)| TaskObject {
                command,
                each,
                env,
                inputs,
                output,
            })
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
