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
    connections::{Connections, Lease},
    errors::Fault,
    incarnations,
    known::Known,
    options::Options,
    place::Place,
    quoting::literal,
    sending::{Part, send},
    sorted::Sorted,
    transaction,
    values::{revision_from, revision_to},
};
use crate::{
    batch::{Batch, Committed, MapBatch},
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// What came of it.
pub(super) enum Tried {
    Done(Committed),
    /// Nothing was applied: it takes a look to know how to go on.
    No,
    /// The connection had been idle, and was lost. What was sent on it may have
    /// been applied.
    Lost(Fault),
}

/// Applies the batch, whole or not at all, if it is one that needs no look.
pub(super) async fn commit(
    connections: &Connections,
    options: &Options,
    known: &Known,
    batch: &Batch,
) -> Result<Tried, Fault> {
    let Some(place) = known.take(batch) else {
        return Ok(Tried::No);
    };
    let lease = connections.lease().await?;
    let hints = !known.is_shared(&place.map);
    let tried = match send_at_once(&lease, options, (&place, hints), batch).await {
        Ok(tried) => tried,
        // The transaction has ended, and changed nothing.
        Err(fault) if hints && fault.is_duplicate() => {
            known.note_shared(&place.map);
            Tried::No
        }
        Err(fault) => return Err(lease.abandon(fault).await),
    };
    match &tried {
        Tried::Done(answer) => {
            lease.give_back_after(batch);
            known.note(batch, answer, vec![place]);
        }
        Tried::No => lease.give_back(),
        Tried::Lost(_) => {}
    }
    Ok(tried)
}

async fn send_at_once(
    lease: &Lease,
    options: &Options,
    (place, hints): (&Place, bool),
    batch: &Batch,
) -> Result<Tried, Fault> {
    let client = lease.client()?;
    let turn = take_turn(options, place, batch)?;
    let body = send_changes(lease, options, (place, hints), batch);
    // What is joined first is sent first: the server is at it while the changes
    // are put together.
    let (turn, body) = join(lease.in_time(2, client.simple_query(&turn)), body).await;
    match turn.map_err(Fault::committing)? {
        Err(cause) if is_no_turn(&cause) => match body {
            // The server has answered all of it, so the transaction has ended.
            Ok(()) | Err(Fault::Table(..) | Fault::Rows(..) | Fault::End(_)) => Ok(Tried::No),
            Err(fault) => Err(fault),
        },
        Err(cause) => {
            let fault = Fault::Sql(cause).on_map(&place.map);
            let was_stale = lease.was_stale(&fault);
            let fault = fault.committing();
            if was_stale {
                Ok(Tried::Lost(fault))
            } else {
                Err(fault)
            }
        }
        Ok(said) => {
            body?;
            let answer = answer_in(&said).ok_or_else(forgotten)?;
            Ok(Tried::Done(answer))
        }
    }
}

/// Begins the transaction, raises the counter and then the writer, and answers
/// with the revision.
///
/// If the map was moved, if the writer was forgotten, or if it is not this
/// batch's turn, a column would hold what it must not, and that ends the
/// transaction. (As a condition on the row it would change nothing, and the
/// transaction would go on.)
fn take_turn(options: &Options, place: &Place, batch: &Batch) -> Result<String> {
    let [maps, writers] =
        ["maps", "writers"].map(|name| options.qualified(&format!("persistify_{name}")));
    let lowest = revision_to(batch.revision_after(Revision::ZERO))?;
    let (writer, sequence) = (batch.id.writer, batch.id.sequence.to_ne_bytes());
    let sequence = i64::from_ne_bytes(sequence);
    let (id, is_as_known) = (place.id, is_as_known(place));
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
fn is_as_known(place: &Place) -> String {
    format!(
        "(name, table_name, value_type, time_type) = ({}, {}, {}, {}) AND companion IS NULL",
        literal(place.map.as_str()),
        literal(&place.table),
        literal(place.values.name()),
        literal(place.time.name()),
    )
}

/// What has to hold beside that, so that the store has lost nothing. It is asked
/// for once the counter is locked: whoever noticed a loss by a batch to this map
/// has stored the new incarnation by then.
fn claims_hold(part: &MapBatch, incarnation: &str) -> String {
    let expected = part.incarnation.map(|expected| {
        let expected = i64::from_ne_bytes(expected.get().to_ne_bytes());
        format!(" AND {incarnation} = {expected}")
    });
    let acknowledged = part.acknowledged.map(|last| {
        let sequence = i64::from_ne_bytes(last.id.sequence.to_ne_bytes());
        format!(" AND sequence >= {sequence}")
    });
    expected.unwrap_or_default() + &acknowledged.unwrap_or_default()
}

/// Whether the cause is a column that would have to hold nothing.
fn is_no_turn(cause: &tokio_postgres::Error) -> bool {
    cause.code() == Some(&SqlState::NOT_NULL_VIOLATION)
}

/// The last row is that of the last statement.
fn answer_in(said: &[SimpleQueryMessage]) -> Option<Committed> {
    let rows = said.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = rows.last()?;
    let number = |column| row.try_get(column).ok()??.parse::<i64>().ok();
    let incarnation = number(1).map(incarnations::from);
    Some(Committed::at(revision_from(number(0)?)).with_incarnation(incarnation))
}

/// The writer was there for the first of the two statements, and gone for the
/// second.
fn forgotten() -> Error {
    let message = "the writer of this batch was forgotten while it was committed, because it had not written for long; it may be tried again";
    Error::new(ErrorKind::Unavailable, message).outcome_unknown()
}

async fn send_changes(
    lease: &Lease,
    options: &Options,
    (place, hints): (&Place, bool),
    batch: &Batch,
) -> Result<(), Fault> {
    let parts = batch
        .maps
        .iter()
        .map(|part| (part, Sorted::new(part.changes.iter())));
    let parts: Vec<_> = parts.collect();
    let parts = parts.iter().map(|(part, sorted)| Part {
        map: &part.map,
        clear: part.clear,
        table: place.table(options),
        sorted,
        hints,
        checks: None,
    });
    let parts: Vec<_> = parts.collect();
    // The age counts transactions from the one that raised the counter: in that
    // one it is 0, and in any other there is no such row.
    let revision = format!(
        "(SELECT revision FROM {} WHERE id = {} AND age(xmin) = 0)",
        options.qualified("persistify_maps"),
        place.id
    );
    send(lease, &parts, (batch.at, &revision), Vec::new(), "COMMIT").await
}
