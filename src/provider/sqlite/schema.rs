//! What is kept beside the maps: the format, the counter, and which table is
//! which map.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{builder::Options, errors::Fault, rows, writers};
use crate::{
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    name::MapName,
    record::Revision,
};

/// The format of the tables that this version writes and reads.
pub(super) const FORMAT: i64 = 1;

const CREATE: &str = "
    CREATE TABLE persistify_meta (
        name TEXT PRIMARY KEY NOT NULL,
        value INTEGER NOT NULL
    );
    CREATE TABLE persistify_maps (
        name TEXT PRIMARY KEY NOT NULL,
        table_name TEXT NOT NULL COLLATE NOCASE UNIQUE,
        companion TEXT COLLATE NOCASE UNIQUE
    );
    CREATE TABLE persistify_writers (
        writer TEXT PRIMARY KEY NOT NULL,
        sequence INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        at INTEGER NOT NULL
    );
    CREATE TABLE persistify_skipped (
        writer TEXT NOT NULL,
        position INTEGER NOT NULL,
        map TEXT NOT NULL,
        key TEXT NOT NULL,
        value,
        updated_at INTEGER,
        revision INTEGER,
        expires_at INTEGER,
        schema INTEGER,
        PRIMARY KEY (writer, position)
    );
";

/// Where a map is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The table with the keys and values.
    pub(super) table: String,
    /// The table with what else is known of the rows of a table that is
    /// another program's.
    pub(super) companion: Option<String>,
}

/// A transaction that holds the right to write from its beginning: one that
/// begins by reading could be refused it later, however long it waits.
pub(super) fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Makes a file ready, once, whichever process comes first.
pub(super) fn prepare(connection: &mut Connection, options: &Options) -> Result<(), Fault> {
    // Most files are ready, and opening one then waits for no writer.
    if is_ready(connection, options)? {
        return Ok(());
    }
    let transaction = begin(connection)?;
    if format(&transaction)?.is_none() {
        create(&transaction)?;
    }
    if incarnation(&transaction)?.is_none() {
        set_incarnation(&transaction, Incarnation::random())?;
    }
    for (map, table) in &options.adopted {
        adopt(&transaction, map, table)?;
    }
    writers::prune(&transaction)?;
    transaction.commit().map_err(Fault::Commit)
}

fn is_ready(connection: &Connection, options: &Options) -> Result<bool, Fault> {
    if format(connection)?.is_none() || incarnation(connection)?.is_none() {
        return Ok(false);
    }
    for (map, table) in &options.adopted {
        let Some(place) = place_of(connection, map)? else {
            return Ok(false);
        };
        check_place(map, &place, table)?;
    }
    Ok(!writers::any_to_prune(connection)?)
}

fn create(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(CREATE)?;
    transaction.execute(
        "INSERT INTO persistify_meta (name, value) VALUES ('format', ?1), ('revision', 0)",
        [FORMAT],
    )?;
    Ok(())
}

/// The format of the file; `None` if nothing was ever kept there.
pub(super) fn format(connection: &Connection) -> Result<Option<i64>, Fault> {
    if !has_table(connection, "persistify_meta")? {
        return Ok(None);
    }
    let format = connection.query_row(
        "SELECT value FROM persistify_meta WHERE name = 'format'",
        [],
        |row| row.get(0),
    )?;
    if format > FORMAT {
        let message = format!(
            "the SQLite file was written in format {format}, by a later version of this library; this one knows formats up to {FORMAT}: update the program"
        );
        return Err(Error::new(ErrorKind::Unusable, message).into());
    }
    Ok(Some(format))
}

/// Whether there is such a table; SQLite ignores the case of names.
pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        )?
        .exists([name])
}

