//! The tables beside the maps: the format, the counter, and the list of the maps.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{builder::Options, errors::Failure, writers};
use crate::{
    error::{Error, ErrorKind},
    incarnation::Incarnation,
    name::MapName,
    provider::sql::{
        inspection::{kept_elsewhere, taken},
        numbers::{from_bits, from_revision, to_bits, to_revision},
    },
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
pub(super) struct Location {
    /// The table with the keys and values.
    pub(super) table: String,
    /// The companion of an adopted table.
    pub(super) companion: Option<String>,
}

/// A transaction that holds the write lock from its beginning: one that begins by
/// reading could be refused the lock later, however long it waits.
pub(super) fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Writes without a change, to find out whether the file can be written to.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "UPDATE persistify_meta SET value = value WHERE name = 'format'";
    connection.execute(sql, []).map(drop)
}

/// Makes a file ready, once, whichever process comes first.
pub(super) fn prepare(connection: &mut Connection, options: &Options) -> Result<(), Failure> {
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
    transaction.commit().map_err(Failure::on_commit)
}

fn is_ready(connection: &Connection, options: &Options) -> Result<bool, Failure> {
    if format(connection)?.is_none() || incarnation(connection)?.is_none() {
        return Ok(false);
    }
    for (map, table) in &options.adopted {
        let Some(location) = location(connection, map)? else {
            return Ok(false);
        };
        check_location(map, &location, table)?;
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
pub(super) fn format(connection: &Connection) -> Result<Option<i64>, Failure> {
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

/// Lists the map.
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

fn adopt(connection: &Connection, map: &MapName, table: &str) -> Result<(), Failure> {
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

fn check_location(map: &MapName, location: &Location, table: &str) -> Result<(), Error> {
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

/// The last revision given out. One counter for the whole file: a batch over
/// several maps has one revision.
pub(super) fn revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection
        .prepare_cached("SELECT value FROM persistify_meta WHERE name = 'revision'")?
        .query_row([], |row| row.get(0))
        .map(to_revision)
}

/// The incarnation of the file; none if an earlier version of this library made
/// it, and it was not opened since.
pub(super) fn incarnation(connection: &Connection) -> rusqlite::Result<Option<Incarnation>> {
    let found = connection
        .prepare_cached("SELECT value FROM persistify_meta WHERE name = 'incarnation'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(found.map(|number| Incarnation::new(to_bits(number))))
}

pub(super) fn set_incarnation(connection: &Connection, to: Incarnation) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO persistify_meta (name, value) VALUES ('incarnation', ?1)";
    connection.execute(sql, [from_bits(to.get())]).map(drop)
}

pub(super) fn set_revision(connection: &Connection, to: Revision) -> Result<(), Failure> {
    let to = from_revision(to)?;
    connection
        .prepare_cached("UPDATE persistify_meta SET value = ?1 WHERE name = 'revision'")?
        .execute([to])?;
    Ok(())
}
