//! Deduplication: the last batch of each writer, and the answer to it.

use std::collections::BTreeSet;

use tokio_postgres::{Row, types::Type};

use super::{errors::Failure, options::Options, sessions::Session, statement::Statement};
use crate::{
    batch::{Batch, Committed, WriterId},
    error::{Error, ErrorKind, Result},
    provider::sql::numbers::{from_bits, from_revision, to_bits, to_revision},
    record::Revision,
};

/// For how long a writer is remembered after its last batch, by the server's clock.
const REMEMBERED: &str = "interval '7 days'";

/// The last batch of a writer.
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

/// Reads and locks the last applied batch of this writer, so that no other batch of it is
/// applied until this transaction ends.
pub(super) fn lock(options: &Options, writer: WriterId) -> Statement<'static> {
    Statement::new(format!(
        "SELECT sequence, revision, skipped FROM {} WHERE writer = '{writer}' FOR NO KEY UPDATE",
        options.qualified("persistify_writers")
    ))
}

/// The query for the last sequences of these writers.
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

/// Records that the batch was applied. Two concurrent batches of an unknown writer find
/// no row to lock; the second one fails here, because it only inserts.
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

/// Stores the skipped changes of the answer and replaces those of the previous batch. They
/// are JSON, because only a repeat of the batch reads them.
pub(super) fn note_skipped(
    options: &Options,
    batch: &Batch,
    last: Option<Last>,
    answer: &Committed,
) -> Result<Vec<Statement<'static>>> {
    let answers = options.qualified("persistify_answers");
    let writer = batch.id.writer;
    if answer.skipped.is_empty() {
        let is_noted = last.is_some_and(|last| last.skipped > 0);
        let sql = format!("DELETE FROM {answers} WHERE writer = '{writer}'");
        return Ok(is_noted.then(|| Statement::new(sql)).into_iter().collect());
    }
    let skipped = serde_json::to_string(&answer.skipped).map_err(|cause| {
        let message = "a stored value that a condition has found is no text; change that row";
        Error::new(ErrorKind::Corrupt, message).with_source(cause)
    })?;
    let sql = format!(
        "INSERT INTO {answers} (writer, skipped) VALUES ('{writer}', $1)
         ON CONFLICT (writer) DO UPDATE SET skipped = excluded.skipped"
    );
    Ok(vec![Statement::new(sql).with(skipped, Type::TEXT)])
}

/// The answer to the last batch of this writer.
pub(super) async fn answer(
    session: &Session,
    options: &Options,
    writer: WriterId,
    last: Last,
) -> Result<Committed, Failure> {
    let answer = Committed::at(last.revision);
    if last.skipped == 0 {
        return Ok(answer);
    }
    let answers = options.qualified("persistify_answers");
    let sql = format!("SELECT skipped FROM {answers} WHERE writer = '{writer}'");
    let found = session.row(&Statement::new(sql)).await?;
    let text = found.as_ref().map(|row| row.try_get(0)).transpose()?;
    let skipped = serde_json::from_str(text.unwrap_or_default()).map_err(|cause| {
        let message = "the answer to a batch that comes again cannot be read; delete the row of its writer in `persistify_writers`";
        Error::new(ErrorKind::Corrupt, message).with_source(cause)
    })?;
    Ok(answer.with_skipped(skipped))
}

/// A query that returns a row if a writer can be forgotten.
pub(super) fn any_to_prune(options: &Options) -> String {
    let writers = options.qualified("persistify_writers");
    format!("SELECT 1 FROM {writers} WHERE at < now() - {REMEMBERED} LIMIT 1")
}

/// Deletes writers that have been idle for long: each opened map adds one. Writers with a
/// commit in flight are skipped.
pub(super) fn prune(options: &Options) -> String {
    let [writers, answers] =
        ["writers", "answers"].map(|name| options.qualified(&format!("persistify_{name}")));
    format!(
        "WITH old AS (
            DELETE FROM {writers} WHERE writer IN
                (SELECT writer FROM {writers} WHERE at < now() - {REMEMBERED}
                 FOR UPDATE SKIP LOCKED)
            RETURNING writer)
         DELETE FROM {answers} WHERE writer IN (SELECT writer FROM old)"
    )
}
