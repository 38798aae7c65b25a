//! Numbers that describe the file as a whole, each stored under a name.

use rusqlite::{Connection, OptionalExtension, params};

use super::errors::Failure;
use crate::{
    incarnation::Incarnation,
    name::MapName,
    provider::sql::numbers::{from_bits, from_revision, to_bits, to_revision},
    record::Revision,
};

pub(super) const CREATE: &str = "
    CREATE TABLE persistify_meta (
        name TEXT PRIMARY KEY NOT NULL,
        value INTEGER NOT NULL
    );
    INSERT INTO persistify_meta (name, value) VALUES ('revision', 0);
";

/// The last revision given out: one counter for the whole file, because a batch over
/// several maps has one revision.
pub(super) const LAST: &str = "revision";

/// The last commit whose tombstones are pruned.
pub(super) const PRUNED_TO: &str = "pruned_to";

/// The name of the revision at which a map was last cleared.
pub(super) fn cleared(map: &MapName) -> String {
    format!("cleared {map}")
}

/// The name of the revision at which a map was last dropped.
pub(super) fn dropped(map: &MapName) -> String {
    format!("dropped {map}")
}

/// The number of that name.
pub(super) fn number(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM persistify_meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn set_number(connection: &Connection, name: &str, to: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO persistify_meta (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![name, to])
        .map(drop)
}

/// The revision of that name.
pub(super) fn revision(connection: &Connection, name: &str) -> rusqlite::Result<Option<Revision>> {
    Ok(number(connection, name)?.map(to_revision))
}

pub(super) fn set_revision(
    connection: &Connection,
    name: &str,
    to: Revision,
) -> Result<(), Failure> {
    Ok(set_number(connection, name, from_revision(to)?)?)
}

/// The last revision given out.
pub(super) fn last_revision(connection: &Connection) -> rusqlite::Result<Revision> {
    revision(connection, LAST)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// The incarnation of the file; `None` if an earlier version of this library created
/// it, and it was not opened since.
pub(super) fn incarnation(connection: &Connection) -> rusqlite::Result<Option<Incarnation>> {
    let found = number(connection, "incarnation")?;
    Ok(found.map(|number| Incarnation::new(to_bits(number))))
}

pub(super) fn set_incarnation(connection: &Connection, to: Incarnation) -> rusqlite::Result<()> {
    set_number(connection, "incarnation", from_bits(to.get()))
}

/// Writes without changing anything, to find out whether the file can be written to.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "UPDATE persistify_meta SET value = value WHERE name = 'format'";
    connection.execute(sql, []).map(drop)
}
