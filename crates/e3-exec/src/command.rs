//! What is started for a task: its own program, or a shell for its text.

use std::{collections::HashMap, ffi::OsString};

use e3_types::{CommandLine, ErrorClass, TaskObject, Template};

use crate::{
    execute::Stopped,
    stage::{OUTPUT, staged_path},
};

/// A program and its arguments.
pub(crate) type Words = (OsString, Vec<OsString>);

/// How to start a task.
pub(crate) struct ToStart {
    pub(crate) words: Words,
    /// What to start if the first cannot be: whatever a shell makes of that.
    pub(crate) otherwise: Option<Words>,
}

/// The program and its arguments. A text goes through `sh -ec`, but for one in which there is nothing that only a shell
/// understands: that is started by itself, which is what the shell would do in the end, at twice the price.
pub(crate) fn to_start(task: &TaskObject) -> Result<ToStart, Stopped> {
    let names = task.inputs.iter().filter_map(|input| input.name.as_ref());
    let staged: HashMap<&str, String> = names.map(|name| (name.as_str(), staged_path(name))).collect();
    let place = |name: &str| {
        let input = staged.get(name).map(String::as_str);
        input.or_else(|| (name == OUTPUT).then_some(OUTPUT))
    };
    let words = task.command.words().iter().map(|word| {
        Template::of(word).expand(place).map_err(|name| {
            let message = format!("the command asks for `{{{name}}}`, which is not an input");
            Stopped::error(ErrorClass::User, message)
        })
    });
    let words: Vec<String> = words.collect::<Result<_, _>>()?;
    if let CommandLine::Shell(_) = task.command {
        let text = words.join(" ");
        let plain = plain_words(&text);
        let in_shell = ("sh".into(), vec!["-ec".into(), text.into()]);
        return Ok(match plain {
            Some(plain) => ToStart { words: plain, otherwise: Some(in_shell) },
            None => ToStart { words: in_shell, otherwise: None },
        });
    }
    let mut words = words.into_iter().map(OsString::from);
    let program = words.next().ok_or_else(|| Stopped::error(ErrorClass::User, "the command is empty"))?;
    Ok(ToStart { words: (program, words.collect()), otherwise: None })
}

/// The words of a text that a shell would take as they are, the first of them for a program.
fn plain_words(text: &str) -> Option<Words> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./,:+@%= \t".contains(&byte);
    let mut words =
        text.bytes().all(is_plain).then(|| text.split([' ', '\t']).filter(|word| !word.is_empty()))?;
    let program = words.next()?;
    let is_its_own = program.contains('=') || (!program.contains('/') && OF_SHELLS.contains(&program));
    (!is_its_own).then(|| (program.into(), words.map(OsString::from).collect()))
}

/// What a shell does itself: the built-in utilities and the reserved words of POSIX.1-2024 (XCU 1.6, 2.4 and 2.15), and of the
/// shells that are `sh` somewhere (dash, bash, zsh, ksh, busybox).
const OF_SHELLS: &[&str] = &[
    ".",
    ":",
    "alias",
    "autoload",
    "bg",
    "bind",
    "break",
    "builtin",
    "bye",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disable",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "emulate",
    "enable",
    "end",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "fi",
    "float",
    "for",
    "foreach",
    "function",
    "getopts",
    "hash",
    "help",
    "hist",
    "history",
    "if",
    "in",
    "integer",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "nocorrect",
    "noglob",
    "popd",
    "print",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "rehash",
    "repeat",
    "return",
    "select",
    "set",
    "setopt",
    "shift",
    "shopt",
    "sleep",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unfunction",
    "unhash",
    "unset",
    "unsetopt",
    "until",
    "vared",
    "wait",
    "whence",
    "where",
    "which",
    "while",
    "zmodload",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_shell_would_change_is_taken_apart() {
        let words =
            |text| plain_words(text).map(|(program, rest)| (program.into_string().unwrap(), rest.len()));
        assert_eq!(words("sort -k1,2  inputs/a\t--output=output"), Some(("sort".to_owned(), 3)));
        assert_eq!(words("./tool.py @file +x a:b 50%"), Some(("./tool.py".to_owned(), 4)));
        assert_eq!(words("/usr/bin/echo a"), Some(("/usr/bin/echo".to_owned(), 1)));
        for text in [
            "",
            "  ",
            "a > b",
            "a | b",
            "a; b",
            "a && b",
            "a $b",
            "a `b`",
            "a 'b'",
            "a \"b\"",
            "a \\b",
            "a *",
            "a ?",
            "a [b]",
            "a {b,c}",
            "a ~",
            "~/a",
            "a # b",
            "a\nb",
            "(a)",
            "! a",
            "A=1 b",
            "a ü",
            "echo a",
            "cd a",
            "if a",
            "exec a",
            ". a",
            ": a",
            "test -f a",
            "a^b",
            "a&",
        ] {
            assert_eq!(words(text), None, "{text}");
        }
    }
}
