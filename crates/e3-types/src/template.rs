//! `Template`: one word of a command, with the places where staged paths go.

use crate::name::is_identifier;

/// A text in which `{identifier}` stands for a path, and `{{identifier}}` for the literal `{identifier}`.
///
/// Every other brace is an ordinary character, so programs for awk or jq can stand in a command as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template<'a>(&'a str);

/// A stretch of a template.
enum Part<'a> {
    /// Text that stays as it is.
    Text(&'a str),
    /// `{{name}}`.
    Literal(&'a str),
    /// `{name}`.
    Place(&'a str),
}

/// The parts of a text, in order.
struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let text = self.0;
        let (part, rest) = match text.find('{') {
            _ if text.is_empty() => return None,
            None => (Part::Text(text), ""),
            Some(0) => {
                let literal = escaped(text).map(|(name, rest)| (Part::Literal(name), rest));
                let part =
                    literal.or_else(|| placeholder(text).map(|(name, rest)| (Part::Place(name), rest)));
                part.unwrap_or((Part::Text("{"), &text[1..]))
            }
            Some(brace) => (Part::Text(&text[..brace]), &text[brace..]),
        };
        self.0 = rest;
        Some(part)
    }
}

impl<'a> Template<'a> {
    /// Reads a template. Every text is one.
    pub fn of(text: &'a str) -> Self {
        Self(text)
    }

    /// What the places ask for, in order.
    pub fn places(self) -> impl Iterator<Item = &'a str> {
        Parts(self.0).filter_map(|part| if let Part::Place(name) = part { Some(name) } else { None })
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
    pub fn expand<'p>(self, path: impl Fn(&str) -> Option<&'p str>) -> Result<String, &'a str> {
        let mut out = String::with_capacity(self.0.len() + USUAL_GROWTH);
        for part in Parts(self.0) {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Literal(name) => out.extend(["{", name, "}"]),
                Part::Place(name) => out.push_str(path(name).ok_or(name)?),
            }
        }
        Ok(out)
    }
}

/// By how much a path is longer than its place, most of the time.
const USUAL_GROWTH: usize = 8;

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
fn placeholder(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('{')?.split_once('}').filter(|(name, _)| is_identifier(name))
}

/// `{{identifier}}` at the start of `text`, and what follows it.
fn escaped(text: &str) -> Option<(&str, &str)> {
    let (name, after) = placeholder(text.strip_prefix('{')?)?;
    Some((name, after.strip_prefix('}')?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(text: &str) -> Result<String, &str> {
        Template::of(text).expand(|name| (name == "raw").then_some("inputs/raw"))
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
        assert_eq!(expanded("x {row}").unwrap_err(), "row");
    }

    #[test]
    fn places_are_told_in_order() {
        let places: Vec<_> = Template::of("ä {raw}{{no}} {b}{1}{raw}{{c}").places().collect();
        assert_eq!(places, ["raw", "b", "raw", "c"]);
    }

    proptest! {
        #[test]
        fn text_without_braces_stays(text in "[^{]*") {
            prop_assert_eq!(expanded(&text), Ok(text.clone()));
        }

        #[test]
        fn escaped_text_stands_for_itself(text in "[{}a-c.]*|.*") {
            let escaped = Template::escape(&text);
            prop_assert_eq!(expanded(&escaped), Ok(text));
        }

        #[test]
        fn any_text_is_a_template(text in "[{}a-c1]*|.*") {
            let names: Vec<&str> = Template::of(&text).places().collect();
            prop_assert!(names.iter().all(|name| name.parse::<crate::Name>().is_ok()));
            // Each place is filled, and nothing else is another.
            prop_assert_eq!(Template::of(&text).expand(|_| None).err(), names.first().copied());
            let filled = Template::of(&text).expand(|_| Some("\u{1}")).unwrap();
            let before = text.matches('\u{1}').count();
            prop_assert_eq!(filled.matches('\u{1}').count() - before, names.len());
        }
    }
}
