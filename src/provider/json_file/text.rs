//! Values as JSON text: whether it is any, on one line, and its fingerprint.

use std::borrow::Cow;

use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

/// What some editors put in front of a text to say that it is UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// The text of a file that a person may have written.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// The text of the one JSON value that these bytes hold, without what
/// surrounds it.
pub(super) fn checked(bytes: &[u8]) -> serde_json::Result<&str> {
    serde_json::from_slice::<&RawValue>(bytes).map(RawValue::get)
}

/// The same value on one line. Text that is on one line already stays as it
/// is, byte for byte.
pub(super) fn on_one_line(text: &str) -> Cow<'_, str> {
    // In valid JSON a line break is never part of a string.
    if text.contains(['\n', '\r']) {
        Cow::Owned(without_space(text))
    } else {
        Cow::Borrowed(text)
    }
}

/// A number that tells values apart, whatever white space they are laid out
/// with, so that an editor that formats a file does not change its entries.
pub(super) fn fingerprint(text: &str) -> u64 {
    if text.contains([' ', '\t', '\n', '\r']) {
        xxh3_64(without_space(text).as_bytes())
    } else {
        xxh3_64(text.as_bytes())
    }
}

fn without_space(text: &str) -> String {
    let mut in_string = false;
    let mut escaped = false;
    let kept = text.chars().filter(|&c| {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            return true;
        }
        in_string = c == '"';
        !matches!(c, ' ' | '\t' | '\n' | '\r')
    });
    kept.collect()
}
