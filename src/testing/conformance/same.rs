//! Whether two records are the same, as far as stores promise it: JSON may be
//! written differently, times are kept to the millisecond.

use std::time::{Duration, SystemTime};

use serde_json::{Number, Value};

use crate::record::{Payload, Record};

/// How `found` differs from `expected`, if it does.
pub(super) fn difference(expected: &Record, found: &Record) -> Option<&'static str> {
    if expected.key != found.key {
        Some("the key")
    } else if !same_value(expected.value.as_ref(), found.value.as_ref()) {
        Some("the value")
    } else if expected.revision != found.revision {
        Some("the revision")
    } else if !same_time(expected.expires_at, found.expires_at) {
        Some("expires_at")
    // A store need not know when a value was written, but must not make it up.
    } else if found.updated_at.is_some() && !same_time(expected.updated_at, found.updated_at) {
        Some("updated_at")
    } else {
        None
    }
}

/// Whether both are the same, or both nothing.
pub(super) fn same_found(expected: Option<&Record>, found: Option<&Record>) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => difference(expected, found).is_none(),
        (None, None) => true,
        _ => false,
    }
}

fn same_time(expected: Option<SystemTime>, found: Option<SystemTime>) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => {
            let later = found.duration_since(expected);
            later.unwrap_or_else(|earlier| earlier.duration()) < Duration::from_millis(1)
        }
        (None, None) => true,
        _ => false,
    }
}

fn same_value(expected: Option<&Payload>, found: Option<&Payload>) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => {
            expected.encoding == found.encoding
                && expected.schema == found.schema
                && (expected.bytes == found.bytes || same_text(&expected.bytes, &found.bytes))
        }
        (None, None) => true,
        _ => false,
    }
}

fn same_text(expected: &[u8], found: &[u8]) -> bool {
    let expected = serde_json::from_slice::<Value>(expected);
    let found = serde_json::from_slice::<Value>(found);
    matches!((expected, found), (Ok(expected), Ok(found)) if same_json(&expected, &found))
}

fn same_json(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => a == b || same_number(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let found_in_b = |(name, a)| b.get(name).is_some_and(|b| same_json(a, b));
            a.len() == b.len() && a.iter().all(found_in_b)
        }
        (a, b) => a == b,
    }
}

/// A store may write `100` for `1e2`; integers must not lose a digit.
fn same_number(a: &Number, b: &Number) -> bool {
    (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

#[cfg(test)]
mod tests {
    use super::same_text;

    #[test]
    fn the_same_json_may_be_written_differently() {
        let same = |a: &str, b: &str| same_text(a.as_bytes(), b.as_bytes());
        assert!(same(r#"{"a":1,"b":[1e2]}"#, r#"{ "b": [100], "a": 1.0 }"#));
        assert!(same(r#""\u00e9""#, "\"é\""));
        assert!(!same("18446744073709551615", "18446744073709551614"));
        assert!(!same(r#"{"a":1}"#, r#"{"a":1,"b":2}"#));
        assert!(!same("null", "nul"));
    }
}
