//! Reads the contents of a batch.

use std::collections::BTreeMap;

use persistify::{Batch, Op};

/// The keys of a batch, in order.
pub(crate) fn keys(batch: &Batch) -> Vec<String> {
    let changes = batch.maps.iter().flat_map(|part| &part.changes);
    changes.map(|change| change.key.to_string()).collect()
}

/// The changes of a batch by key: the JSON text of a put, or `None`.
pub(crate) fn told(batch: &Batch) -> BTreeMap<String, Option<String>> {
    let changes = batch.maps.iter().flat_map(|part| &part.changes);
    let text = |op: &Op| match op {
        Op::Put { payload, .. } => Some(String::from_utf8(payload.bytes.to_vec()).unwrap()),
        _ => None,
    };
    changes
        .map(|change| (change.key.to_string(), text(&change.op)))
        .collect()
}
