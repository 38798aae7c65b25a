//! Commits in a single round trip, for the writer of the last commit to the map.
//!
//! Four parts are pipelined: the statement that raises the counter of the map, the one
//! that raises the writer's sequence to this batch, the changes, and the commit. The
//! first locks the counter and the second the writer, in the [order of all
//! commits](super::locks), and every later statement sees all earlier commits. If this
//! batch or a later one of its writer was applied already, the second statement fails,
//! and with it the transaction. So a batch that was given up and is still in flight
//! changes nothing once a later batch of its writer was applied.
//!
//! If no transaction was begun, because the first message was canceled too early or a
//! pooler had no connection for it, each later statement is a transaction of its own. So
//! each of them has an effect only if its own transaction raised the counter.
//!
//! Entries that are likely new are inserted rather than upserted. If such an entry
//! exists, the transaction fails, and the map counts as shared from then on.
//!
//! The bench `postgres` measures both: a commit of one row takes a fifth less time in a
//! single round trip, and a commit of 10,000 new rows a quarter less as inserts.

use futures_util::future::join;
use tokio_postgres::{SimpleQueryMessage, error::SqlState};

use super::{
    Shared,
    catalog::Entry,
    changes::{Changes, Stamp},
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

/// The outcome of a commit in a single round trip.
pub(super) enum TripOutcome {
    Committed(Committed),
    /// Nothing was applied: the batch needs a look at the server first.
    NotApplied,
    /// The connection had been idle, and was lost. The batch may have been
    /// applied.
    Lost(Failure),
}

/// Applies the batch, whole or not at all, if it needs no look at the server.
pub(super) async fn commit(shared: &Shared, batch: &Batch) -> Result<TripOutcome, Failure> {
    let Shared {
        connections,
        last_commits,
        ..
    } = shared;
    let Some(entry) = last_commits.take(batch) else {
        return Ok(TripOutcome::NotApplied);
    };
    let session = connections.session().await?;
    let hints = !last_commits.is_shared(&entry.map);
    match send_all(&session, shared, (&entry, hints), batch).await {
        Ok(TripOutcome::Committed(answer)) => {
            session.give_back_after(batch);
            last_commits.note(batch, &answer, vec![entry]);
            Ok(TripOutcome::Committed(answer))
        }
        Ok(TripOutcome::NotApplied) => {
            session.release().await;
            Ok(TripOutcome::NotApplied)
        }
        Ok(lost @ TripOutcome::Lost(_)) => Ok(lost),
        Err(failure) if hints && failure.is_duplicate() => {
            last_commits.note_shared(&entry.map);
            session.release().await;
            Ok(TripOutcome::NotApplied)
        }
        Err(failure) => Err(session.abandon(failure).await),
    }
}

async fn send_all(
    session: &Session,
    shared: &Shared,
    (entry, hints): (&Entry, bool),
    batch: &Batch,
) -> Result<TripOutcome, Failure> {
    let client = session.client()?;
    let turn = take_turn(&shared.options, entry, batch)?;
    let body = send_changes(session, shared, (entry, hints), batch);
    session.begins();
    // `join` polls in order: the server works on the first message while the changes are
    // encoded.
    let (turn, body) = join(session.in_time(2, client.simple_query(&turn)), body).await;
    let cause = match turn.map_err(Failure::committing)? {
        Ok(said) => {
            body?;
            let answer = answer_in(&said).ok_or_else(forgotten)?;
            return Ok(TripOutcome::Committed(answer));
        }
        Err(cause) => cause,
    };
    if cause.code() == Some(&SqlState::NOT_NULL_VIOLATION) {
        return match body {
            Ok(()) => Ok(TripOutcome::NotApplied),
            // The server has answered everything, and changed nothing.
            Err(failure @ Failure::Database(..)) if failure.is_answer() => {
                Ok(TripOutcome::NotApplied)
            }
            Err(failure) => Err(failure),
        };
    }
    let failure = Failure::from(cause).on_map(&entry.map);
    let was_stale = session.was_stale(&failure);
    let failure = failure.committing();
    if was_stale {
        Ok(TripOutcome::Lost(failure))
    } else {
        Err(failure)
    }
}

/// Begins the transaction, raises the counter and then the sequence of the writer, and
/// returns the revision.
///
/// If the map was moved, the writer was forgotten, or the batch is not admitted, the
/// statement violates a NOT NULL constraint, which aborts the transaction. (A WHERE
/// condition would change no row, and the transaction would continue.)
fn take_turn(options: &Options, entry: &Entry, batch: &Batch) -> Result<String> {
    let [maps, writers] =
        ["maps", "writers"].map(|name| options.qualified(&format!("persistify_{name}")));
    let lowest = from_revision(batch.revision_after(Revision::ZERO))?;
    let (writer, sequence) = (batch.id.writer, from_bits(batch.id.sequence));
    let (id, is_as_known) = (entry.id, is_as_known(entry));
    // Sequences from 2^63 on are stored as negative numbers; they are committed in two
    // round trips.
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

/// Whether the map is still in the same table.
fn is_as_known(entry: &Entry) -> String {
    format!(
        "(name, table_name, value_type, time_type) = ({}, {}, {}, {}) AND companion IS NULL",
        literal(entry.map.as_str()),
        literal(&entry.table),
        literal(entry.values.name()),
        literal(entry.time.name()),
    )
}

/// The conditions under which the store has lost no commit, as in
/// [`ledger::admit`](crate::provider::ledger::admit). They are evaluated while the
/// counter is locked: if another writer noticed a loss in a batch to this map, it has
/// stored the new incarnation by then.
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

/// The last row belongs to the last statement.
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

/// The error if the writer was forgotten between the two statements.
fn forgotten() -> Error {
    let message = "the writer of this batch had been idle for days and was forgotten during the commit; try again";
    Error::new(ErrorKind::Unavailable, message).outcome_unknown()
}

async fn send_changes(
    session: &Session,
    shared: &Shared,
    (entry, hints): (&Entry, bool),
    batch: &Batch,
) -> Result<(), Failure> {
    let [part] = &*batch.maps else {
        return Ok(());
    };
    let options = &shared.options;
    let changes = Changes::new(part.changes.iter());
    let parts = [Part::new(options, entry, part, &changes, hints)];
    // The age counts transactions since the one that raised the counter: it is 0 in
    // that one, and any other has no such row.
    let revision = format!(
        "(SELECT revision FROM {} WHERE id = {} AND age(xmin) = 0)",
        options.qualified("persistify_maps"),
        entry.id
    );
    let stamp = Stamp {
        writer: batch.id.writer,
        at: batch.at,
        revision: &revision,
    };
    let more = shared.prune_by_the_way(batch);
    send(session, &parts, stamp, more, "COMMIT").await
}
