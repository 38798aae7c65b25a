//! A batch in one round trip, for the writer that wrote to the map before.
//!
//! All of it is sent without a wait in between: what raises the counter of the
//! map, what raises the writer to this batch, the changes, and the commit. The
//! first of these takes the lock of the counter and the second that of the
//! writer, in the same order as [everyone else](super::locks), and each
//! statement after them sees what was committed before. If the writer is not
//! where it should be, because this batch or a later one of it was applied
//! meanwhile, the second statement fails, and with it the transaction.
//!
//! So a batch that was given up and is still on its way changes nothing once a
//! later one of its writer was applied.
//!
//! If not even a transaction was begun, because the first message was cancelled
//! too soon or a pooler had no connection for it, each statement after it is a
//! transaction of its own. So each of them holds only where the counter was
//! raised by the very transaction that it is in.
//!
//! What the writer takes for new is inserted, and not looked for; if something
//! was there all the same, the transaction fails, and from then on the map
//! counts as shared.

use futures_util::future::join;
use tokio_postgres::{SimpleQueryMessage, error::SqlState};

use super::{
    Shared,
    catalog::Entry,
    changes::Changes,
    errors::Failure,
    incarnations,
    options::{Options, literal},
    pipeline::{Part, send},
    sessions::Session,
    transaction,
};
use crate::{
    batch::{Batch, Committed, MapBatch},
    error::{Error, ErrorKind, Result},
    provider::sql::numbers::{from_bits, from_revision, to_revision},
    record::Revision,
};

/// The outcome.
pub(super) enum Outcome {
    Committed(Committed),
    /// Nothing was applied: the batch needs a look at the server first.
    NotApplied,
    /// The connection had been idle, and was lost. What was sent on it may have
    /// been applied.
    Lost(Failure),
}

/// Applies the batch, whole or not at all, if it needs no look at the server.
pub(super) async fn commit(shared: &Shared, batch: &Batch) -> Result<Outcome, Failure> {
    let Shared {
        connections,
        options,
        last_commits,
        ..
    } = shared;
    let Some(entry) = last_commits.take(batch) else {
        return Ok(Outcome::NotApplied);
    };
    let session = connections.session().await?;
    let hints = !last_commits.is_shared(&entry.map);
    match send_all(&session, options, (&entry, hints), batch).await {
        Ok(Outcome::Committed(answer)) => {
            session.give_back_after(batch);
            last_commits.note(batch, &answer, vec![entry]);
            Ok(Outcome::Committed(answer))
        }
        Ok(Outcome::NotApplied) => {
            session.give_back();
            Ok(Outcome::NotApplied)
        }
        Ok(lost @ Outcome::Lost(_)) => Ok(lost),
        // The transaction has ended, and changed nothing.
        Err(failure) if hints && failure.is_duplicate() => {
            last_commits.note_shared(&entry.map);
            session.give_back();
            Ok(Outcome::NotApplied)
        }
        Err(failure) => Err(session.abandon(failure).await),
    }
}

async fn send_all(
    session: &Session,
    options: &Options,
    (entry, hints): (&Entry, bool),
    batch: &Batch,
) -> Result<Outcome, Failure> {
    let client = session.client()?;
    let turn = take_turn(options, entry, batch)?;
    let body = send_changes(session, options, (entry, hints), batch);
    session.begins();
    // What is joined first is sent first: the server is at it while the changes
    // are put together.
    let (turn, body) = join(session.in_time(2, client.simple_query(&turn)), body).await;
    let cause = match turn.map_err(Failure::committing)? {
        Ok(said) => {
            body?;
            let answer = answer_in(&said).ok_or_else(forgotten)?;
            return Ok(Outcome::Committed(answer));
        }
        Err(cause) => cause,
    };
    if cause.code() == Some(&SqlState::NOT_NULL_VIOLATION) {
        return match body {
            Err(failure) if !failure.is_answer() => Err(failure),
            // The server has answered all of it, so the transaction has ended.
            _ => Ok(Outcome::NotApplied),
        };
    }
    let failure = Failure::from(cause).on_map(&entry.map);
    let was_stale = session.was_stale(&failure);
    let failure = failure.committing();
    if was_stale {
        Ok(Outcome::Lost(failure))
    } else {
        Err(failure)
    }
}

