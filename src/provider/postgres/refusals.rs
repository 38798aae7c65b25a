//! Finds the entries of a batch that a table cannot store.

use std::sync::Arc;

use super::{changes::Changes, numbers, table::Table, values::ValueType};
use crate::{
    codec::json::{
        self,
        tokens::{tokens, unescaped},
    },
    error::{Error, ErrorKind, Result},
    record::{Encoding, Payload},
};

/// The maximum length in bytes of key and value together: a message to the server has at
/// most a gigabyte, and its other parts need some room too.
const MAX_ENTRY: usize = (1 << 30) - (1 << 20);

/// # Errors
///
/// `Refused` for entries that exceed a message; the server would close the connection.
pub(super) fn check_sizes(table: &Table, changes: &Changes<'_>) -> Result<()> {
    let puts = changes.puts.iter();
    let long = puts.filter(|put| put.sent_len(table.values) > MAX_ENTRY);
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
/// `Refused` for JSON that is not UTF-8, in a column of bytes; the server checks the other
/// columns.
pub(super) fn check_texts(table: &Table, changes: &Changes<'_>) -> Result<()> {
    if table.values != ValueType::Bytea {
        return Ok(());
    }
    let keys = keys_to_blame(table.values, changes);
    if keys.is_empty() {
        return Ok(());
    }
    let message = "a value is JSON that is not UTF-8, which is not stored; write it as bytes";
    let error = Error::new(ErrorKind::Refused, message);
    Err(error.on_map(&table.map).on_keys(keys))
}

/// # Errors
///
/// `Refused` for keys with a NUL in an adopted table: keys are not escaped there, and no
/// text column of Postgres can store a NUL.
pub(super) fn check_keys(table: &Table, changes: &Changes<'_>) -> Result<()> {
    if table.adopted.is_none() {
        return Ok(());
    }
    let keys = changes.puts.iter().map(|put| put.of);
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

/// The keys of the values that a column of this type rejects, as far as the values show
/// it. Called only after the server refused a change.
pub(super) fn keys_to_blame(values: ValueType, changes: &Changes<'_>) -> Vec<Arc<str>> {
    let puts = changes.puts.iter();
    let bad = puts.filter(|put| !is_taken(values, put.payload));
    bad.map(|put| put.of.clone()).collect()
}

fn is_taken(values: ValueType, payload: &Payload) -> bool {
    if payload.encoding == Encoding::Bytes {
        return true;
    }
    let bytes = &*payload.bytes;
    match values {
        ValueType::Bytea => std::str::from_utf8(bytes).is_ok(),
        // Postgres cannot store a NUL in text.
        ValueType::Text => std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0),
        ValueType::Json => json::text(bytes).is_ok(),
        ValueType::Jsonb => {
            json::text(bytes).is_ok_and(|text| strings_are_taken(text) && !numbers::overflow(text))
        }
    }
}

/// Whether `jsonb` accepts all strings of the JSON. It rejects an escaped NUL and an escaped
/// half of a surrogate pair.
fn strings_are_taken(text: &str) -> bool {
    let strings = tokens(text).filter(|token| token.starts_with('"'));
    { strings }.all(|string| unescaped(string).is_some_and(|text| !text.contains('\0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_with_a_nul_or_half_a_surrogate_pair_are_not_taken() {
        for (text, is_taken) in [
            (r#""a\u0000b""#, false),
            (r#""\\\u0000""#, false),
            (r#""\\u0000""#, true),
            (r#""\u0001\u00001""#, false),
            (r#""\"\\\\u0000\\""#, true),
            (r#"{"\u0000": 1}"#, false),
            (r#""\ud83d\ude00""#, true),
            (r#""\ud83d""#, false),
            ("7", true),
        ] {
            assert_eq!(strings_are_taken(text), is_taken, "{text}");
        }
    }
}