/// Where the map is kept; `None` if it was never written to.
pub(super) fn place_of(connection: &Connection, map: &MapName) -> rusqlite::Result<Option<Place>> {
    connection
        .prepare_cached("SELECT table_name, companion FROM persistify_maps WHERE name = ?1")?
        .query_row([map.as_str()], |row| {
            Ok(Place {
                table: row.get(0)?,
                companion: row.get(1)?,
            })
        })
        .optional()
}

/// Notes where the map is kept.
pub(super) fn add_place(
    connection: &Connection,
    map: &MapName,
    place: &Place,
) -> Result<(), Fault> {
    connection.execute(
        "INSERT INTO persistify_maps (name, table_name, companion) VALUES (?1, ?2, ?3)",
        params![map.as_str(), place.table, place.companion],
    )?;
    Ok(())
}

fn adopt(connection: &Connection, map: &MapName, table: &str) -> Result<(), Fault> {
    if let Some(place) = place_of(connection, map)? {
        return Ok(check_place(map, &place, table)?);
    }
    if let Some(other) = map_in(connection, table)? {
        let message =
            format!("the table {table:?} is the map {other:?} already; a table holds one map");
        return Err(Error::new(ErrorKind::Invalid, message).on_map(map).into());
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
    let place = Place {
        table: table.to_owned(),
        companion: Some(companion),
    };
    add_place(connection, map, &place)
}

fn map_in(connection: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT name FROM persistify_maps WHERE table_name = ?1";
    let found = connection.query_row(sql, [table], |row| row.get(0));
    found.optional()
}

fn check_place(map: &MapName, place: &Place, table: &str) -> Result<()> {
    if place.companion.is_some() && place.table.eq_ignore_ascii_case(table) {
        return Ok(());
    }
    let message = format!(
        "the map is kept in the table {:?} already, not in {table:?}; give the table another map's name",
        place.table
    );
    Err(Error::new(ErrorKind::Invalid, message).on_map(map))
}

/// All maps of the file.
pub(super) fn maps(connection: &Connection) -> Result<Vec<MapName>, Fault> {
    let mut statement = connection.prepare_cached("SELECT name FROM persistify_maps")?;
    let mut rows = statement.query([])?;
    let mut maps = Vec::new();
    while let Some(row) = rows.next()? {
        maps.push(MapName::parse(row.get::<_, String>(0)?)?);
    }
    Ok(maps)
}

/// The last revision given out. One counter for the whole file: a batch over
/// several maps has one revision.
pub(super) fn revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection
        .prepare_cached("SELECT value FROM persistify_meta WHERE name = 'revision'")?
        .query_row([], |row| row.get(0))
        .map(rows::revision_from)
}

/// The revision for what another program wrote, found when no batch comes in.
pub(super) fn revision_now(connection: &Connection) -> rusqlite::Result<Revision> {
    let now = rows::revision_from(rows::to_millis(SystemTime::now()));
    let next = revision(connection)?.get().saturating_add(1);
    Ok(now.max(Revision::new(next)))
}

/// The incarnation of the file; none if an earlier version of this library made
/// it, and nobody has opened it since to write.
pub(super) fn incarnation(connection: &Connection) -> rusqlite::Result<Option<Incarnation>> {
    connection
        .prepare_cached("SELECT value FROM persistify_meta WHERE name = 'incarnation'")?
        .query_row([], |row| row.get(0))
        .optional()
        .map(|found| found.map(|n: i64| Incarnation::new(u64::from_ne_bytes(n.to_ne_bytes()))))
}

pub(super) fn set_incarnation(connection: &Connection, to: Incarnation) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO persistify_meta (name, value) VALUES ('incarnation', ?1)";
    let number = i64::from_ne_bytes(to.get().to_ne_bytes());
    connection.execute(sql, [number]).map(drop)
}

pub(super) fn set_revision(connection: &Connection, to: Revision) -> Result<(), Fault> {
    let to = rows::revision_to(to)?;
    connection
        .prepare_cached("UPDATE persistify_meta SET value = ?1 WHERE name = 'revision'")?
        .execute([to])?;
    Ok(())
}
