//! The canonical bytes of what `serde` can write, made in one go: no tree of the value is built, which would take ten times the
//! memory of the bytes.
//!
//! `serde_json` drives a formatter, which writes into a buffer of its own. Members of an object are written as they come, and put in
//! order at its end if they were in none.

use std::{
    cmp::Ordering,
    io::{self, Write as _},
    ops::Range,
};

use serde::Serialize;
use serde_json::{
    Serializer,
    ser::{CharEscape, Formatter},
};

use crate::json::{JsonError, exact, write_char, write_number};

/// The bytes of `value` in the form of RFC 8785.
pub fn to_canonical(value: &impl Serialize) -> Result<Vec<u8>, JsonError> {
    let mut canonical = Canonical::default();
    value.serialize(&mut Serializer::with_formatter(io::sink(), &mut canonical))?;
    Ok(canonical.out)
}

#[derive(Default)]
struct Canonical {
    out: Vec<u8>,
    open: Vec<Object>,
}

/// An object that has not ended.
#[derive(Default)]
struct Object {
    /// Where each member is: its key with the quotation marks, and all of it.
    members: Vec<(Range<usize>, usize)>,
    is_out_of_order: bool,
}

impl Canonical {
    fn integer(&mut self, number: i128) -> io::Result<()> {
        // Most are small, and this is how they are written.
        if number.unsigned_abs() <= 1 << 53 {
            return write!(self.out, "{number}");
        }
        self.number(exact(number).map_err(|message| refused(&message))?)
    }

    fn number(&mut self, number: f64) -> io::Result<()> {
        let mut text = String::new();
        write_number(number, &mut text);
        self.out.write_all(text.as_bytes())
    }

    /// Puts the members of an object that has ended in order.
    fn sort(&mut self, mut members: Vec<(Range<usize>, usize)>) -> io::Result<()> {
        let Some((first, _)) = members.first() else { return Ok(()) };
        let start = first.start;
        let written = self.out.split_off(start);
        let piece = |range: Range<usize>| &written[range.start - start..range.end - start];
        let order =
            |one: &Range<usize>, other: &Range<usize>| compare(piece(one.clone()), piece(other.clone()));
        members.sort_by(|(one, _), (other, _)| order(one, other));
        if let Some(pair) = members.windows(2).find(|pair| order(&pair[0].0, &pair[1].0) == Ordering::Equal) {
            let key = String::from_utf8_lossy(piece(pair[0].0.clone()));
            return Err(refused(&format!("the key {key} appears twice in one object")));
        }
        for (position, (key, end)) in members.into_iter().enumerate() {
            if position > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(piece(key.start..end));
        }
        Ok(())
    }
}

/// The order of two keys as they are written: by UTF-16 code units (RFC 8785, 3.2.3).
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let is_plain = |key: &[u8]| key.iter().all(|byte| byte.is_ascii() && *byte != b'\\');
    if is_plain(one) && is_plain(other) {
        // Without the quotation marks, which sort before most of what may go on a key.
        return one[1..one.len() - 1].cmp(&other[1..other.len() - 1]);
    }
    let read = |key| serde_json::from_slice::<String>(key).expect("it was written as a string");
    read(one).encode_utf16().cmp(read(other).encode_utf16())
}

