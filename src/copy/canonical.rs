//! A digest of a JSON text that is the same for every way to write the value:
//! stores may sort the fields of an object, drop white space, and write 100 for
//! 1e2.

use std::{borrow::Cow, collections::BTreeMap, mem::take};

use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

type Digest = u128;

/// What is being walked through: a stack of these, and not of calls, since a
/// text may be nested as deeply as it is long.
enum Frame {
    Array(Vec<u8>),
    Object {
        /// Of a field that occurs twice the last one counts, as it does for
        /// those who decode it.
        fields: BTreeMap<Vec<u8>, Digest>,
        name: Option<Vec<u8>>,
    },
}

/// The digest of the value that these bytes are the text of. Bytes that are no
/// JSON have a digest of their own.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(text) => digest_of(text.get()),
        Err(_) => tagged(b'?', bytes),
    }
}

/// Of valid JSON text. Numbers are compared as decimals of any length, not as
/// floats.
fn digest_of(text: &str) -> Digest {
    let mut walk = Walk::default();
    let mut rest = text;
    while !rest.is_empty() {
        let (token, after) = rest.split_at(token_length(rest));
        rest = after;
        if let Some(whole) = walk.take(token).and_then(|value| walk.add(value)) {
            return whole;
        }
    }
    // Valid text has a value, which was returned.
    tagged(b'?', text.as_bytes())
}

#[derive(Default)]
struct Walk(Vec<Frame>);

impl Walk {
    /// The value that this token ends, if it ends one.
    fn take(&mut self, token: &str) -> Option<Digest> {
        match token.bytes().next()? {
            b'{' => self.open(Frame::object()),
            b'[' => self.open(Frame::Array(Vec::new())),
            b'}' | b']' => self.0.pop().map(Frame::digest),
            b'"' => self.string(unescaped(token)),
            b'-' | b'0'..=b'9' => Some(tagged(b'0', decimal(token).as_bytes())),
            b't' | b'f' | b'n' => Some(tagged(b'l', token.as_bytes())),
            _ => None,
        }
    }

    fn open(&mut self, frame: Frame) -> Option<Digest> {
        self.0.push(frame);
        None
    }

    /// A string is the name of a field, or a value.
    fn string(&mut self, text: Vec<u8>) -> Option<Digest> {
        match self.0.last_mut() {
            Some(Frame::Object { name, .. }) if name.is_none() => {
                *name = Some(text);
                None
            }
            _ => Some(tagged(b'"', &text)),
        }
    }

    /// Puts a value where it belongs; hands it out if it belongs nowhere.
    fn add(&mut self, value: Digest) -> Option<Digest> {
        match self.0.last_mut() {
            Some(Frame::Array(items)) => items.extend(value.to_le_bytes()),
            Some(Frame::Object { fields, name }) => {
                fields.insert(take(name).unwrap_or_default(), value);
            }
            None => return Some(value),
        }
        None
    }
}

impl Frame {
    fn object() -> Self {
        Self::Object {
            fields: BTreeMap::new(),
            name: None,
        }
    }

    fn digest(self) -> Digest {
        match self {
            Self::Array(items) => tagged(b'[', &items),
            Self::Object { fields, .. } => {
                let mut bytes = Vec::new();
                for (name, value) in fields {
                    bytes.extend((name.len() as u64).to_le_bytes());
                    bytes.extend(name);
                    bytes.extend(value.to_le_bytes());
                }
                tagged(b'{', &bytes)
            }
        }
    }
}

/// Values of different kinds never have the same digest for being alike.
fn tagged(kind: u8, bytes: &[u8]) -> Digest {
    let mut tagged = Vec::with_capacity(bytes.len() + 1);
    tagged.push(kind);
    tagged.extend(bytes);
    xxh3_128(&tagged)
}

fn token_length(text: &str) -> usize {
    match text.bytes().next() {
        Some(b'"') => string_length(text),
        Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => scalar_length(text),
        _ => 1,
    }
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

fn scalar_length(text: &str) -> usize {
    let ends = |c: char| matches!(c, ',' | ':' | '}' | ']' | ' ' | '\t' | '\n' | '\r');
    text.find(ends).unwrap_or(text.len())
}

/// A string that is no text (half of a surrogate pair) stays as it is written.
fn unescaped(token: &str) -> Vec<u8> {
    serde_json::from_str::<Cow<'_, str>>(token)
        .map_or_else(|_| token.into(), |text| text.into_owned().into())
}

/// The number as digits without zeros at either end, and a power of ten.
fn decimal(token: &str) -> Cow<'_, str> {
    let (sign, unsigned) = match token.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", token),
    };
    let (mantissa, power) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return "0".into();
    }
    let Ok(power) = power.parse::<i64>() else {
        // Beyond what any store could write in another way.
        return token.into();
    };
    let shift = (digits.len() - significant.len()) as i128 - fraction.len() as i128;
    format!("{sign}{significant}e{}", i128::from(power) + shift).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        digest(a.as_bytes()) == digest(b.as_bytes())
    }

    #[test]
    fn the_same_value_has_the_same_digest_however_it_is_written() {
        for (a, b) in [
            ("1", "1.0"),
            ("1e2", "100"),
            ("-0", "0.000"),
            ("0e99", "0"),
            ("12.50E-1", "1.25"),
            ("1E+2", "1.00e2"),
            (
                "123456789012345678901234567890",
                "1234567890123456789012345678.90e2",
            ),
            (r#"{"b":1,"a":[1, 2]}"#, "{ \"a\" : [1,2.0],\n\"b\":1 }"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\u00e9\/""#, "\"é/\""),
            (r#"{"\u0061":null}"#, r#"{"a":null}"#),
            (r#""\ud83d\ude00""#, "\"😀\""),
            ("  [ ] ", "[]"),
        ] {
            assert!(same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn different_values_have_different_digests() {
        let values = [
            "1",
            "-1",
            "10",
            "1.1",
            "0",
            "\"1\"",
            "null",
            "\"null\"",
            "true",
            "false",
            "[]",
            "{}",
            "\"\"",
            "[[]]",
            "[{}]",
            "[1]",
            "[1,1]",
            "[11]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"":{"a":1}}"#,
            r#"{"a":{"":1}}"#,
            r#"["a",1]"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            "18446744073709551615",
            "18446744073709551616",
            "0.1000000000000000055",
            "0.1",
            "1e99999999999999999999999",
            "1e99999999999999999999998",
            r#""\ud800""#,
            r#""\ud801""#,
            "{",
            "",
            "nul",
            r#""a\"b""#,
            r#"["a","b"]"#,
            r#"["a\",\"b"]"#,
        ];
        let digests: std::collections::HashSet<_> =
            values.iter().map(|text| digest(text.as_bytes())).collect();
        assert_eq!(digests.len(), values.len());
    }

    #[test]
    fn a_text_may_be_nested_as_deeply_as_it_is_long() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(same(&deep(200_000), &format!(" {}", deep(200_000))));
        assert!(!same(&deep(200_000), &deep(199_999)));
    }
}
