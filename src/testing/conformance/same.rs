//! Equality of records, as far as the contract requires it. A store may format JSON
//! [differently](codec::same), and keeps times to the millisecond.

use std::time::{Duration, SystemTime};

use crate::{
    batch::Skipped,
    codec,
    record::{Payload, Record},
};

/// The first difference between the records, if there is one.
pub(super) fn difference(expected: &Record, found: &Record) -> Option<&'static str> {
    if expected.key != found.key {
        Some("the key")
    } else if !same_value(expected.value.as_ref(), found.value.as_ref()) {
        Some("the value")
    } else if expected.revision != found.revision {
        Some("the revision")
    } else if !same_time(expected.expires_at, found.expires_at) {
        Some("expires_at")
        // A store may omit when a value was written, but must not return a wrong time.
    } else if found.updated_at.is_some() && !same_time(expected.updated_at, found.updated_at) {
        Some("updated_at")
    } else {
        None
    }
}

/// Whether both are equal, or both `None`.
pub(super) fn same_found(expected: Option<&Record>, found: Option<&Record>) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => difference(expected, found).is_none(),
        (None, None) => true,
        _ => false,
    }
}

/// Whether both contain the same changes in the same order.
pub(super) fn same_skipped(expected: &[Skipped], found: &[Skipped]) -> bool {
    let same = |(a, b): (&Skipped, &Skipped)| {
        a.map == b.map && a.key == b.key && same_found(a.found.as_ref(), b.found.as_ref())
    };
    expected.len() == found.len() && expected.iter().zip(found).all(same)
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
            expected.schema == found.schema && codec::same(expected, found)
        }
        (None, None) => true,
        _ => false,
    }
}
