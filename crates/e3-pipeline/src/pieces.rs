//! A pipeline file in pieces, so that its tasks can be read one by one: the tree that a parser makes of a whole file takes twenty
//! times the memory of its text.
//!
//! A piece is what stands under the headers `[tasks.NAME]` and `[tasks.NAME.more]` of one task, as far as these follow each other. It
//! is a TOML document of its own, and the file without these pieces is another one. Where a file is written in another way, or is no
//! TOML, the pieces are not what it says: then the whole of it is read. So this need not know TOML, but only where a header begins.

use std::{borrow::Cow, ops::Range};

use toml_parser::{
    Source,
    lexer::{Lexer, Token, TokenKind},
};

/// The pieces of a file.
pub(crate) struct Pieces<'a> {
    /// All that stands under no header of a task, at its place; with blanks for the tasks.
    pub(crate) rest: Cow<'a, str>,
    /// What stands under the headers of each task.
    pub(crate) tasks: Vec<Range<usize>>,
}

/// Takes a file apart.
pub(crate) fn split(text: &str) -> Pieces<'_> {
    let mut tasks: Vec<Range<usize>> = Vec::new();
    let mut name = None;
    for header in Headers::of(text) {
        // What is under way ends here, unless this is about the same task.
        let is_same = header.task.is_some() && header.task == name;
        if let (Some(last), Some(_)) = (tasks.last_mut(), name) {
            last.end = header.start;
        }
        if header.task.is_some() && !is_same {
            tasks.push(header.start..text.len());
        }
        name = header.task;
    }
    if let (Some(last), Some(_)) = (tasks.last_mut(), name) {
        last.end = text.len();
    }
    Pieces { rest: without(text, &tasks), tasks }
}

/// The text with blanks in these places; without what is nothing but blanks at its end.
fn without<'a>(text: &'a str, places: &[Range<usize>]) -> Cow<'a, str> {
    let Some(first) = places.first() else { return Cow::Borrowed(text) };
    // Those that follow each other up to the end.
    let end =
        places.iter().rev().fold(text.len(), |end, place| if place.end == end { place.start } else { end });
    if end <= first.start {
        return Cow::Borrowed(&text[..end]);
    }
    let mut rest = String::with_capacity(end);
    for place in places.iter().take_while(|place| place.start < end) {
        rest.push_str(&text[rest.len()..place.start]);
        rest.extend(std::iter::repeat_n(' ', place.len() - 1));
        rest.push('\n');
    }
    rest.push_str(&text[rest.len()..end]);
    Cow::Owned(rest)
}

/// A header: the first bracket of a line that is not inside a value.
struct Header<'a> {
    start: usize,
    /// The name in `[tasks.NAME`, as it is written.
    task: Option<&'a str>,
}

struct Headers<'a> {
    text: &'a str,
    tokens: Lexer<'a>,
    /// How many brackets are open.
    depth: u32,
    is_line_start: bool,
}

impl<'a> Headers<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, tokens: Source::new(text).lex(), depth: 0, is_line_start: true }
    }
}

/// The name of the task, if what follows the bracket says that this is the header of one.
fn task_of(header: &str) -> Option<&str> {
    let word = |token: &Token| &header[token.span().start()..token.span().end()];
    let mut words = Source::new(header).lex().filter(|token| token.kind() != TokenKind::Whitespace);
    let (tasks, dot, name) = (words.next()?, words.next()?, words.next()?);
    let is_key = matches!(name.kind(), TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString);
    (word(&tasks) == "tasks" && dot.kind() == TokenKind::Dot && is_key).then(|| word(&name))
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        for token in self.tokens.by_ref() {
            let is_first = self.is_line_start && self.depth == 0;
            match token.kind() {
                TokenKind::Whitespace => continue,
                TokenKind::Newline => {
                    self.is_line_start = true;
                    continue;
                }
                TokenKind::LeftSquareBracket if is_first => {
                    (self.is_line_start, self.depth) = (false, 1);
                    let start = token.span().start();
                    return Some(Header { start, task: task_of(&self.text[start + 1..]) });
                }
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => self.depth += 1,
                TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                    self.depth = self.depth.saturating_sub(1);
                }
                _ => {}
            }
            self.is_line_start = false;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_apart_at_the_headers_of_tasks() {
        let text = "a = [\n[1],\n]\n[package]\nname = '''\n[tasks.no]\n'''\n [tasks.one] # [tasks.x]\nb = {c=[\n[tasks.no]]}\n[ tasks . one.env]\n[tasks.\"two\"]\n[outputs]\n[[tasks.list]]\n[tasks.three]\nd = 1";
        let Pieces { rest, tasks } = split(text);
        let pieces: Vec<&str> = tasks.iter().map(|piece| &text[piece.clone()]).collect();
        assert_eq!(
            pieces,
            [
                "[tasks.one] # [tasks.x]\nb = {c=[\n[tasks.no]]}\n[ tasks . one.env]\n",
                "[tasks.\"two\"]\n",
                "[tasks.three]\nd = 1"
            ]
        );
        assert!(text.starts_with(&rest[..tasks[0].start]));
        assert_eq!(&rest[tasks[1].end..], "[outputs]\n[[tasks.list]]\n");
        assert_eq!(rest[tasks[0].start..tasks[1].end].trim(), "");
        assert_eq!(rest.find("[outputs]"), text.find("[outputs]"), "places stay");
    }

    #[test]
    fn a_file_without_tasks_is_one_piece() {
        for text in ["", "a = 1", "[package]\n", "[tasks]\nb = 1\n", "[\"tasks\".a]\n"] {
            let Pieces { rest, tasks } = split(text);
            assert_eq!((&*rest, tasks.len()), (text, 0));
        }
        let Pieces { rest, tasks } = split("x = 1\n[tasks.ä]\n[tasks.b]");
        assert_eq!((&*rest, tasks.len()), ("x = 1\n", 2));
    }
}
