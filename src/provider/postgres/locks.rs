//! The locks that a batch takes before its first change: the counters of the
//! maps in the order of their names, and then the row of the writer.
//!
//! Each of these is a statement of its own, which sees what was committed while
//! the one before it waited. So from there on no one else commits to these maps,
//! or for this writer, until this transaction ends: revisions are given out in
//! the order of the commits, whichever processes they come from.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::{join, join5};
use tokio_postgres::types::Type;

use super::{
    connections::{Connections, Lease},
    errors::Fault,
    incarnations,
    options::Options,
    pipeline::Statement,
    place::{PLACE, Place},
    sorted::Sorted,
    transaction,
    values::revision_to,
    writers::{self, Last},
};
use crate::{
    batch::{Batch, WriterId},
    error::Result,
    incarnation::Incarnation,
    name::MapName,
    provider::ledger,
    record::Revision,
};

/// What was locked, and what was prepared meanwhile.
pub(super) struct Locked<'b> {
    /// In the order of the maps' names.
    pub(super) places: Vec<Place>,
    pub(super) last: Option<Last>,
    /// The last sequences of the other writers that the batch names.
    others: HashMap<WriterId, u64>,
    pub(super) incarnation: Option<Incarnation>,
    /// All changes, a map an item.
    pub(super) sorted: Vec<Sorted<'b>>,
}

impl Locked<'_> {
    pub(super) fn missing<'b>(&self, batch: &'b Batch) -> BTreeSet<&'b MapName> {
        let maps = batch.maps.iter().map(|part| &part.map);
        maps.filter(|map| self.place(map).is_none()).collect()
    }

    pub(super) fn place(&self, map: &MapName) -> Option<&Place> {
        self.places.iter().find(|place| place.map == *map)
    }

    /// The sequence of the last batch of a writer that the batch names.
    pub(super) fn last_of(&self, batch: &Batch, writer: WriterId) -> Option<u64> {
        if writer == batch.id.writer {
            return self.last.map(|last| last.sequence);
        }
        self.others.get(&writer).copied()
    }

    /// Whether anything is put that must not be there yet.
    pub(super) fn inserts(&self) -> bool {
        let mut puts = self.sorted.iter().flat_map(|sorted| &sorted.puts);
        puts.any(|put| put.absent)
    }

    /// The highest revision that any of the maps was given.
    pub(super) fn revision(&self) -> Revision {
        let revisions = self.places.iter().map(|place| place.revision);
        revisions.max().unwrap_or_default()
    }
}

/// Begins the transaction and locks what it needs, on a connection that is
/// there: nothing is changed yet, so a stale one is no one's trouble.
pub(super) async fn begin<'b>(
    connections: &Connections,
    options: &Options,
    batch: &'b Batch,
) -> Result<(Lease, Locked<'b>), Fault> {
    loop {
        let lease = connections.lease().await?;
        match lock(&lease, options, batch).await {
            Ok(locked) => return Ok((lease, locked)),
            Err(fault) if lease.was_stale(&fault) => {}
            Err(fault) => return Err(lease.abandon(fault).await),
        }
    }
}

async fn lock<'b>(lease: &Lease, options: &Options, batch: &'b Batch) -> Result<Locked<'b>, Fault> {
    let client = lease.client()?;
    let begin = transaction::begin(options);
    let counters = format!(
        "SELECT {PLACE} FROM {} WHERE name = ANY($1) ORDER BY name FOR NO KEY UPDATE",
        options.qualified("persistify_maps")
    );
    let names: Vec<&str> = batch.maps.iter().map(|part| part.map.as_str()).collect();
    let counters = Statement::new(counters).with(names, Type::TEXT_ARRAY);
    let writer = writers::lock(options, batch.id.writer);
    let answers = join5(
        client.batch_execute(&begin),
        counters.rows(client),
        client.query_typed_opt(&writer, &[]),
        writers::ask(client, options, others(batch)),
        incarnations::ask(client, options),
    );
    // What is joined first is sent first; the sorting is done by the time the
    // server answers.
    let sorted = batch
        .maps
        .iter()
        .map(|part| Sorted::new(part.changes.iter()));
    let sorted = async { sorted.collect() };
    let (answers, sorted) = lease.in_time(5, join(answers, sorted)).await?;
    let (started, counters, writer, others, incarnation) = answers;
    started?;
    let places = counters?
        .iter()
        .map(Place::read)
        .collect::<Result<_, _>>()?;
    let last = writer?.as_ref().map(Last::read).transpose()?;
    let others = others?
        .iter()
        .map(writers::read)
        .collect::<Result<_, _>>()?;
    Ok(Locked {
        places,
        last,
        others,
        incarnation: incarnations::read(&incarnation?)?,
        sorted,
    })
}

/// The writers that a batch of several maps names beside its own.
fn others(batch: &Batch) -> BTreeSet<WriterId> {
    let writers = ledger::writers(batch);
    writers
        .filter(|writer| *writer != batch.id.writer)
        .collect()
}

/// What raises the counters of the maps to that revision.
pub(super) fn set_revision(options: &Options, locked: &Locked<'_>, to: Revision) -> Result<String> {
    let ids: Vec<_> = locked
        .places
        .iter()
        .map(|place| place.id.to_string())
        .collect();
    if ids.is_empty() {
        return Ok(String::new());
    }
    let maps = options.qualified("persistify_maps");
    let to = revision_to(to)?;
    let ids = ids.join(", ");
    Ok(format!(
        "UPDATE {maps} SET revision = {to} WHERE id IN ({ids}); "
    ))
}
