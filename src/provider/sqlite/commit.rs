//! Commits: a batch in one transaction.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction};

use super::{
    adopted::AdoptedTable,
    errors::Failure,
    meta,
    own::OwnTable,
    schema,
    table::{Adopted, Table},
    tidying::Tidying,
    times::to_millis,
    tombstones, writers,
};
use crate::{
    batch::{Batch, Change, Committed, MapBatch, Skipped},
    error::Result,
    name::MapName,
    provider::{
        ledger::{self, Admission},
        sql::{columns::Columns, key_order::sort_by_key, numbers::from_revision},
    },
    record::{Record, Revision},
};

/// Applies the batch as a whole or not at all.
pub(super) fn commit(
    connection: &mut Connection,
    tidying: &mut Tidying,
    columns: &Columns,
    batch: &Batch,
) -> Result<Committed, Failure> {
    let transaction = schema::begin(connection)?;
    let incarnation = meta::incarnation(&transaction)?;
    let sequences = writers::sequences(&transaction, batch)?;
    let last = |writer| sequences.get(&writer).copied();
    let answer = match ledger::admit(batch, incarnation, last) {
        Admission::Apply => apply(transaction, tidying, columns, batch)?,
        Admission::Repeat => writers::answer(&transaction, batch.id.writer)?,
        Admission::Refuse(error) => return Err(error.into()),
        Admission::Renew(new, error) => {
            meta::set_incarnation(&transaction, new)?;
            transaction.commit()?;
            return Err(error.into());
        }
    };
    Ok(answer.with_incarnation(incarnation))
}

fn apply(
    transaction: Transaction<'_>,
    tidying: &mut Tidying,
    columns: &Columns,
    batch: &Batch,
) -> Result<Committed, Failure> {
    let dropped = |map: &MapName| meta::revision(&transaction, &meta::dropped(map));
    ledger::check_dropped(batch, |map| dropped(map).map_err(Failure::from))?;
    let last = meta::last_revision(&transaction)?;
    let mut tables = Tables::find(&transaction, columns, batch)?;
    // The revision of rows that another program wrote and that were not noted yet.
    let noted_at = batch.revision_after(last);
    let mut noted = false;
    let skipped = ledger::check_conditions(batch, |map, key| {
        let found = tables.record(&transaction, map, key, noted_at, &mut noted);
        found.map_err(|failure| failure.on_map(map))
    });
    let skipped = match skipped {
        Ok(skipped) => skipped,
        Err(conflict) => {
            // The conflict reports revisions of noted rows, so they must be committed.
            if noted {
                meta::set_revision(&transaction, meta::LAST, noted_at)?;
                transaction.commit()?;
            }
            return Err(conflict);
        }
    };
    let revision = batch.revision_after(if noted { noted_at } else { last });
    for part in batch.maps.iter() {
        let table = tables.take_or_create(&transaction, columns, &part.map);
        let written =
            table.and_then(|table| write(&transaction, &table, batch, part, &skipped, revision));
        written.map_err(|failure| failure.on_map(&part.map))?;
    }
    let answer = Committed::at(revision).with_skipped(skipped);
    meta::set_revision(&transaction, meta::LAST, revision)?;
    writers::remember(&transaction, batch, &answer)?;
    tidying.run_if_due(&transaction)?;
    transaction.commit().map_err(Failure::on_commit)?;
    Ok(answer)
}

/// The existing tables of the maps of a batch.
struct Tables(HashMap<MapName, Table>);

impl Tables {
    fn find(connection: &Connection, columns: &Columns, batch: &Batch) -> Result<Self, Failure> {
        let mut tables = HashMap::new();
        for MapBatch { map, .. } in batch.maps.iter() {
            let found = Table::find(connection, map, columns);
            let found = found.map_err(|failure| failure.on_map(map))?;
            tables.extend(found.map(|table| (map.clone(), table)));
        }
        Ok(Self(tables))
    }

    /// The record of a key. A row that another program wrote is noted first.
    fn record(
        &self,
        connection: &Connection,
        map: &MapName,
        key: &str,
        revision: Revision,
        noted: &mut bool,
    ) -> Result<Option<Record>, Failure> {
        let Some(table) = self.0.get(map) else {
            return Ok(None);
        };
        if let Some(adopted) = &table.adopted {
            *noted |= adopted.note_row(connection, key, revision)?;
        }
        table.record(connection, key, revision)
    }

    fn take_or_create(
        &mut self,
        connection: &Connection,
        columns: &Columns,
        map: &MapName,
    ) -> Result<Table, Failure> {
        let found = self.0.remove(map);
        found.map_or_else(|| Table::create(connection, map, columns), Ok)
    }
}

fn write(
    connection: &Connection,
    table: &Table,
    batch: &Batch,
    part: &MapBatch,
    skipped: &[Skipped],
    revision: Revision,
) -> Result<(), Failure> {
    if part.clear {
        clear(connection, table, revision)?;
    }
    let mut changes: Vec<_> = ledger::applied(part, skipped).collect();
    // Neighbours in the index are then written one after the other. Measured: new rows
    // take two thirds of the time, and a large number of them one third.
    sort_by_key(&mut changes);
    let (at, to) = (to_millis(batch.at), from_revision(revision)?);
    match &table.adopted {
        None => {
            let mut own = OwnTable::new(connection, table, batch.id.writer, at, to)?;
            each(part, &changes, |change| own.write(change))?;
            own.delete(&changes)
        }
        Some(adopted) => {
            ledger::check_json(part)?;
            let mut adopted = AdoptedTable::new(connection, table, adopted, at, to)?;
            each(part, &changes, |change| adopted.write(change))
        }
    }
}

fn each(
    part: &MapBatch,
    changes: &[&Change],
    mut write: impl FnMut(&Change) -> Result<(), Failure>,
) -> Result<(), Failure> {
    changes.iter().try_for_each(|change| {
        let written = write(change);
        written.map_err(|failure| failure.on_key(&part.map, &change.key))
    })
}

fn clear(connection: &Connection, table: &Table, revision: Revision) -> Result<(), Failure> {
    connection.execute(&format!("DELETE FROM {}", table.name), [])?;
    match &table.adopted {
        None => tombstones::clear(connection, &table.map, revision),
        Some(Adopted { companion, .. }) => {
            connection.execute(&format!("DELETE FROM {}", companion.name), [])?;
            Ok(())
        }
    }
}
