//! Errors that point at the place in the file.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use e3_types::ErrorClass;

/// What is wrong with a pipeline, and where.
#[derive(Debug, thiserror::Error)]
pub struct PipelineError {
    /// Where in the file, if it is about a place there.
    pub location: Option<Location>,
    /// What is wrong, what was expected.
    pub message: String,
    /// Who has to act.
    pub class: ErrorClass,
}

/// A place in a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant.
    width: usize,
    /// The line.
    text: String,
}

/// A range of bytes in a pipeline file. Its line is looked up when somebody wants to know.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    source: SourceText,
    pub(crate) span: Range<usize>,
}

impl Place {
    pub(crate) fn location(&self) -> Location {
        self.source.locate(&self.span)
    }
}

/// The text of a pipeline file. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SourceText {
    file: Arc<PathBuf>,
    text: Arc<str>,
}

impl SourceText {
    pub(crate) fn new(file: PathBuf, text: impl Into<Arc<str>>) -> Self {
        Self { file: Arc::new(file), text: text.into() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place { source: self.clone(), span }
    }

    /// The place of a range of bytes.
    pub(crate) fn locate(&self, span: &Range<usize>) -> Location {
        let floor =
            |at: usize| (0..=at.min(self.text.len())).rev().find(|&at| self.text.is_char_boundary(at));
        let start = floor(span.start).unwrap_or(0);
        let end = floor(span.end).unwrap_or(0).max(start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        Location {
            file: (*self.file).clone(),
            line: before.matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            width: self.text[start..end.min(line_end).max(start)].chars().count().max(1),
            text: self.text[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }

    pub(crate) fn error(&self, span: &Range<usize>, message: impl Into<String>) -> PipelineError {
        PipelineError::at(self.locate(span), message)
    }
}

impl PipelineError {
    /// An error of the author at a place in the file.
    pub(crate) fn at(location: Location, message: impl Into<String>) -> Self {
        Self { location: Some(location), message: message.into(), class: ErrorClass::User }
    }

    /// An error that is about no place in the file.
    pub(crate) fn general(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { location: None, message: message.into(), class }
    }
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.location else { return f.write_str(&self.message) };
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        // A tab stays a tab below, so that the caret stands where the eye expects it.
        let indent: String = place
            .text
            .chars()
            .take(place.column - 1)
            .map(|char| if char == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, "{}:{}:{}: {}", place.file.display(), place.line, place.column, self.message)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", place.text)?;
        write!(f, "{margin} | {indent}{}", "^".repeat(place.width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_file_line_column_and_a_caret() {
        let source = SourceText::new("e3.toml".into(), "[package]\nname = \"ä\"  # x\n");
        let span = source.text().find("\"ä\"").unwrap();
        let error = source.error(&(span..span + 4), "no");
        assert_eq!(error.to_string(), "e3.toml:2:8: no\n  |\n2 | name = \"ä\"  # x\n  |        ^^^");
    }

    #[test]
    fn a_place_beyond_the_end_is_the_end() {
        let source = SourceText::new("e3.toml".into(), "a = 1");
        let place = source.locate(&(99..200));
        assert_eq!((place.line, place.column), (1, 6));
    }
}