/// Begins the transaction, raises the counter and then the writer, and answers
/// with the revision.
///
/// If the map was moved, if the writer was forgotten, or if it is not this
/// batch's turn, a column would hold what it must not, and that ends the
/// transaction. (As a condition on the row it would change nothing, and the
/// transaction would go on.)
fn take_turn(options: &Options, entry: &Entry, batch: &Batch) -> Result<String> {
    let [maps, writers] =
        ["maps", "writers"].map(|name| options.qualified(&format!("persistify_{name}")));
    let lowest = from_revision(batch.revision_after(Revision::ZERO))?;
    let (writer, sequence) = (batch.id.writer, from_bits(batch.id.sequence));
    let (id, is_as_known) = (entry.id, is_as_known(entry));
    // The sequences from 2^63 on are kept as negative numbers: they are for a look.
    let is_earlier = format!("sequence >= 0 AND sequence < {sequence}");
    let incarnation = incarnations::current(options);
    let claims = batch
        .maps
        .iter()
        .map(|part| claims_hold(part, &incarnation));
    let claims: String = claims.collect();
    Ok(format!(
        "{};
         UPDATE {maps} SET
            revision = CASE WHEN {is_as_known} THEN greatest(revision + 1, {lowest}) END
                + (SELECT 0 FROM {writers} WHERE writer = '{writer}')
            WHERE id = {id};
         UPDATE {writers} SET
            sequence = CASE WHEN {is_earlier} AND skipped = 0{claims} THEN {sequence} END,
            revision = (SELECT revision FROM {maps} WHERE id = {id}),
            at = now()
            WHERE writer = '{writer}' RETURNING revision, {incarnation}",
        transaction::begin(options),
    ))
}

/// Whether the map is where it was.
fn is_as_known(entry: &Entry) -> String {
    format!(
        "(name, table_name, value_type, time_type) = ({}, {}, {}, {}) AND companion IS NULL",
        literal(entry.map.as_str()),
        literal(&entry.table),
        literal(entry.values.name()),
        literal(entry.time.name()),
    )
}

/// What has to hold beside that, so that the store has lost nothing. It is asked
/// for once the counter is locked: whoever noticed a loss by a batch to this map
/// has stored the new incarnation by then.
fn claims_hold(part: &MapBatch, incarnation: &str) -> String {
    let expected = part.incarnation.map(|expected| {
        let expected = from_bits(expected.get());
        format!(" AND {incarnation} = {expected}")
    });
    let acknowledged = part.acknowledged.map(|last| {
        let sequence = from_bits(last.id.sequence);
        format!(" AND sequence >= {sequence}")
    });
    expected.unwrap_or_default() + &acknowledged.unwrap_or_default()
}

/// The last row is that of the last statement.
fn answer_in(said: &[SimpleQueryMessage]) -> Option<Committed> {
    let rows = said.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = rows.last()?;
    let number = |column| row.try_get(column).ok()??.parse::<i64>().ok();
    let incarnation = number(1).map(incarnations::stored);
    Some(Committed::at(to_revision(number(0)?)).with_incarnation(incarnation))
}

/// The writer was there for the first of the two statements, and gone for the
/// second.
fn forgotten() -> Error {
    let message = "the writer of this batch was forgotten while it was committed, because it had not written for long; it may be tried again";
    Error::new(ErrorKind::Unavailable, message).outcome_unknown()
}

async fn send_changes(
    session: &Session,
    options: &Options,
    (entry, hints): (&Entry, bool),
    batch: &Batch,
) -> Result<(), Failure> {
    let [part] = &*batch.maps else {
        return Ok(());
    };
    let changes = Changes::new(part.changes.iter());
    let parts = [Part {
        map: &part.map,
        clear: part.clear,
        table: entry.table(options),
        changes: &changes,
        hints,
        checks: None,
    }];
    // The age counts transactions from the one that raised the counter: in that
    // one it is 0, and in any other there is no such row.
    let revision = format!(
        "(SELECT revision FROM {} WHERE id = {} AND age(xmin) = 0)",
        options.qualified("persistify_maps"),
        entry.id
    );
    send(session, &parts, (batch.at, &revision), Vec::new(), "COMMIT").await
}
