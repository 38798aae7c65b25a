//! The tokens of JSON text: the one scanner that all others stand on.

use std::borrow::Cow;

/// The tokens of a valid JSON text, as they are written, without the white space
/// between them. A token's first byte tells what it is.
///
/// Text that is not valid is split in some way; it neither fails nor hangs.
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
        // A token ends behind or before an ASCII character, or with the text: so
        // it never ends within a character.
        let (token, rest) = rest.split_at(length(rest));
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// How long the first token of this text is.
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

/// How long a string is after its first quote, the last one included.
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

/// The characters of a string token; `None` if they are no Unicode text, because
/// half of a surrogate pair is among them.
pub(crate) fn unescaped(string: &str) -> Option<Cow<'_, str>> {
    let plain = string.strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        return serde_json::from_str(string).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(plain))
}
