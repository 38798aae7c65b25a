//! The digest of a JSON text: all texts of one value have the same digest.

#[cfg(feature = "json")]
use xxhash_rust::xxh3::xxh3_64;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{
    number::Number,
    text,
    tokens::{tokens, unescaped},
};

/// Seeds by the kind of a value, so that values of different kinds that are
/// written alike have different digests.
const STRING: u64 = 1;
const NUMBER: u64 = 2;
const LITERAL: u64 = 3;
const ARRAY: u64 = 4;
const OBJECT: u64 = 5;
/// A string with half of a surrogate pair, which is not Unicode text.
const NO_TEXT: u64 = 6;
const NO_JSON: u64 = 7;

/// The digest of the value if these bytes are JSON text, else of the bytes.
pub(crate) fn digest(bytes: &[u8]) -> u128 {
    match text(bytes) {
        Ok(text) => digest_of_text(text),
        Err(_) => xxh3_128_with_seed(bytes, NO_JSON),
    }
}

/// The [`digest`] shortened to 64 bits. The text must be valid JSON.
#[cfg(feature = "json")]
pub(crate) fn fingerprint(text: &str) -> u64 {
    xxh3_64(&digest_of_text(text).to_le_bytes())
}

/// Like [`digest`], but the text must be valid JSON. It is O(n) and does not recurse: a
/// text may be nested as deeply as it is long.
fn digest_of_text(text: &str) -> u128 {
    let mut walk = Walk::default();
    for token in tokens(text) {
        if let Some(whole) = walk.take(token).and_then(|value| walk.add(value)) {
            return whole;
        }
    }
    // Not reached: valid text has a value, which was returned.
    xxh3_128_with_seed(text.as_bytes(), NO_JSON)
}

/// The state of a pass over a text.
#[derive(Default)]
struct Walk {
    /// The arrays and objects that are not closed yet, the innermost last.
    open: Vec<Open>,
    /// The members of all open arrays and objects.
    members: Vec<Member>,
    bytes: Vec<u8>,
}

struct Open {
    seed: u64,
    /// The index of its first member.
    start: usize,
    /// The digest of the name of the field whose value comes next, in an object.
    name: Option<u128>,
}

/// A field of an object, or an item of an array, which has no name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Member {
    name: u128,
    value: u128,
}

impl Walk {
    /// The digest of the value that this token ends, if it ends one.
    fn take(&mut self, token: &str) -> Option<u128> {
        match token.bytes().next()? {
            b'{' => self.enter(OBJECT),
            b'[' => self.enter(ARRAY),
            b'}' | b']' => self.leave(),
            b'"' => self.string(token),
            b'-' | b'0'..=b'9' => {
                self.bytes.clear();
                Number::parse(token).put_canonical(&mut self.bytes);
                Some(xxh3_128_with_seed(&self.bytes, NUMBER))
            }
            b't' | b'f' | b'n' => Some(xxh3_128_with_seed(token.as_bytes(), LITERAL)),
            _ => None,
        }
    }

    fn enter(&mut self, seed: u64) -> Option<u128> {
        self.open.push(Open {
            seed,
            start: self.members.len(),
            name: None,
        });
        None
    }

    fn leave(&mut self) -> Option<u128> {
        let Open { seed, start, .. } = self.open.pop()?;
        if seed == OBJECT {
            // The sort is stable: the last of several fields of a name stays last.
            self.members[start..].sort_by_key(|member| member.name);
        }
        self.bytes.clear();
        let mut members = self.members[start..].iter().peekable();
        while let Some(member) = members.next() {
            let is_hidden = |next: &&Member| seed == OBJECT && next.name == member.name;
            if members.peek().is_some_and(is_hidden) {
                continue;
            }
            self.bytes.extend(member.name.to_le_bytes());
            self.bytes.extend(member.value.to_le_bytes());
        }
        self.members.truncate(start);
        Some(xxh3_128_with_seed(&self.bytes, seed))
    }

    /// A string is the name of a field, or a value.
    fn string(&mut self, token: &str) -> Option<u128> {
        let digest = match unescaped(token) {
            Some(text) => xxh3_128_with_seed(text.as_bytes(), STRING),
            None => xxh3_128_with_seed(token.as_bytes(), NO_TEXT),
        };
        match self.open.last_mut() {
            Some(open) if open.seed == OBJECT && open.name.is_none() => {
                open.name = Some(digest);
                None
            }
            _ => Some(digest),
        }
    }

    /// Adds a value to the innermost open array or object. Returns it if there is none:
    /// it is the whole value.
    fn add(&mut self, value: u128) -> Option<u128> {
        let Some(open) = self.open.last_mut() else {
            return Some(value);
        };
        let name = open.name.take().unwrap_or_default();
        self.members.push(Member { name, value });
        None
    }
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
            r#""\"\\ud800\"""#,
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
