//! `Template`: one word of a command, with the places where staged paths go.

use crate::Name;

/// A text in which `{identifier}` stands for a path, and `{{identifier}}` for the literal `{identifier}`.
///
/// Every other brace is an ordinary character, so programs for awk or jq can stand in a command as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// A stretch of a `Template`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that stays as it is.
    Text(String),
    /// `{name}`, with the byte offset of its brace in the source text.
    Place {
        /// What is asked for.
        name: Name,
        /// Where it stands, in bytes.
        offset: usize,
    },
}

impl Template {
    /// Reads a template. Every text is one.
    pub fn parse(text: &str) -> Self {
        if !text.contains('{') && !text.is_empty() {
            return Self(vec![Piece::Text(text.to_owned())]);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some((name, after)) = escaped(brace) {
                literal.push('{');
                literal.push_str(name.as_str());
                literal.push('}');
                rest = after;
            } else if let Some((name, after)) = placeholder(brace) {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Place { name, offset: text.len() - brace.len() });
                rest = after;
            } else {
                literal.push('{');
                rest = &brace[1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Self(pieces)
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Whether the text asks for the name of the entry that a task is about.
    pub fn has_item_name(text: &str) -> bool {
        text.contains(ITEM_NAME) && replace_item_name(text, "") != replace_item_name(text, "x")
    }

    /// The text with `name` for every `{item.name}`. The name stands for itself, whatever it holds; `{{item.name}}` stays
    /// the literal `{item.name}`.
    pub fn with_item_name(text: &str, name: &str) -> String {
        replace_item_name(text, &Self::escape(name))
    }

    /// The text as a template that stands for it.
    pub fn escape(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, brace) = rest.split_at(at);
            out.push_str(before);
            if let Some((name, after)) = placeholder(brace) {
                out.push_str(&format!("{{{{{name}}}}}"));
                rest = after;
            } else {
                out.push('{');
                rest = &brace[1..];
            }
        }
        out + rest
    }

    /// The text with every place filled by `path`; the name for which there is no path, if any, is the error.
    pub fn expand<'a>(&self, path: impl Fn(&Name) -> Option<&'a str>) -> Result<String, Name> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Place { name, .. } => out.push_str(path(name).ok_or_else(|| name.clone())?),
            }
        }
        Ok(out)
    }
}

/// Not an identifier, so never a place: it is replaced before the places are filled.
const ITEM_NAME: &str = "{item.name}";

fn replace_item_name(text: &str, name: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(ITEM_NAME) {
        let (before, place) = rest.split_at(at);
        let after = &place[ITEM_NAME.len()..];
        if let (Some(before), Some(after)) = (before.strip_suffix('{'), after.strip_prefix('}')) {
            out.push_str(before);
            out.push_str(ITEM_NAME);
            rest = after;
        } else {
            out.push_str(before);
            out.push_str(name);
            rest = after;
        }
    }
    out + rest
}

/// `{identifier}` at the start of `text`, and what follows it.
fn placeholder(text: &str) -> Option<(Name, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    Some((name.parse().ok()?, after))
}

/// `{{identifier}}` at the start of `text`, and what follows it.
fn escaped(text: &str) -> Option<(Name, &str)> {
    let (name, after) = placeholder(text.strip_prefix('{')?)?;
    Some((name, after.strip_prefix('}')?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(text: &str) -> Result<String, Name> {
        Template::parse(text).expand(|name| (name.as_str() == "raw").then_some("inputs/raw"))
    }

    #[test]
    fn only_identifiers_in_single_braces_are_special() {
        for (text, expected) in [
            ("awk '{ print $1 }' {raw}", "awk '{ print $1 }' inputs/raw"),
            ("{{raw}}", "{raw}"),
            ("{{{raw}}}", "{{raw}}"),
            ("{raw}{raw}", "inputs/rawinputs/raw"),
            ("{", "{"),
            ("{}", "{}"),
            ("{1}", "{1}"),
            ("${HOME:-x}", "${HOME:-x}"),
            ("{ raw }", "{ raw }"),
            ("a}b{raw", "a}b{raw"),
            ("{{raw}", "{inputs/raw"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(expanded("x {row}").unwrap_err().as_str(), "row");
    }

    #[test]
    fn places_know_where_they_stand() {
        let template = Template::parse("ä {raw}");
        assert_eq!(template.pieces()[1], Piece::Place { name: "raw".parse().unwrap(), offset: 3 });
    }

    proptest! {
        #[test]
        fn text_without_braces_stays(text in "[^{]*") {
            prop_assert_eq!(expanded(&text), Ok(text));
        }

        #[test]
        fn escaped_text_stands_for_itself(text in "[{}a-c.]*|.*") {
            prop_assert_eq!(expanded(&Template::escape(&text)), Ok(text));
        }

        #[test]
        fn any_text_is_a_template(text: String) {
            Template::parse(&text);
        }
    }
}
