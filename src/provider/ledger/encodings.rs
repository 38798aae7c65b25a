//! Refuses values of bytes, for stores that support only JSON.

use crate::{
    batch::{MapBatch, Op},
    error::{Error, ErrorKind, Result},
    record::Encoding,
};

/// Refuses a part of a batch that puts values of [bytes](Encoding::Bytes). For stores, or
/// tables, that support only JSON. Call it before anything is written.
///
/// # Errors
///
/// `Unsupported`, with the map and the first such key.
pub fn check_json(part: &MapBatch) -> Result<()> {
    let is_bytes =
        |op: &Op| matches!(op, Op::Put { payload, .. } if payload.encoding == Encoding::Bytes);
    match part.changes.iter().find(|change| is_bytes(&change.op)) {
        None => Ok(()),
        Some(change) => {
            let message = "values of bytes cannot be stored here, only JSON";
            let error = Error::new(ErrorKind::Unsupported, message);
            Err(error.on_map(&part.map).on_keys([change.key.clone()]))
        }
    }
}