fn refused(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

/// The methods for integers, which are all the same.
macro_rules! integers {
    ($($method:ident: $integer:ty),*) => {$(
        fn $method<W: ?Sized + io::Write>(&mut self, _: &mut W, value: $integer) -> io::Result<()> {
            self.integer(value.into())
        }
    )*};
}

impl Formatter for &mut Canonical {
    fn write_null<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.out.write_all(b"null")
    }

    fn write_bool<W: ?Sized + io::Write>(&mut self, _: &mut W, value: bool) -> io::Result<()> {
        self.out.write_all(if value { b"true" } else { b"false" })
    }

    integers! {
        write_i8: i8, write_i16: i16, write_i32: i32, write_i64: i64, write_i128: i128,
        write_u8: u8, write_u16: u16, write_u32: u32, write_u64: u64
    }

    fn write_u128<W: ?Sized + io::Write>(&mut self, _: &mut W, value: u128) -> io::Result<()> {
        let number = i128::try_from(value).map_err(|_| refused("an integer beyond 127 bits"))?;
        self.integer(number)
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, _: &mut W, value: f32) -> io::Result<()> {
        // The shortest decimal that is this number, as a number of its own: what a reader of JSON makes of it.
        self.number(value.to_string().parse().map_err(|_| refused("a number that is not finite"))?)
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, _: &mut W, value: f64) -> io::Result<()> {
        self.number(value)
    }

    fn write_number_str<W: ?Sized + io::Write>(&mut self, _: &mut W, value: &str) -> io::Result<()> {
        self.number(value.parse().map_err(|_| refused("a number that cannot be read"))?)
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.out.write_all(b"\"")
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.out.write_all(b"\"")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, _: &mut W, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, _: &mut W, escape: CharEscape) -> io::Result<()> {
        let char = match escape {
            CharEscape::Quote => '"',
            CharEscape::ReverseSolidus => '\\',
            // It needs none.
            CharEscape::Solidus => return self.out.write_all(b"/"),
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            CharEscape::AsciiControl(byte) => char::from(byte),
        };
        let mut text = String::new();
        write_char(char, &mut text);
        self.out.write_all(text.as_bytes())
    }

    fn write_byte_array<W: ?Sized + io::Write>(&mut self, _: &mut W, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(b"[")?;
        for (position, byte) in bytes.iter().enumerate() {
            if position > 0 {
                self.out.write_all(b",")?;
            }
            self.integer((*byte).into())?;
        }
        self.out.write_all(b"]")
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.out.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.out.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { self.out.write_all(b",") }
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.open.push(Object::default());
        self.out.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        let object = self.open.pop().unwrap_or_default();
        if object.is_out_of_order {
            self.sort(object.members)?;
        }
        self.out.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W, first: bool) -> io::Result<()> {
        if !first {
            self.out.write_all(b",")?;
        }
        let start = self.out.len();
        self.open
            .last_mut()
            .ok_or_else(|| refused("a key outside of an object"))?
            .members
            .push((start..start, 0));
        Ok(())
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        let end = self.out.len();
        let Some(Object { members, is_out_of_order }) = self.open.last_mut() else { return Ok(()) };
        if let Some((key, _)) = members.last_mut() {
            key.end = end;
        }
        if let [.., (before, _), (key, _)] = &members[..] {
            *is_out_of_order |= compare(&self.out[before.clone()], &self.out[key.clone()]) != Ordering::Less;
        }
        Ok(())
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.out.write_all(b":")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        let end = self.out.len();
        if let Some((_, member)) = self.open.last_mut().and_then(|object| object.members.last_mut()) {
            *member = end;
        }
        Ok(())
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, _: &mut W, _: &str) -> io::Result<()> {
        Err(refused("JSON text that is not a value"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::Json;

    /// By way of the tree.
    fn by_tree(value: &impl Serialize) -> Vec<u8> {
        Json::parse(&serde_json::to_vec(value).unwrap()).unwrap().to_canonical()
    }

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Shape {
        Unit,
        Newtype(u8),
        Tuple(i8, i16),
        Struct { z: Option<bool>, a: () },
    }

    #[derive(Serialize)]
    struct Everything<'a> {
        shapes: Vec<Shape>,
        numbers: (f32, f64, i64, u64, i128, u128, i32, u16, u32),
        text: &'a str,
        byte: char,
        by_number: BTreeMap<i32, u8>,
        by_text: HashMap<&'a str, [u8; 2]>,
        nothing: BTreeMap<String, u8>,
    }

    #[test]
    fn everything_that_serde_has_is_written_as_its_tree_would_be() {
        let text = "\u{0}\u{1}\u{8}\t\n\u{c}\r\u{1f}\u{7f}\"\\/\u{fb33}\u{1f600}";
        let shapes = vec![
            Shape::Unit,
            Shape::Newtype(1),
            Shape::Tuple(-1, 2),
            Shape::Struct { z: Some(true), a: () },
            Shape::Struct { z: None, a: () },
        ];
        let everything = Everything {
            shapes,
            numbers: (0.1, -0.0, -9_007_199_254_740_992, 1 << 53, 7, 1 << 70, -5, 6, 7),
            text,
            byte: '"',
            by_number: (-12..12).map(|number| (number, 0)).collect(),
            by_text: [
                ("\u{fb33}", [1, 2]),
                ("\u{1f600}", [3, 4]),
                ("b\\", [5, 6]),
                ("b", [7, 8]),
                ("", [9, 0]),
            ]
            .into(),
            nothing: BTreeMap::new(),
        };
        let written = to_canonical(&everything).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), String::from_utf8(by_tree(&everything)).unwrap());
    }

    struct Twice;

    impl Serialize for Twice {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([("b", 1), ("a", 2), ("b", 3)])
        }
    }

    #[test]
    fn what_would_lose_something_is_refused() {
        let refused = |message: String, expected: &str| assert!(message.contains(expected), "{message}");
        refused(to_canonical(&9_007_199_254_740_993_u64).unwrap_err().to_string(), "write it as a string");
        refused(to_canonical(&u128::MAX).unwrap_err().to_string(), "127 bits");
        refused(to_canonical(&Twice).unwrap_err().to_string(), "the key \"b\" appears twice");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            (prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            let key = prop_oneof!["[a-c]{0,2}", any::<String>()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..8)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_the_tree_writes(value in any_value()) {
            prop_assert_eq!(to_canonical(&value).unwrap(), by_tree(&value));
        }
    }
}
