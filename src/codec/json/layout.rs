//! How JSON text is laid out: white space, quotes, and the byte order mark.

use std::borrow::Cow;

/// Some editors put it at the start of a text to mark it as UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The bytes without a leading byte order mark.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// The value on one line. A text without a line break is returned unchanged; any other
/// loses all white space between its tokens.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    // In valid JSON a line break is never part of a string.
    if text.contains(['\n', '\r']) {
        Cow::Owned(super::tokens::tokens(text).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Appends a string as JSON text.
#[cfg(feature = "json")]
pub(crate) fn put_quoted(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok(), "memory takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_several_lines_loses_its_white_space_and_another_none() {
        for (text, line) in [
            (
                "{\n \"a b\" : [ 1 ,\r\n\"\\\" \\\\\"\t] }",
                r#"{"a b":[1,"\" \\"]}"#,
            ),
            ("[ 1,  2 ]", "[ 1,  2 ]"),
            ("\n7", "7"),
            ("[\ntrue , \"é\u{2028}\"]", "[true,\"é\u{2028}\"]"),
        ] {
            assert_eq!(on_one_line(text), line);
        }
    }
}
