//! Converts rows to records and values to cells.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{
    Connection, Row,
    functions::FunctionFlags,
    types::{ToSqlOutput, ValueRef},
};
use xxhash_rust::xxh3::xxh3_128;

use super::{errors::Failure, times::from_millis};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::sql::numbers::to_revision,
    record::{Encoding, Payload, Record, Revision},
};

/// The record in a row of the columns key, value, written at, revision, expires at and
/// schema.
///
/// A row of an adopted table without a revision was written by the other program since it
/// was noted; it gets `unknown`.
pub(super) fn record(row: &Row<'_>, map: &MapName, unknown: Revision) -> Result<Record, Failure> {
    let key = key_of(row.get_ref(0)?, map)?;
    let payload = payload_of(row.get_ref(1)?);
    let schema = row.get::<_, Option<u32>>(5)?.unwrap_or_default();
    let revision = row.get::<_, Option<i64>>(3)?.map_or(unknown, to_revision);
    // Nothing depends on the time of a write, so a row loads even if it is not a number.
    let written = row.get_ref(2)?.as_i64().ok();
    Ok(
        Record::new(key, Some(payload.with_schema(schema)), revision)
            .with_expires_at(row.get::<_, Option<i64>>(4)?.map(from_millis))
            .with_updated_at(written.map(from_millis)),
    )
}

fn key_of(key: ValueRef<'_>, map: &MapName) -> Result<Arc<str>> {
    let text = match key {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    let Some(text) = text else {
        let message = format!(
            "a row has a key that is not UTF-8 text but {}; change that row, nothing was overwritten",
            key.data_type()
        );
        return Err(Error::new(ErrorKind::Corrupt, message).on_map(map));
    };
    Ok(text.into())
}

/// The value of a cell: a blob is bytes, everything else is JSON. A number that another
/// program stored without quotes is its own text. Text that is not UTF-8 cannot be JSON.
fn payload_of(value: ValueRef<'_>) -> Payload {
    match value {
        ValueRef::Blob(bytes) => Payload::binary(bytes.to_vec()),
        ValueRef::Text(bytes) if std::str::from_utf8(bytes).is_err() => {
            Payload::binary(bytes.to_vec())
        }
        other => Payload::json(content_of(other)),
    }
}

fn content_of(value: ValueRef<'_>) -> Bytes {
    match value {
        ValueRef::Null => Bytes::from_static(b"null"),
        ValueRef::Integer(number) => number.to_string().into(),
        ValueRef::Real(number) => format!("{number:?}").into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Bytes::copy_from_slice(bytes),
    }
}

/// The cell of a value: text for JSON, which people and other programs can read, and a
/// blob for bytes. Only the type of the cell tells the two apart.
///
/// # Errors
///
/// `Refused` for JSON that is not UTF-8: as a blob it would be loaded as bytes.
pub(super) fn cell_of(payload: &Payload) -> Result<ToSqlOutput<'_>> {
    Ok(ToSqlOutput::Borrowed(match payload.encoding {
        Encoding::Bytes => ValueRef::Blob(&payload.bytes),
        Encoding::Json => {
            std::str::from_utf8(&payload.bytes).map_err(|cause| {
                let message = "a value that is not UTF-8 cannot be stored as JSON";
                Error::new(ErrorKind::Refused, message)
                    .with_source(cause)
                    .nothing_applied()
            })?;
            ValueRef::Text(&payload.bytes)
        }
    }))
}

/// Adds the SQL function [`DIGEST`] to a connection: the digest of a value in an adopted
/// table.
pub(super) fn add_digest(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(DIGEST, 1, flags, |call| {
        Ok(xxh3_128(&content_of(call.get_raw(0))).to_be_bytes())
    })
}

pub(super) const DIGEST: &str = "persistify_digest";
