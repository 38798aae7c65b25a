//! The tokens of JSON text: the scanner that all others build on.

use std::borrow::Cow;

/// The tokens of a valid JSON text, as they are written, without the white space
/// between them. A token's first byte determines its kind.
///
/// Text that is not valid is split in some way, without failing or hanging.
#[derive(Clone, Debug)]
pub(crate) struct Tokens<'a>(&'a str);

/// Splits a JSON text.
pub(crate) const fn tokens(text: &str) -> Tokens<'_> {
    Tokens(text)
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start_matches(is_space);
        // A token ends before or after an ASCII character, or at the end of the text,
        // so never within a character.
        let (token, rest) = rest.split_at(length(rest));
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// The length of the first token of this text.
fn length(text: &str) -> usize {
    match text.as_bytes() {
        [] => 0,
        [b'"', rest @ ..] => 1 + string_length(rest),
        [b'{' | b'}' | b'[' | b']' | b',' | b':', ..] => 1,
        bytes => {
            let ends =
                |byte: &u8| matches!(byte, b',' | b':' | b'}' | b']') || is_space((*byte).into());
            bytes.iter().position(ends).unwrap_or(bytes.len())
        }
    }
}

/// The length of a string after its first quote, including its last one.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => return at,
            b'\\' => at += 1,
            _ => {}
        }
    }
    bytes.len()
}

/// The characters of a string token; `None` if they are not Unicode text, because they
/// include half of a surrogate pair.
pub(crate) fn unescaped(string: &str) -> Option<Cow<'_, str>> {
    let plain = string.strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        return serde_json::from_str(string).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(plain))
}
