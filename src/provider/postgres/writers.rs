//! Deduplication: the last batch of each writer, and the answer to it.

use std::{collections::BTreeSet, time::SystemTime};

use bytes::Bytes;
use tokio_postgres::{Row, types::Type};

use super::{
    errors::Failure,
    options::Options,
    sessions::Session,
    statement::Statement,
    values::{Moment, Raw, ValueType, schema_column},
};
use crate::{
    batch::{Batch, Committed, Skipped, WriterId},
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::sql::numbers::{from_bits, from_revision, to_bits, to_revision},
    record::{Record, Revision},
};

/// How long a writer is remembered after its last batch, by the server's clock.
const REMEMBERED: &str = "interval '7 days'";

/// What is known of a writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) sequence: u64,
    pub(super) revision: Revision,
    skipped: i32,
}

impl Last {
    pub(super) fn read(row: &Row) -> Result<Self, Failure> {
        Ok(Self {
            sequence: to_bits(row.try_get(0)?),
            revision: to_revision(row.try_get(1)?),
            skipped: row.try_get(2)?,
        })
    }
}

/// The last batch of this writer that was applied; locks it, so that no other
/// one of this writer is applied until this transaction ends.
pub(super) fn lock(options: &Options, writer: WriterId) -> Statement<'static> {
    Statement::new(format!(
        "SELECT sequence, revision, skipped FROM {} WHERE writer = '{writer}' FOR NO KEY UPDATE",
        options.qualified("persistify_writers")
    ))
}

/// A query for the last sequences of these writers.
pub(super) fn sequences(options: &Options, writers: &BTreeSet<WriterId>) -> Statement<'static> {
    let listed: Vec<_> = writers.iter().map(|w| format!("'{w}'::uuid")).collect();
    Statement::new(format!(
        "SELECT uuid_send(writer), sequence FROM {} WHERE writer = ANY(ARRAY[{}]::uuid[])",
        options.qualified("persistify_writers"),
        listed.join(", ")
    ))
}

/// A writer, and the sequence of its last batch.
pub(super) fn read(row: &Row) -> Result<(WriterId, u64), Failure> {
    let writer: &[u8] = row.try_get(0)?;
    let writer = writer.try_into().map(u128::from_be_bytes);
    Ok((
        WriterId::new(writer.unwrap_or_default()),
        to_bits(row.try_get(1)?),
    ))
}

/// Notes that the batch was applied. Two batches at once of a writer that is not
/// known yet cannot lock each other out; the second one fails here, because it
/// only inserts.
pub(super) fn note(
    options: &Options,
    batch: &Batch,
    last: Option<Last>,
    answer: &Committed,
) -> Result<String> {
    let writers = options.qualified("persistify_writers");
    let writer = batch.id.writer;
    let sequence = from_bits(batch.id.sequence);
    let revision = from_revision(answer.revision.unwrap_or_default())?;
    let skipped = answer.skipped.len();
    Ok(match last {
        None => format!(
            "INSERT INTO {writers} (writer, sequence, revision, skipped, at)
             VALUES ('{writer}', {sequence}, {revision}, {skipped}, now())"
        ),
        Some(_) => format!(
            "UPDATE {writers} SET sequence = {sequence}, revision = {revision},
                skipped = {skipped}, at = now() WHERE writer = '{writer}'"
        ),
    })
}

/// Notes what was skipped, in place of what was skipped last time.
pub(super) fn note_skipped<'a>(
    options: &Options,
    batch: &Batch,
    last: Option<Last>,
    answer: &'a Committed,
) -> Result<Vec<Statement<'a>>> {
    let skipped = options.qualified("persistify_skipped");
    let writer = batch.id.writer;
    let mut statements = Vec::new();
    if last.is_some_and(|last| last.skipped > 0) {
        let sql = format!("DELETE FROM {skipped} WHERE writer = '{writer}'");
        statements.push(Statement::new(sql));
    }
    if answer.skipped.is_empty() {
        return Ok(statements);
    }
    let sql = format!(
        "INSERT INTO {skipped}
            (writer, position, map, key, value, updated_at, revision, expires_at, schema)
         SELECT '{writer}', u.* FROM
            unnest($1::int8[], $2::text[], $3::bytea[], $4::bytea[], $5::timestamptz[], $6::int8[],
                $7::timestamptz[], $8::int8[]) AS u"
    );
    statements.push(columns_of(Statement::new(sql), &answer.skipped)?);
    Ok(statements)
}

