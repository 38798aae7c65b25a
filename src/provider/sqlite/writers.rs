//! Deduplication: the last batch of each writer, and the answer to it.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    errors::Failure,
    times::{millis_ago, to_millis},
};
use crate::{
    batch::{Batch, Committed, Skipped, WriterId},
    error::{Error, ErrorKind, Result},
    provider::{
        ledger,
        sql::numbers::{from_bits, from_revision, to_bits, to_revision},
    },
};

/// `skipped` is the JSON of the changes that the batch skipped, if there were any.
pub(super) const CREATE: &str = "
    CREATE TABLE persistify_writers (
        writer TEXT PRIMARY KEY NOT NULL,
        sequence INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        at INTEGER NOT NULL,
        skipped TEXT
    );
";

/// For how long a writer is remembered after its last batch.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The sequences of the last batches of the writers that [`ledger::admit`] looks up.
pub(super) fn sequences(
    connection: &Connection,
    batch: &Batch,
) -> rusqlite::Result<HashMap<WriterId, u64>> {
    let mut sequences = HashMap::new();
    let mut asked = None;
    for writer in ledger::writers(batch) {
        // They are usually all equal.
        if asked.replace(writer) != Some(writer) {
            sequences.extend(sequence(connection, writer)?.map(|last| (writer, last)));
        }
    }
    Ok(sequences)
}

fn sequence(connection: &Connection, writer: WriterId) -> rusqlite::Result<Option<u64>> {
    let found = connection
        .prepare_cached("SELECT sequence FROM persistify_writers WHERE writer = ?1")?
        .query_row([writer.to_string()], |row| row.get(0))
        .optional()?;
    Ok(found.map(to_bits))
}

/// Remembers that the batch was applied, and its answer.
pub(super) fn remember(
    connection: &Connection,
    batch: &Batch,
    answer: &Committed,
) -> Result<(), Failure> {
    let any_skipped = !answer.skipped.is_empty();
    let skipped = any_skipped.then(|| serde_json::to_string(&answer.skipped));
    let skipped = skipped.transpose().map_err(|cause| {
        let message = "the skipped changes of a batch cannot be written as JSON";
        Error::new(ErrorKind::Refused, message).with_source(cause)
    })?;
    connection
        .prepare_cached(
            "INSERT INTO persistify_writers (writer, sequence, revision, at, skipped)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (writer) DO UPDATE SET
                sequence = excluded.sequence, revision = excluded.revision, at = excluded.at,
                skipped = excluded.skipped",
        )?
        .execute(params![
            batch.id.writer.to_string(),
            from_bits(batch.id.sequence),
            from_revision(answer.revision.unwrap_or_default())?,
            to_millis(SystemTime::now()),
            skipped,
        ])?;
    Ok(())
}

/// The answer to the last batch of this writer.
pub(super) fn answer(connection: &Connection, writer: WriterId) -> Result<Committed, Failure> {
    let (revision, skipped): (i64, Option<String>) = connection
        .prepare_cached("SELECT revision, skipped FROM persistify_writers WHERE writer = ?1")?
        .query_row([writer.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let skipped: Option<Vec<Skipped>> = skipped
        .map(|json| serde_json::from_str(&json))
        .transpose()
        .map_err(|cause| {
            let message = "the remembered answer to the batch cannot be read";
            Error::new(ErrorKind::Corrupt, message).with_source(cause)
        })?;
    Ok(Committed::at(to_revision(revision)).with_skipped(skipped.unwrap_or_default()))
}

pub(super) fn any_old(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM persistify_writers WHERE at < ?1")?
        .exists([millis_ago(REMEMBERED)])
}

/// Forgets writers that have been idle for a week. Each open map adds one.
pub(super) fn forget_old(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM persistify_writers WHERE at < ?1")?
        .execute([millis_ago(REMEMBERED)])
        .map(drop)
}
