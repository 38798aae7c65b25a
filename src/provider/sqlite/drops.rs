//! Dropping maps.

use rusqlite::Connection;

use super::{errors::Failure, meta, schema, tombstones};
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    provider::{ledger, sql::columns::quoted},
};

/// Drops a map, in one transaction. The revision of the drop fences earlier writers. An
/// adopted table stays, and only its companion is dropped.
pub(super) fn drop_map(connection: &mut Connection, map: &MapName) -> Result<(), Failure> {
    let transaction = schema::begin(connection)?;
    let revision = ledger::clearing(map).revision_after(meta::last_revision(&transaction)?);
    if let Some(location) = schema::location(&transaction, map)? {
        let table = location.companion.unwrap_or(location.table);
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(&table)))?;
        let sql = "DELETE FROM persistify_maps WHERE name = ?1";
        transaction.execute(sql, [map.as_str()])?;
    }
    tombstones::forget(&transaction, map)?;
    meta::set_revision(&transaction, meta::LAST, revision)?;
    meta::set_revision(&transaction, &meta::dropped(map), revision)?;
    transaction.commit().map_err(Failure::on_commit)
}

/// Checks that these maps, which have adopted tables, are still listed. A drop detaches the
/// table and removes the map from the list; a new table must not take its place.
pub(super) fn check_adopted(connection: &Connection, adopted: &[MapName]) -> Result<(), Failure> {
    for map in adopted {
        if schema::location(connection, map)?.is_none() {
            return Err(detached(map).into());
        }
    }
    Ok(())
}

/// The error for a map that was dropped, which detached its adopted table.
pub(super) fn detached(map: &MapName) -> Error {
    let message = "the map was dropped, which detached its adopted table: open the provider again \
                   to adopt it";
    Error::new(ErrorKind::Unusable, message)
        .on_map(map)
        .nothing_applied()
}
