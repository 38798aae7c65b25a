//! The format of a file: creating its tables, and upgrading those of an earlier version.

use rusqlite::{Connection, Transaction};

use super::{
    builder::Options,
    errors::Failure,
    meta,
    schema::{self, adopt, begin, check_location, has_table, location},
    tombstones, writers,
};
use crate::{
    error::{Error, ErrorKind},
    incarnation::Incarnation,
};

/// The format of the tables that this version writes and reads.
///
/// Format 1 had no tombstones, and a separate table for skipped changes.
pub(super) const FORMAT: i64 = 2;

/// Creates or upgrades the tables. If several processes open the file at once, the first
/// one does it.
pub(super) fn prepare(connection: &mut Connection, options: &Options) -> Result<(), Failure> {
    // Most files are ready, and opening them does not wait for other writers.
    if is_ready(connection, options)? {
        return Ok(());
    }
    let transaction = begin(connection)?;
    match format(&transaction)? {
        None => create(&transaction)?,
        Some(FORMAT) => {}
        Some(_) => upgrade(&transaction)?,
    }
    meta::set_number(&transaction, "format", FORMAT)?;
    if meta::incarnation(&transaction)?.is_none() {
        meta::set_incarnation(&transaction, Incarnation::random())?;
    }
    for (map, table) in &options.adopted {
        adopt(&transaction, map, table)?;
    }
    transaction.commit().map_err(Failure::on_commit)
}

fn is_ready(connection: &Connection, options: &Options) -> Result<bool, Failure> {
    if format(connection)? != Some(FORMAT) || meta::incarnation(connection)?.is_none() {
        return Ok(false);
    }
    for (map, table) in &options.adopted {
        let Some(location) = location(connection, map)? else {
            return Ok(false);
        };
        check_location(map, &location, table)?;
    }
    Ok(true)
}

fn create(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for tables in [
        meta::CREATE,
        schema::CREATE,
        writers::CREATE,
        tombstones::CREATE,
    ] {
        transaction.execute_batch(tables)?;
    }
    Ok(())
}

/// Upgrades a file of format 1.
///
/// Earlier deletions are unknown, so they count as pruned: a reader that knows an earlier
/// revision has to load all records. Skipped changes are remembered only for maps that are
/// still open in the earlier version, and dropping their table stops these: every commit of
/// that version writes to it. So no entry is deleted without a tombstone from now on.
fn upgrade(transaction: &Transaction<'_>) -> Result<(), Failure> {
    transaction.execute_batch(tombstones::CREATE)?;
    transaction.execute_batch(
        "ALTER TABLE persistify_writers ADD COLUMN skipped TEXT;
         DROP TABLE persistify_skipped",
    )?;
    let last = meta::last_revision(transaction)?;
    meta::set_revision(transaction, meta::PRUNED_TO, last)
}

/// The format of the file; `None` if it has no tables of this library.
pub(super) fn format(connection: &Connection) -> Result<Option<i64>, Failure> {
    if !has_table(connection, "persistify_meta")? {
        return Ok(None);
    }
    let format = meta::number(connection, "format")?.unwrap_or_default();
    if format > FORMAT {
        let message = format!(
            "the SQLite file was written in format {format}, by a later version of this library; this one knows formats up to {FORMAT}: update the program"
        );
        return Err(Error::new(ErrorKind::Unusable, message).into());
    }
    Ok(Some(format))
}
