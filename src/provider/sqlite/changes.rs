//! Loads of changes: rows and tombstones, in the order of their revisions.

use rusqlite::{Connection, OptionalExtension, params, types::ValueRef};

use super::{errors::Failure, rows, table::Table, tombstones};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::sql::{
        columns::quoted,
        numbers::{bound, to_revision},
    },
    record::{Record, Revision},
};

const TOMBSTONES_BY_REVISION: &str = "persistify_tombstones_by_revision";

/// Whether the changes of the map have been followed before.
pub(super) fn is_followed(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM pragma_index_info(?1)")?;
    Ok(statement.exists([index_of(table)])? && statement.exists([TOMBSTONES_BY_REVISION])?)
}

/// Indexes the revisions of a map, at the first load of its changes.
///
/// An index costs every put and every deletion a write to a second tree. A map whose
/// changes are never loaded does not pay for it.
pub(super) fn follow(connection: &Connection, table: &Table) -> rusqlite::Result<()> {
    let (index, name) = (quoted(&index_of(table)), &table.name);
    connection.execute_batch(&format!(
        "CREATE INDEX IF NOT EXISTS {index} ON {name} (revision);
         CREATE INDEX IF NOT EXISTS {TOMBSTONES_BY_REVISION}
            ON persistify_tombstones (map, revision)"
    ))
}

fn index_of(table: &Table) -> String {
    format!("persistify_changes_{}", table.map.encoded(usize::MAX))
}

/// The commit that reaches the limit, with which the load ends; `None` if there are
/// fewer changes.
pub(super) fn end(
    connection: &Connection,
    table: &Table,
    after: Revision,
    limit: usize,
) -> rusqlite::Result<Option<Revision>> {
    let Some(before) = limit.checked_sub(1) else {
        return Ok(Some(after));
    };
    let Ok(before) = i64::try_from(before) else {
        return Ok(None);
    };
    let (rows, tombstones) = (written(table), deleted(table));
    let sql = format!(
        "SELECT t.revision FROM {rows} UNION ALL SELECT d.revision FROM {tombstones}
         ORDER BY 1 LIMIT 1 OFFSET {before}"
    );
    let mut statement = connection.prepare(&sql)?;
    let all = params![table.map.as_str(), bound(after), i64::MAX];
    let end = statement.query_row(all, |row| row.get(0)).optional()?;
    Ok(end.map(to_revision))
}

/// Calls `each` with every change after the revision `after`, up to `end`, in the order
/// of the commits.
pub(super) fn for_each(
    connection: &Connection,
    table: &Table,
    after: Revision,
    end: Option<Revision>,
    mut each: impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (rows, tombstones) = (written(table), deleted(table));
    let Table {
        key,
        value,
        updated_at,
        ..
    } = table;
    // SQLite merges the two, each in the order of its index.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT t.{key}, t.{value}, t.{updated_at}, t.revision, t.expires_at, t.schema, NULL, NULL
         FROM {rows}
         UNION ALL
         SELECT d.key, NULL, d.deleted_at, d.revision, NULL, NULL, d.cause, d.writer
         FROM {tombstones} ORDER BY 4"
    ))?;
    let last = end.map_or(i64::MAX, bound);
    let mut found = statement.query(params![table.map.as_str(), bound(after), last])?;
    while let Some(row) = found.next()? {
        let is_tombstone = row.get_ref(7)? != ValueRef::Null;
        each(if is_tombstone {
            tombstones::record(row, &table.map)?
        } else {
            rows::record(row, &table.map, Revision::ZERO)?
        })?;
    }
    Ok(())
}

/// The rows that were written after the revision `?2`, up to `?3`.
fn written(table: &Table) -> String {
    format!(
        "{} AS t WHERE t.revision > ?2 AND t.revision <= ?3",
        table.name
    )
}

/// The tombstones of the map `?1` within the same bounds, of keys that do not exist.
fn deleted(table: &Table) -> String {
    format!(
        "persistify_tombstones AS d
         WHERE d.map = ?1 AND d.revision > ?2 AND d.revision <= ?3
            AND NOT EXISTS (SELECT 1 FROM {} AS t WHERE t.{} = d.key)",
        table.name, table.key
    )
}

/// The error for an adopted table: the other program deletes without tombstones.
pub(super) fn unsupported(map: &MapName) -> Error {
    let message = "the changes of an adopted table cannot be loaded, because another program may \
                   delete from it unnoticed; load all records";
    Error::new(ErrorKind::Unsupported, message).on_map(map)
}
