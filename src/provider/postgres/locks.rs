//! The locks that a batch takes before its first change: the counters of its maps, in
//! the order of their names, and then the row of its writer.
//!
//! Each lock is a statement of its own, so it sees the commits that were made while the
//! previous one waited. From then on, no other session commits to these maps or for this
//! writer until the transaction ends. So revisions are assigned in commit order across all
//! processes.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::{join, join5};
use tokio_postgres::types::Type;

use super::{
    Shared,
    catalog::{ENTRY, Entry},
    errors::Failure,
    incarnations,
    options::Options,
    sessions::Session,
    statement::Statement,
    transaction,
    watermarks::{self, Watermarks},
    writers::{self, Last},
};
use crate::{
    batch::{Batch, WriterId},
    error::Result,
    incarnation::Incarnation,
    name::MapName,
    provider::{ledger, sql::numbers::from_revision},
    record::Revision,
};

/// The rows that were locked.
pub(super) struct Locked {
    /// In the order of the maps' names.
    pub(super) entries: Vec<Entry>,
    pub(super) last: Option<Last>,
    /// The last sequences of the writers that the batch names.
    sequences: HashMap<WriterId, u64>,
    pub(super) incarnation: Option<Incarnation>,
    /// Read after the counters were locked, so they include a drop that held the lock.
    watermarks: HashMap<MapName, Watermarks>,
}

impl Locked {
    pub(super) fn missing<'b>(&self, batch: &'b Batch) -> BTreeSet<&'b MapName> {
        let maps = batch.maps.iter().map(|part| &part.map);
        maps.filter(|map| self.entry(map).is_none()).collect()
    }

    pub(super) fn entry(&self, map: &MapName) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.map == *map)
    }

    /// The revision at which a map was last dropped.
    pub(super) fn dropped(&self, map: &MapName) -> Option<Revision> {
        self.watermarks.get(map)?.dropped
    }

    /// Whether a map is stored in an adopted table.
    pub(super) fn is_adopted(&self, map: &MapName) -> bool {
        let entry = self.entry(map);
        entry.is_some_and(|entry| entry.companion.is_some())
    }

    /// The sequence of the last batch of a writer that the batch names.
    pub(super) fn last_of(&self, writer: WriterId) -> Option<u64> {
        self.sequences.get(&writer).copied()
    }

    /// The highest counter of the maps.
    pub(super) fn revision(&self) -> Revision {
        let revisions = self.entries.iter().map(|entry| entry.revision);
        revisions.max().unwrap_or_default()
    }
}

/// Begins the transaction and takes its locks. Nothing is changed yet, so a broken
/// connection is replaced by another one.
pub(super) async fn begin(shared: &Shared, batch: &Batch) -> Result<(Session, Locked), Failure> {
    let begin = async |session: Session| {
        let locked = lock(&session, &shared.options, batch).await;
        (session, locked)
    };
    shared.connections.begin(begin).await
}

async fn lock(session: &Session, options: &Options, batch: &Batch) -> Result<Locked, Failure> {
    let client = session.client()?;
    let begin = transaction::begin(options);
    let counters = format!(
        "SELECT {ENTRY} FROM {} WHERE name = ANY($1) ORDER BY name FOR NO KEY UPDATE",
        options.qualified("persistify_maps")
    );
    let names: Vec<&str> = batch.maps.iter().map(|part| part.map.as_str()).collect();
    let counters = Statement::new(counters).with(names, Type::TEXT_ARRAY);
    let writer = writers::lock(options, batch.id.writer);
    let others = ledger::writers(batch).filter(|writer| *writer != batch.id.writer);
    let others: BTreeSet<_> = others.collect();
    let sequences = writers::sequences(options, &others);
    let sequences = async {
        if others.is_empty() {
            return Ok(Vec::new());
        }
        sequences.rows(client).await
    };
    let incarnation = incarnations::query(options);
    let watermarks = watermarks::query(options, batch.maps.iter().map(|part| &part.map));
    session.begins();
    // `join` polls in order, so the statements are sent in this order.
    let answers = join5(
        client.batch_execute(&begin),
        counters.rows(client),
        writer.rows(client),
        sequences,
        join(incarnation.rows(client), watermarks.rows(client)),
    );
    let (started, counters, writer, sequences, (incarnation, watermarks)) =
        session.in_time(6, answers).await?;
    started?;
    let entries = counters?
        .iter()
        .map(Entry::read)
        .collect::<Result<_, _>>()?;
    let last = writer?.first().map(Last::read).transpose()?;
    let sequences = sequences?
        .iter()
        .map(writers::read)
        .collect::<Result<Vec<_>, _>>()?;
    let own = last.map(|last| (batch.id.writer, last.sequence));
    Ok(Locked {
        entries,
        last,
        sequences: sequences.into_iter().chain(own).collect(),
        incarnation: incarnations::read(&incarnation?)?,
        watermarks: watermarks::read(&watermarks?)?,
    })
}

/// The SQL that raises the counters of the maps to a revision.
pub(super) fn set_revision(options: &Options, locked: &Locked, to: Revision) -> Result<String> {
    let ids: Vec<_> = locked
        .entries
        .iter()
        .map(|entry| entry.id.to_string())
        .collect();
    if ids.is_empty() {
        return Ok(String::new());
    }
    let maps = options.qualified("persistify_maps");
    let to = from_revision(to)?;
    let ids = ids.join(", ");
    Ok(format!(
        "UPDATE {maps} SET revision = {to} WHERE id IN ({ids}); "
    ))
}
