//! Values of bytes in JSON files, as strings of base64.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The JSON text that stands for these bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(bytes))
}

/// The bytes that a JSON text stands for; `None` if it is not a string of base64. It may
/// contain escapes, because people and tools edit the files.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text: String = serde_json::from_slice(text).ok()?;
    STANDARD.decode(text).ok()
}

/// The length of the text that stands for this many bytes; `None` on overflow.
pub(crate) fn encoded_length(bytes: usize) -> Option<usize> {
    base64::encoded_len(bytes, true)?.checked_add(2)
}
