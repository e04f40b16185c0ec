//! A pipeline file in pieces, so that its inputs and tasks can be read some at a time: the tree that a parser makes of a whole file
//! takes twenty times the memory of its text.
//!
//! A piece with a task is what stands under the headers `[tasks.NAME]` and `[tasks.NAME.more]`, as far as these follow each other;
//! pieces with inputs are some of the lines that stand under the header `[inputs]`, without that. Each is a TOML document of its
//! own, and the file without these pieces is another one. Where a file is written in another way, or is no TOML, the pieces are not
//! what it says: then the whole of it is read. So this need not know TOML, but only where a header or an entry begins.

use std::{borrow::Cow, ops::Range};

use toml_parser::{
    Source,
    lexer::{Lexer, Token, TokenKind},
};

/// How long a piece with inputs is, at least if there are more. In tests they are as short as can be.
const INPUTS_AT_ONCE: usize = if cfg!(test) { 1 } else { 32 << 10 };

/// The pieces of a file.
pub(crate) struct Pieces<'a> {
    /// All that is in no piece, at its place; with blanks for the pieces.
    pub(crate) rest: Cow<'a, str>,
    /// What stands under the header of the inputs, some at a time.
    pub(crate) inputs: Vec<Range<usize>>,
    /// What stands under the headers of each task.
    pub(crate) tasks: Vec<Range<usize>>,
}

/// Takes a file apart.
pub(crate) fn split(text: &str) -> Pieces<'_> {
    split_at(text, INPUTS_AT_ONCE)
}

fn split_at(text: &str, inputs_at_once: usize) -> Pieces<'_> {
    let mut pieces: Vec<(Range<usize>, Section<'_>)> = Vec::new();
    let mut section = Section::Other;
    // Where the piece begins that is under way.
    let mut open = None;
    for Line { start, header } in
        Lines::of(text).chain([Line { start: text.len(), header: Some(Section::Other) }])
    {
        let before = section;
        section = header.unwrap_or(section);
        let (begins, ends) = match section {
            Section::Task(_) => (section != before, section != before),
            Section::Inputs if header.is_none() => {
                let is_full = open.is_none_or(|open| start - open >= inputs_at_once);
                (is_full, is_full)
            }
            Section::Inputs | Section::Other => (false, header.is_some()),
        };
        if ends && let Some(open) = open.take() {
            pieces.push((open..start, before));
        }
        if begins {
            open = Some(start);
        }
    }
    let places: Vec<Range<usize>> = pieces.iter().map(|(place, _)| place.clone()).collect();
    let (inputs, tasks): (Vec<_>, Vec<_>) =
        pieces.into_iter().partition(|(_, section)| *section == Section::Inputs);
    let places_of = |pieces: Vec<(Range<usize>, _)>| pieces.into_iter().map(|(place, _)| place).collect();
    Pieces { rest: without(text, &places), inputs: places_of(inputs), tasks: places_of(tasks) }
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

/// What stands under a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section<'a> {
    /// A task, with its name in `[tasks.NAME`, as it is written.
    Task(&'a str),
    /// Under `[inputs]`.
    Inputs,
    Other,
}

impl<'a> Section<'a> {
    /// What follows the first bracket of a header says.
    fn of(header: &'a str) -> Self {
        let word = |token: &Token| &header[token.span().start()..token.span().end()];
        let mut words = Source::new(header).lex().filter(|token| token.kind() != TokenKind::Whitespace);
        let (Some(first), Some(second)) = (words.next(), words.next()) else { return Self::Other };
        match (word(&first), second.kind(), words.next()) {
            ("inputs", TokenKind::RightSquareBracket, _) => Self::Inputs,
            ("tasks", TokenKind::Dot, Some(name)) if is_key(name.kind()) => Self::Task(word(&name)),
            _ => Self::Other,
        }
    }
}

fn is_key(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString)
}

/// A line that is not inside a value: it begins with a header or an entry.
struct Line<'a> {
    start: usize,
    /// What the header says, if it is one: it begins with a bracket.
    header: Option<Section<'a>>,
}

struct Lines<'a> {
    text: &'a str,
    tokens: Lexer<'a>,
    /// How many brackets are open.
    depth: u32,
    is_line_start: bool,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, tokens: Source::new(text).lex(), depth: 0, is_line_start: true }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        for token in self.tokens.by_ref() {
            let (start, kind, is_outside) = (token.span().start(), token.kind(), self.depth == 0);
            match kind {
                TokenKind::Whitespace | TokenKind::Comment | TokenKind::Eof => continue,
                TokenKind::Newline => {
                    self.is_line_start = true;
                    continue;
                }
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => self.depth += 1,
                TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                    self.depth = self.depth.saturating_sub(1);
                }
                _ => {}
            }
            if std::mem::take(&mut self.is_line_start) && is_outside {
                let is_header = kind == TokenKind::LeftSquareBracket;
                let header = is_header.then(|| Section::of(&self.text[start + 1..]));
                return Some(Line { start, header });
            }
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
        let Pieces { rest, inputs, tasks } = split(text);
        assert!(inputs.is_empty());
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
            let Pieces { rest, inputs, tasks } = split(text);
            assert_eq!((&*rest, inputs.len(), tasks.len()), (text, 0, 0));
        }
        let Pieces { rest, tasks, .. } = split("x = 1\n[tasks.ä]\n[tasks.b]");
        assert_eq!((&*rest, tasks.len()), ("x = 1\n", 2));
    }

    #[test]
    fn the_inputs_are_taken_apart_between_their_entries() {
        let text = "[package]\nname = 'x'\n[ inputs ] # here\n# a\na = { file = 'a' }\nb.json = [\n[1],\n]\n'c' = { json = \"\"\"\nd = 1\n\"\"\" }\n\n[inputs.e]\nfile = 'e'\n[tasks.t]\ncommand = 'f'\n[inputs]\ng = 1";
        let pieces = |at_once| {
            let Pieces { rest, inputs, tasks } = split_at(text, at_once);
            assert_eq!(rest.find("[inputs.e]"), text.find("[inputs.e]"), "places stay");
            assert_eq!(tasks.len(), 1);
            inputs.into_iter().map(|piece| &text[piece]).collect::<Vec<_>>()
        };
        let (a, b) = ("a = { file = 'a' }\n", "b.json = [\n[1],\n]\n");
        let c = "'c' = { json = \"\"\"\nd = 1\n\"\"\" }\n\n";
        assert_eq!(pieces(1), [a, b, c, "g = 1"]);
        assert_eq!(pieces(a.len() + 1), [[a, b].concat().as_str(), c, "g = 1"]);
        assert_eq!(pieces(text.len()), [[a, b, c].concat().as_str(), "g = 1"]);
    }
}
