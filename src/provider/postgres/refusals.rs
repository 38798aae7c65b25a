//! Which entries a table does not take.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::{numbers, sorted::Sorted, table::Table, values::ValueType};
use crate::error::{Error, ErrorKind, Result};

/// The longest key and value of an entry, together, in bytes: a message to the
/// server ends at a gigabyte, and the rest of it needs some room as well.
const MAX_ENTRY: usize = (1 << 30) - (1 << 20);

/// # Errors
///
/// `Refused` for entries that no message can hold: the server would hang up.
pub(super) fn check_sizes(table: &Table, sorted: &Sorted<'_>) -> Result<()> {
    let puts = sorted.puts.iter();
    let long = puts.filter(|put| put.of.len() + put.payload.bytes.len() > MAX_ENTRY);
    let keys: Vec<_> = long.map(|put| put.of.clone()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let message = "Postgres takes no entry of a gigabyte; split it into smaller ones";
    let error = Error::new(ErrorKind::Refused, message);
    Err(error.on_map(&table.map).on_keys(keys))
}

/// # Errors
///
/// `Refused` for keys with a NUL in a table of another program: there they
/// stand as they are, and no text column of Postgres takes one.
pub(super) fn check_keys(table: &Table, sorted: &Sorted<'_>) -> Result<()> {
    if table.adopted.is_none() {
        return Ok(());
    }
    let keys = sorted.puts.iter().map(|put| put.of);
    let keys: Vec<_> = keys.filter(|key| key.contains('\0')).cloned().collect();
    if keys.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the table {} does not take a key with a NUL; use a table of the map's own",
        table.name
    );
    let error = Error::new(ErrorKind::Refused, message);
    Err(error.on_map(&table.map).on_keys(keys))
}

/// The keys of the values that a column of that type does not take, as far as
/// the values tell. Looked for only once something was refused.
pub(super) fn keys_to_blame(values: ValueType, sorted: &Sorted<'_>) -> Vec<Arc<str>> {
    let puts = sorted.puts.iter();
    let bad = puts.filter(|put| !is_taken(values, &put.payload.bytes));
    bad.map(|put| put.of.clone()).collect()
}

fn is_taken(values: ValueType, text: &[u8]) -> bool {
    let is_text = std::str::from_utf8(text).is_ok() && !text.contains(&0);
    is_text
        && match values {
            ValueType::Text => true,
            ValueType::Json => is_json(text),
            ValueType::Jsonb => is_json(text) && !holds_nul(text) && !numbers::overflow(text),
        }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Whether a string in that JSON has a `\u0000`: after an even number of
/// backslashes, for each two of them are one of the string.
fn holds_nul(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = &rest[at..];
        if escape.starts_with(b"\\u0000") {
            return true;
        }
        rest = escape.get(2..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_found_where_it_is_one() {
        for (text, holds) in [
            (r#""a\u0000b""#, true),
            (r#""\\\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""\u0001\u00001""#, true),
            (r#""\"\\\\u0000\\""#, false),
            ("7", false),
        ] {
            assert_eq!(holds_nul(text.as_bytes()), holds, "{text}");
        }
    }
}
