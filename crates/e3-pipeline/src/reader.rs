//! Reading TOML values with the place of each, so that every error can point at it.

use std::ops::Range;

use e3_types::Json;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    error::{PipelineError, SourceText},
    model::At,
    similar::most_similar,
};

pub(crate) type Value<'a> = Spanned<DeValue<'a>>;

/// How many keys most tables may have, at most.
const MOST_KEYS: usize = 16;

/// A table that is read key by key; what is left at the end is an error.
pub(crate) struct TableReader<'a> {
    source: &'a SourceText,
    what: String,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

impl<'a> TableReader<'a> {
    pub(crate) fn new(
        source: &'a SourceText,
        what: impl Into<String>,
        value: &'a Value<'a>,
    ) -> Result<Self, PipelineError> {
        let what = what.into();
        match value.get_ref() {
            DeValue::Table(table) => {
                Ok(Self { source, what, table, span: value.span(), known: Vec::with_capacity(MOST_KEYS) })
            }
            other => Err(wrong_type(source, &value.span(), &what, "a table", other)),
        }
    }

    pub(crate) fn root(source: &'a SourceText, table: &'a Spanned<DeTable<'a>>) -> Self {
        let what = "the pipeline file".to_owned();
        Self {
            source,
            what,
            table: table.get_ref(),
            span: table.span(),
            known: Vec::with_capacity(MOST_KEYS),
        }
    }

    /// The value of an optional key.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'a Value<'a>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&mut self, key: &'static str) -> Result<&'a Value<'a>, PipelineError> {
        let found = self.get(key);
        found.ok_or_else(|| self.source.error(&self.span, format!("{} has no `{key}`", self.what)))
    }

    /// A key that is planned for a later version.
    pub(crate) fn not_yet(&mut self, key: &'static str) -> Result<(), PipelineError> {
        match self.table.get_key_value(key) {
            None => Ok(()),
            Some((place, _)) => Err(self
                .source
                .error(&place.span(), format!("`{key}` is not supported by this version of e3"))),
        }
    }

    /// Refuses keys that nobody has asked for.
    pub(crate) fn finish(self) -> Result<(), PipelineError> {
        let unknown = self.table.iter().find(|(key, _)| !self.known.contains(&key.get_ref().as_ref()));
        let Some((key, _)) = unknown else { return Ok(()) };
        let hint = match most_similar(key.get_ref(), self.known.iter().copied()) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("expected one of {}", quoted_list(&self.known)),
        };
        Err(self
            .source
            .error(&key.span(), format!("{} has an unknown key `{}`: {hint}", self.what, key.get_ref())))
    }

    /// All entries, for tables whose keys are names.
    pub(crate) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a Spanned<toml::de::DeString<'a>>, &'a Value<'a>)> + use<'a> {
        self.table.iter()
    }

    pub(crate) fn what(&self, key: &str) -> String {
        format!("`{key}` of {}", self.what)
    }
}

fn quoted_list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn wrong_type(
    source: &SourceText,
    span: &Range<usize>,
    what: &str,
    expected: &str,
    found: &DeValue<'_>,
) -> PipelineError {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    source.error(span, format!("{what} must be {expected}, but is {found}"))
}

pub(crate) fn string(
    source: &SourceText,
    what: &str,
    value: &Value<'_>,
) -> Result<At<String>, PipelineError> {
    match value.get_ref() {
        DeValue::String(text) if text.contains('\0') => {
            Err(source.error(&value.span(), format!("{what} contains a NUL character")))
        }
        DeValue::String(text) => Ok(At { value: text.clone().into_owned(), span: value.span() }),
        other => Err(wrong_type(source, &value.span(), what, "a string", other)),
    }
}

pub(crate) fn boolean(source: &SourceText, what: &str, value: &Value<'_>) -> Result<bool, PipelineError> {
    match value.get_ref() {
        DeValue::Boolean(value) => Ok(*value),
        other => Err(wrong_type(source, &value.span(), what, "true or false", other)),
    }
}

/// A whole number from `least` up.
pub(crate) fn count(
    source: &SourceText,
    what: &str,
    value: &Value<'_>,
    least: u32,
) -> Result<u32, PipelineError> {
    let expected = format!("a whole number from {least} to {}", u32::MAX);
    match value.get_ref() {
        DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| *number >= least)
            .ok_or_else(|| {
                source.error(&value.span(), format!("{what} must be {expected}, but is {number}"))
            }),
        other => Err(wrong_type(source, &value.span(), what, &expected, other)),
    }
}

pub(crate) fn strings(
    source: &SourceText,
    what: &str,
    value: &Value<'_>,
) -> Result<Vec<At<String>>, PipelineError> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().map(|item| string(source, what, item)).collect(),
        other => Err(wrong_type(source, &value.span(), what, "a list of strings", other)),
    }
}

/// Reads text as something that has a grammar of its own.
pub(crate) fn parsed<T: std::str::FromStr>(source: &SourceText, text: &At<String>) -> Result<T, PipelineError>
where
    T::Err: std::fmt::Display,
{
    text.value.parse().map_err(|error: T::Err| source.error(&text.span, error.to_string()))
}

/// A TOML value as the JSON value that it stands for.
pub(crate) fn json(source: &SourceText, value: &Value<'_>) -> Result<Json, PipelineError> {
    // Through JSON text, so that the rules about numbers and keys are those of every other JSON value.
    let mut text = String::new();
    write_json(source, value, &mut text)?;
    Json::parse(text.as_bytes()).map_err(|error| source.error(&value.span(), error.to_string()))
}

fn write_json(source: &SourceText, value: &Value<'_>, out: &mut String) -> Result<(), PipelineError> {
    let refuse = |message: &str| source.error(&value.span(), message);
    match value.get_ref() {
        DeValue::String(text) => out.push_str(&quoted(text)),
        DeValue::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| refuse("the number is beyond 64 bits; write it as a string"))?;
            out.push_str(&number.to_string());
        }
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().map_err(|_| refuse("the number cannot be read"))?;
            if !number.is_finite() {
                return Err(refuse(
                    "JSON has no value for a number that is not finite; write it as a string",
                ));
            }
            out.push_str(&serde_json::Value::from(number).to_string());
        }
        DeValue::Datetime(_) => {
            return Err(refuse("JSON has no value for a date or time; write it as a string"));
        }
        DeValue::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_json(source, item, out)?;
            }
            out.push(']');
        }
        DeValue::Table(table) => {
            out.push('{');
            for (position, (key, item)) in table.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(key.get_ref()));
                out.push(':');
                write_json(source, item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