fn columns_of<'a>(statement: Statement<'a>, all: &'a [Skipped]) -> Result<Statement<'a>> {
    let positions: Vec<i64> = (0..).take(all.len()).collect();
    let maps: Vec<&str> = all.iter().map(|s| s.map.as_str()).collect();
    let keys: Vec<&[u8]> = all.iter().map(|s| s.key.as_bytes()).collect();
    let found = |skipped: &'a Skipped| skipped.found.as_ref();
    let payload = |s| found(s).and_then(|record| record.value.as_ref());
    let values: Vec<Option<&[u8]>> = all.iter().map(|s| payload(s).map(|p| &*p.bytes)).collect();
    let schemas: Vec<_> = all.iter().map(|s| payload(s).map(schema_column)).collect();
    let moments = |time: fn(&Record) -> Option<SystemTime>| -> Vec<Option<Moment>> {
        let times = all.iter().map(|s| found(s).and_then(time));
        times.map(|time| time.map(Moment::new)).collect()
    };
    let revisions = all
        .iter()
        .map(|s| found(s).map(|record| from_revision(record.revision)));
    let revisions = revisions
        .map(Option::transpose)
        .collect::<Result<Vec<_>>>()?;
    Ok(statement
        .with(positions, Type::INT8_ARRAY)
        .with(maps, Type::TEXT_ARRAY)
        .with(keys, Type::BYTEA_ARRAY)
        .with(values, Type::BYTEA_ARRAY)
        .with(moments(|r| r.updated_at), Type::TIMESTAMPTZ_ARRAY)
        .with(revisions, Type::INT8_ARRAY)
        .with(moments(|r| r.expires_at), Type::TIMESTAMPTZ_ARRAY)
        .with(schemas, Type::INT8_ARRAY))
}

/// What the last batch of this writer was answered.
pub(super) async fn answer(
    session: &Session,
    options: &Options,
    writer: WriterId,
    last: Last,
) -> Result<Committed, Failure> {
    if last.skipped == 0 {
        return Ok(Committed::at(last.revision));
    }
    let sql = format!(
        "SELECT map, key, value, updated_at, revision, expires_at, schema FROM {}
         WHERE writer = '{writer}' ORDER BY position",
        options.qualified("persistify_skipped")
    );
    let rows = session.rows(&Statement::new(sql)).await?;
    let skipped = rows.iter().map(skipped_of).collect::<Result<_, _>>()?;
    Ok(Committed::at(last.revision).with_skipped(skipped))
}

fn skipped_of(row: &Row) -> Result<Skipped, Failure> {
    let map = MapName::parse(row.try_get::<_, &str>(0)?)?;
    let key: &[u8] = row.try_get(1)?;
    let key = std::str::from_utf8(key).map_err(|cause| {
        let message = "what was skipped for a writer is not readable; delete its rows in `persistify_skipped`";
        Error::new(ErrorKind::Corrupt, message).with_source(cause)
    })?;
    let Some(revision) = row.try_get::<_, Option<i64>>(4)? else {
        return Ok(Skipped::new(map, key.into(), None));
    };
    let schema = row.try_get::<_, Option<i64>>(6)?.unwrap_or_default();
    let value = row.try_get::<_, Option<&[u8]>>(2)?;
    let value =
        value.and_then(|value| ValueType::Bytea.payload(value, schema, Bytes::copy_from_slice));
    let record = Record::new(key, value, to_revision(revision))
        .with_updated_at(moment_of(row, 3)?)
        .with_expires_at(moment_of(row, 5)?);
    Ok(Skipped::new(map, key.into(), Some(record)))
}

fn moment_of(row: &Row, column: usize) -> Result<Option<SystemTime>, Failure> {
    let raw = row.try_get::<_, Option<Raw<'_>>>(column)?;
    let micros = raw.and_then(|raw| raw.0.try_into().ok().map(i64::from_be_bytes));
    Ok(micros.map(|micros| Moment(micros).time()))
}

/// A query that answers with a row if there is anyone to forget.
pub(super) fn any_to_prune(options: &Options) -> String {
    let writers = options.qualified("persistify_writers");
    format!("SELECT 1 FROM {writers} WHERE at < now() - {REMEMBERED} LIMIT 1")
}

/// Forgets writers that have been idle for long: each open map adds one. A writer
/// that is writing just now is left alone.
pub(super) fn prune(options: &Options) -> String {
    let [writers, skipped] =
        ["writers", "skipped"].map(|name| options.qualified(&format!("persistify_{name}")));
    format!(
        "WITH old AS (
            DELETE FROM {writers} WHERE writer IN
                (SELECT writer FROM {writers} WHERE at < now() - {REMEMBERED}
                 FOR UPDATE SKIP LOCKED)
            RETURNING writer)
         DELETE FROM {skipped} WHERE writer IN (SELECT writer FROM old)"
    )
}
