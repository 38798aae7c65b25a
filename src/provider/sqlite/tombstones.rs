//! Tombstones of deleted entries, for readers that follow the changes of a map.
//!
//! A tombstone is written in the transaction that deletes the entry. Putting the key again
//! does not remove it, which would cost every put a lookup; instead a load ignores
//! tombstones of keys that exist. A later deletion of the key replaces its tombstone, so
//! their number is bounded by the keys deleted within the retention time.
//!
//! A clear leaves no tombstones, only its revision. To a reader that follows the map, a
//! drop is a clear.

use std::{sync::Arc, time::Duration};

use rusqlite::{Connection, Row, ToSql, types::Null};

use super::{
    errors::Failure,
    meta,
    table::Table,
    times::{from_millis, millis_ago},
};
use crate::{
    batch::WriterId,
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::sql::{
        failure::Subject,
        numbers::{from_revision, to_revision},
    },
    record::{Cause, Deletion, Record, Revision},
};

/// One table for all maps, so that pruning is one statement and forgets whole commits,
/// also those of several maps.
pub(super) const CREATE: &str = "
    CREATE TABLE persistify_tombstones (
        map TEXT NOT NULL,
        key TEXT NOT NULL,
        revision INTEGER NOT NULL,
        deleted_at INTEGER NOT NULL,
        cause TEXT NOT NULL,
        writer TEXT NOT NULL,
        PRIMARY KEY (map, key)
    ) WITHOUT ROWID;
";

/// The maximum number of entries that a statement deletes.
///
/// Measured on the deletion of 10,000 of 100,000 entries: one statement per entry takes
/// 13 ms without tombstones and 30 ms with them. With many entries per statement it takes
/// 17 ms with tombstones.
const AT_ONCE: usize = 128;

/// Deletes entries and writes their tombstones. Keys that do not exist leave none.
pub(super) fn delete(
    connection: &Connection,
    table: &Table,
    keys: &[&Arc<str>],
    (revision, at): (i64, i64),
    cause: Cause,
    writer: WriterId,
) -> Result<(), Failure> {
    let Table { name, key, map, .. } = table;
    let (map_name, cause, writer) = (map.as_str(), name_of(cause), writer.to_string());
    for keys in keys.chunks(AT_ONCE) {
        // Padded to a few lengths, so that the prepared statements are reused. NULL equals
        // no key.
        let length = keys.len().next_power_of_two();
        let within = format!("t.{key} IN ({})", vec!["?"; length].join(","));
        let mut values: Vec<&dyn ToSql> = vec![&map_name, &revision, &at, &cause, &writer];
        let first_key = values.len();
        values.extend(keys.iter().map(|key| key as &dyn ToSql));
        values.resize(first_key + length, &Null);
        let bury = format!(
            "INSERT OR REPLACE INTO persistify_tombstones
                (map, revision, deleted_at, cause, writer, key)
             SELECT ?, ?, ?, ?, ?, t.{key} FROM {name} AS t WHERE {within}"
        );
        connection.prepare_cached(&bury)?.execute(&*values)?;
        let delete = format!("DELETE FROM {name} AS t WHERE {within}");
        let deleted = connection
            .prepare_cached(&delete)?
            .execute(&values[first_key..]);
        deleted.map_err(|cause| refused(cause, map, keys))?;
    }
    Ok(())
}

/// A trigger of another program may refuse a deletion. With several keys in a statement,
/// SQLite does not report which one.
fn refused(cause: rusqlite::Error, map: &MapName, keys: &[&Arc<str>]) -> Failure {
    let known = match keys {
        [key] => vec![Arc::clone(key)],
        _ => Vec::new(),
    };
    Failure::database(cause).about(|| Subject::Rows(map.clone(), known))
}

/// Records that the commit cleared the map.
pub(super) fn clear(
    connection: &Connection,
    map: &MapName,
    revision: Revision,
) -> Result<(), Failure> {
    forget(connection, map)?;
    meta::set_revision(connection, &meta::cleared(map), revision)
}

/// Deletes the tombstones of a map that is dropped or cleared.
pub(super) fn forget(connection: &Connection, map: &MapName) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM persistify_tombstones WHERE map = ?1")?
        .execute([map.as_str()])
        .map(drop)
}

/// The last commit that cleared or dropped the map.
pub(super) fn cleared(
    connection: &Connection,
    map: &MapName,
) -> rusqlite::Result<Option<Revision>> {
    let cleared = meta::revision(connection, &meta::cleared(map))?;
    Ok(cleared.max(meta::revision(connection, &meta::dropped(map))?))
}

/// The last commit with a tombstone that has been kept for that long.
///
/// It scans all tombstones. An index would slow down every deletion for a rare query.
pub(super) fn last_old(
    connection: &Connection,
    kept: Duration,
) -> rusqlite::Result<Option<Revision>> {
    let sql = "SELECT max(+revision) FROM persistify_tombstones WHERE deleted_at <= ?1";
    let last: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row([millis_ago(kept)], |row| row.get(0))?;
    Ok(last.map(to_revision))
}

/// Deletes the tombstones of all commits up to the last old one, and stores its revision,
/// so that readers that need them load all records instead. Both happen in the caller's
/// transaction, so no reader sees one without the other.
pub(super) fn prune(connection: &Connection, kept: Duration) -> Result<(), Failure> {
    let Some(last) = last_old(connection, kept)? else {
        return Ok(());
    };
    connection
        .prepare_cached("DELETE FROM persistify_tombstones WHERE revision <= ?1")?
        .execute([from_revision(last)?])?;
    meta::set_revision(connection, meta::PRUNED_TO, last)
}

/// The tombstone in a row of a load of changes.
pub(super) fn record(row: &Row<'_>, map: &MapName) -> Result<Record, Failure> {
    let (cause, writer): (String, String) = (row.get(6)?, row.get(7)?);
    let deletion = cause_of(&cause).zip(u128::from_str_radix(&writer, 16).ok());
    let Some((cause, writer)) = deletion else {
        let message = format!("a tombstone has the cause {cause:?} and the writer {writer:?}");
        return Err(Error::new(ErrorKind::Corrupt, message).on_map(map).into());
    };
    let deletion = Deletion::new(cause, WriterId::new(writer));
    let revision = to_revision(row.get(3)?);
    let record = Record::deleted(row.get::<_, Arc<str>>(0)?, revision, deletion);
    Ok(record.with_updated_at(Some(from_millis(row.get(2)?))))
}

const fn name_of(cause: Cause) -> &'static str {
    match cause {
        Cause::Removed => "removed",
        Cause::Expired => "expired",
    }
}

fn cause_of(name: &str) -> Option<Cause> {
    let mut all = [Cause::Removed, Cause::Expired].into_iter();
    all.find(|cause| name_of(*cause) == name)
}
