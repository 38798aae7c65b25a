//! One row, as SQLite has it, to and from what the crate has.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rusqlite::{
    Row,
    types::{ToSqlOutput, ValueRef},
};

use super::errors::Fault;
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    record::{Payload, Record, Revision},
};

/// The columns of every select of records, in this order: key, value, written
/// at, revision, expires at, schema, digest.
pub(super) struct Stored {
    pub(super) key: Arc<str>,
    pub(super) value: Bytes,
    pub(super) updated_at: Option<i64>,
    /// Nothing else is known of a row that another program added.
    pub(super) revision: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) schema: Option<u32>,
    pub(super) digest: Option<[u8; 16]>,
}

impl Stored {
    pub(super) fn read(row: &Row<'_>, map: &MapName) -> Result<Self, Fault> {
        Ok(Self {
            key: key_of(row.get_ref(0)?, map)?,
            value: value_of(row.get_ref(1)?),
            updated_at: time_of(row.get_ref(2)?),
            revision: row.get(3)?,
            expires_at: row.get(4)?,
            schema: row.get(5)?,
            digest: row.get(6)?,
        })
    }

    pub(super) fn into_record(self) -> Record {
        let payload = Payload::json(self.value).with_schema(self.schema.unwrap_or_default());
        let revision = revision_from(self.revision.unwrap_or_default());
        Record::new(self.key, Some(payload), revision)
            .with_expires_at(self.expires_at.map(from_millis))
            .with_updated_at(self.updated_at.map(from_millis))
    }
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

/// Nothing rests on it, so what is no number keeps no row from being loaded.
fn time_of(at: ValueRef<'_>) -> Option<i64> {
    match at {
        ValueRef::Integer(millis) => Some(millis),
        _ => None,
    }
}

/// What another program stored without quotes is the JSON text of the same
/// number; what does not decode is for the map to report.
fn value_of(value: ValueRef<'_>) -> Bytes {
    match value {
        ValueRef::Null => Bytes::from_static(b"null"),
        ValueRef::Integer(number) => number.to_string().into(),
        ValueRef::Real(number) => format!("{number:?}").into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Bytes::copy_from_slice(bytes),
    }
}

/// Text, for people and other programs to read; bytes that are no text are
/// kept as they are.
pub(super) fn value_to(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match std::str::from_utf8(bytes) {
        Ok(_) => ValueRef::Text(bytes),
        Err(_) => ValueRef::Blob(bytes),
    })
}

/// Milliseconds since 1970, rounded down: an entry expires that much early,
/// never late.
pub(super) fn to_millis(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => {
            let nanos = before.duration().as_nanos();
            i64::try_from(nanos.div_ceil(1_000_000)).map_or(i64::MIN, |millis| -millis)
        }
    }
}

pub(super) fn from_millis(millis: i64) -> SystemTime {
    let away = Duration::from_millis(millis.unsigned_abs());
    let time = if millis < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(away)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(away)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// # Errors
///
/// `Invalid` beyond what SQLite's integers hold.
pub(super) fn revision_to(revision: Revision) -> Result<i64> {
    i64::try_from(revision.get()).map_err(|cause| {
        let message =
            "SQLite keeps revisions up to 2^63 only; check the writer's clock and `after`";
        Error::new(ErrorKind::Invalid, message).with_source(cause)
    })
}

pub(super) fn revision_from(stored: i64) -> Revision {
    Revision::new(u64::try_from(stored).unwrap_or_default())
}
