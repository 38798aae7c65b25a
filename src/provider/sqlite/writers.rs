//! Deduplication: the last batch of each writer, and the answer to it.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    errors::Failure,
    rows::{self, cell_of},
    times::to_millis,
};
use crate::{
    batch::{Batch, Committed, Skipped, WriterId},
    error::Result,
    name::MapName,
    provider::{
        ledger,
        sql::numbers::{from_bits, from_revision, to_bits, to_revision},
    },
    record::Revision,
};

/// How long a writer is remembered after its last batch.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The sequence of the last batch that was applied of a writer, and its
/// revision.
pub(super) type Lasts = HashMap<WriterId, (u64, Revision)>;

/// The last batches of the writers that [`ledger::admit`] asks about.
pub(super) fn lasts(connection: &Connection, batch: &Batch) -> rusqlite::Result<Lasts> {
    let mut lasts = Lasts::new();
    let mut asked = None;
    for writer in ledger::writers(batch) {
        // Mostly they are all the same.
        if asked.replace(writer) != Some(writer) {
            lasts.extend(last(connection, writer)?.map(|last| (writer, last)));
        }
    }
    Ok(lasts)
}

fn last(connection: &Connection, writer: WriterId) -> rusqlite::Result<Option<(u64, Revision)>> {
    connection
        .prepare_cached("SELECT sequence, revision FROM persistify_writers WHERE writer = ?1")?
        .query_row([writer.to_string()], |row| {
            Ok((to_bits(row.get(0)?), to_revision(row.get(1)?)))
        })
        .optional()
}

/// Stores that the batch was applied, and its answer.
pub(super) fn note(
    connection: &Connection,
    batch: &Batch,
    answer: &Committed,
) -> Result<(), Failure> {
    let writer = batch.id.writer.to_string();
    connection
        .prepare_cached(
            "INSERT INTO persistify_writers (writer, sequence, revision, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (writer) DO UPDATE SET
                sequence = excluded.sequence, revision = excluded.revision, at = excluded.at",
        )?
        .execute(params![
            writer,
            from_bits(batch.id.sequence),
            from_revision(answer.revision.unwrap_or_default())?,
            to_millis(SystemTime::now()),
        ])?;
    connection
        .prepare_cached("DELETE FROM persistify_skipped WHERE writer = ?1")?
        .execute([&writer])?;
    for (position, skipped) in answer.skipped.iter().enumerate() {
        note_skipped(connection, &writer, position, skipped)?;
    }
    Ok(())
}

fn note_skipped(
    connection: &Connection,
    writer: &str,
    position: usize,
    skipped: &Skipped,
) -> Result<(), Failure> {
    let found = skipped.found.as_ref();
    let value = found.and_then(|record| record.value.as_ref());
    let revision = found
        .map(|record| from_revision(record.revision))
        .transpose()?;
    connection
        .prepare_cached(
            "INSERT INTO persistify_skipped
                (writer, position, map, key, value, updated_at, revision, expires_at, schema)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            writer,
            i64::try_from(position).unwrap_or(i64::MAX),
            skipped.map.as_str(),
            skipped.key,
            value.map(cell_of).transpose()?,
            found.and_then(|record| record.updated_at).map(to_millis),
            revision,
            found.and_then(|record| record.expires_at).map(to_millis),
            value.map(|payload| payload.schema),
        ])?;
    Ok(())
}

/// The answer to the last batch of this writer.
pub(super) fn answer(
    connection: &Connection,
    writer: WriterId,
    lasts: &Lasts,
) -> Result<Committed, Failure> {
    let revision = lasts.get(&writer).map(|(_, revision)| *revision);
    let mut statement = connection.prepare_cached(
        "SELECT key, value, updated_at, revision, expires_at, schema, map, revision IS NULL
         FROM persistify_skipped WHERE writer = ?1 ORDER BY position",
    )?;
    let mut rows = statement.query([writer.to_string()])?;
    let mut skipped = Vec::new();
    while let Some(row) = rows.next()? {
        let map = MapName::parse(row.get::<_, String>(6)?)?;
        let record = rows::record(row, &map, Revision::ZERO)?;
        let (key, is_absent) = (record.key.clone(), row.get::<_, bool>(7)?);
        skipped.push(Skipped::new(map, key, (!is_absent).then_some(record)));
    }
    Ok(Committed::at(revision.unwrap_or_default()).with_skipped(skipped))
}

pub(super) fn any_to_prune(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM persistify_writers WHERE at < ?1")?
        .exists([forgotten_before()])
}

/// Forgets writers that have been idle for long: each open map adds one.
pub(super) fn prune(connection: &Connection) -> rusqlite::Result<()> {
    let before = forgotten_before();
    connection.execute(
        "DELETE FROM persistify_skipped WHERE writer IN
            (SELECT writer FROM persistify_writers WHERE at < ?1)",
        [before],
    )?;
    connection.execute("DELETE FROM persistify_writers WHERE at < ?1", [before])?;
    Ok(())
}

fn forgotten_before() -> i64 {
    let remembered = i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX);
    to_millis(SystemTime::now()).saturating_sub(remembered)
}
