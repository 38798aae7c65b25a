//! A batch in one round trip, for the writer that wrote to the map before.
//!
//! All of it is sent at once: what raises the counter of the map, what raises
//! the writer to this batch, the changes, and the commit. The first of these
//! takes the lock of the counter and the second that of the writer, in the same
//! order as [everyone else](super::locks), and each statement after them sees
//! what was committed before. If the writer is not where it should be, because
//! this batch or a later one of it was applied meanwhile, the second statement
//! fails, and with it the transaction.
//!
//! So a batch that was given up and is still on its way changes nothing once a
//! later one of its writer was applied.

use futures_util::future::join;

use super::{
    builder::Options,
    connections::{Connections, Lease},
    errors::Fault,
    known::Known,
    pipeline::Statement,
    place::Place,
    schema,
    sending::{Part, send},
    sorted::Sorted,
    table::literal,
    values::{revision_from, revision_to},
};
use crate::{
    batch::{Batch, Committed},
    error::Result,
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
    let tried = match send_at_once(&lease, options, &place, batch).await {
        Ok(tried) => tried,
        Err(fault) => return Err(lease.abandon(fault).await),
    };
    match &tried {
        Tried::Done(answer) => {
            lease.give_back();
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
    place: &Place,
    batch: &Batch,
) -> Result<Tried, Fault> {
    let client = lease.client()?;
    let beginning = schema::begin(options);
    let turn = take_turn(options, place, batch)?;
    let head = join(client.batch_execute(&beginning), turn.one(client));
    let body = send_changes(lease, options, place, batch);
    // What is joined first is sent first: the server is at it while the changes
    // are put together.
    let (head, body) = join(lease.in_time(2, head), body).await;
    let (begun, turn) = head.map_err(Fault::committing)?;
    if let Err(cause) = begun {
        let fault = Fault::Sql(cause);
        let was_stale = lease.was_stale(&fault);
        let fault = fault.committing();
        return if was_stale {
            Ok(Tried::Lost(fault))
        } else {
            Err(fault)
        };
    }
    match turn {
        Err(cause) if is_no_turn(&cause) => Ok(Tried::No),
        Err(cause) => Err(Fault::Sql(cause).on_map(&place.map).committing()),
        Ok(row) => {
            body?;
            let revision = revision_from(row.try_get(0)?);
            Ok(Tried::Done(Committed::at(revision)))
        }
    }
}

/// Raises the counter and the writer; answers with the revision. It joins the
/// two, so that the counter is locked first.
fn take_turn<'a>(options: &Options, place: &Place, batch: &Batch) -> Result<Statement<'a>> {
    let [maps, writers] =
        ["maps", "writers"].map(|name| options.qualified(&format!("persistify_{name}")));
    let lowest = revision_to(batch.revision_after(Revision::ZERO))?;
    let (writer, sequence) = (batch.id.writer, batch.id.sequence.cast_signed());
    Ok(Statement::new(format!(
        "WITH place AS (
            UPDATE {maps} SET revision = greatest(revision + 1, {lowest})
            WHERE {} RETURNING revision),
         turn AS (
            UPDATE {writers} AS w SET sequence = {sequence}, revision = place.revision, at = now()
            FROM place WHERE w.writer = '{writer}' AND w.sequence < {sequence} AND w.skipped = 0
            RETURNING w.revision)
         SELECT CASE count(*) WHEN 1 THEN min(revision)
            ELSE (count(*) || ' writers have their turn')::bigint END FROM turn",
        is_as_known(place)
    )))
}

/// What finds the counter, unless the map was moved.
fn is_as_known(place: &Place) -> String {
    format!(
        "id = {} AND (name, table_name, value_type, time_type) = ({}, {}, {}, {}) AND companion IS NULL",
        place.id,
        literal(place.map.as_str()),
        literal(&place.table),
        literal(place.values.name()),
        literal(place.time.name()),
    )
}

/// Whether it is the statement above that makes this fail.
fn is_no_turn(cause: &tokio_postgres::Error) -> bool {
    cause
        .code()
        .is_some_and(|code| code.code().starts_with("22"))
}

async fn send_changes(
    lease: &Lease,
    options: &Options,
    place: &Place,
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
    });
    let parts: Vec<_> = parts.collect();
    let revision = format!(
        "(SELECT revision FROM {} WHERE id = {})",
        options.qualified("persistify_maps"),
        place.id
    );
    send(lease, &parts, (batch.at, &revision), Vec::new(), "COMMIT").await
}
