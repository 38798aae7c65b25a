//! The list of the maps of a file and of their tables.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::errors::Failure;
use crate::{
    error::Error,
    name::MapName,
    provider::sql::inspection::{kept_elsewhere, taken},
};

pub(super) const CREATE: &str = "
    CREATE TABLE persistify_maps (
        name TEXT PRIMARY KEY NOT NULL,
        table_name TEXT NOT NULL COLLATE NOCASE UNIQUE,
        companion TEXT COLLATE NOCASE UNIQUE
    );
";

/// The tables of a map.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// The table of keys and values.
    pub(super) table: String,
    /// The companion of an adopted table.
    pub(super) companion: Option<String>,
}

/// Begins a transaction that holds the write lock from the start. One that begins by
/// reading cannot get the lock after another connection has written, however long it
/// waits.
pub(super) fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Whether the table exists. SQLite ignores the case of names.
pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        )?
        .exists([name])
}

/// The tables of a map; `None` if it was never written to.
pub(super) fn location(
    connection: &Connection,
    map: &MapName,
) -> rusqlite::Result<Option<Location>> {
    connection
        .prepare_cached("SELECT table_name, companion FROM persistify_maps WHERE name = ?1")?
        .query_row([map.as_str()], |row| {
            Ok(Location {
                table: row.get(0)?,
                companion: row.get(1)?,
            })
        })
        .optional()
}

/// Adds a map to the list.
pub(super) fn add_location(
    connection: &Connection,
    map: &MapName,
    location: &Location,
) -> Result<(), Failure> {
    connection.execute(
        "INSERT INTO persistify_maps (name, table_name, companion) VALUES (?1, ?2, ?3)",
        params![map.as_str(), location.table, location.companion],
    )?;
    Ok(())
}

/// Adds an adopted table to the list and creates its companion.
pub(super) fn adopt(connection: &Connection, map: &MapName, table: &str) -> Result<(), Failure> {
    if let Some(location) = location(connection, map)? {
        return Ok(check_location(map, &location, table)?);
    }
    let sql = "SELECT 1 FROM persistify_maps WHERE table_name = ?1";
    if connection.prepare(sql)?.exists([table])? {
        return Err(taken(map, &format!("{table:?}")).into());
    }
    let companion = format!("persistify_of_{}", map.encoded(usize::MAX));
    connection.execute_batch(&format!(
        "CREATE TABLE \"{companion}\" (
            key TEXT PRIMARY KEY NOT NULL,
            revision INTEGER NOT NULL,
            expires_at INTEGER,
            schema INTEGER NOT NULL DEFAULT 0,
            digest BLOB NOT NULL
        )"
    ))?;
    let location = Location {
        table: table.to_owned(),
        companion: Some(companion),
    };
    add_location(connection, map, &location)
}

/// # Errors
///
/// `Invalid` if the map is stored in another table.
pub(super) fn check_location(map: &MapName, location: &Location, table: &str) -> Result<(), Error> {
    if location.companion.is_some() && location.table.eq_ignore_ascii_case(table) {
        return Ok(());
    }
    let shown = [&location.table, table].map(|name| format!("{name:?}"));
    Err(kept_elsewhere(map, &shown[0], &shown[1]))
}

/// All maps of the file.
pub(super) fn maps(connection: &Connection) -> Result<Vec<MapName>, Failure> {
    let mut statement = connection.prepare_cached("SELECT name FROM persistify_maps")?;
    let mut rows = statement.query([])?;
    let mut maps = Vec::new();
    while let Some(row) = rows.next()? {
        maps.push(MapName::parse(row.get::<_, String>(0)?)?);
    }
    Ok(maps)
}
