//! Loads of changes: rows and tombstones, in the order of their revisions.
//!
//! They are found by an index of the revisions, which the first load of changes creates.
//! Maps without followers do not pay for it: it makes a commit of 1,000 rows a sixth
//! slower for overwritten rows, and by half for new rows. Creating it blocks commits to
//! the map once, for about a second per million rows. `CONCURRENTLY` would not block them,
//! but it waits for the transactions of all other programs, and if it is interrupted, it
//! leaves an unused index behind that still costs.

use super::{
    Shared,
    catalog::{self, Entry},
    errors::Failure,
    sessions::Session,
    statement::Statement,
    table::Table,
    tombstones::Tombstones,
    transaction,
};
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    provider::sql::numbers::{bound, to_revision},
    record::Revision,
};

/// The changes of a map after a revision, in one snapshot.
pub(super) struct Changed<'a> {
    pub(super) table: &'a Table,
    pub(super) tombstones: &'a Tombstones,
    pub(super) after: Revision,
}

impl Changed<'_> {
    /// The commit at which a load of this many records ends; `None` if there are fewer.
    pub(super) async fn end(
        &self,
        session: &Session,
        limit: usize,
    ) -> Result<Option<Revision>, Failure> {
        let Some(before_last) = limit.checked_sub(1).filter(|_| limit < usize::MAX) else {
            return Ok((limit == 0).then_some(self.after));
        };
        let Self {
            table, tombstones, ..
        } = self;
        let is_new = |row| self.is_new(row, None);
        let sql = format!(
            "SELECT t.revision FROM {} AS t WHERE {} UNION ALL SELECT d.revision FROM {}
             ORDER BY 1 OFFSET {before_last} LIMIT 1",
            table.name,
            is_new("t"),
            tombstones.of_missing_rows(table, &is_new("d")),
        );
        let found = session.row(&Statement::new(sql)).await?;
        let found = found.map(|row| row.try_get(0)).transpose()?;
        Ok(found.map(to_revision))
    }

    /// The query for the changes up to a commit, with the columns of
    /// [`Table::select`].
    pub(super) fn select(&self, end: Option<Revision>) -> String {
        let is_new = |row| self.is_new(row, end);
        format!(
            "{} UNION ALL
             SELECT d.key, d.long_key, NULL, d.at, d.revision, NULL, d.cause, d.writer FROM {}
             ORDER BY revision",
            self.table.select(&format!("WHERE {}", is_new("t"))),
            self.tombstones.of_missing_rows(self.table, &is_new("d")),
        )
    }

    fn is_new(&self, row: &str, end: Option<Revision>) -> String {
        let end = end.map(|end| format!(" AND {row}.revision <= {}", bound(end)));
        format!(
            "{row}.revision > {}{}",
            bound(self.after),
            end.unwrap_or_default()
        )
    }
}

/// Creates the index of the revisions if it is missing. Without it, loads of changes
/// read the whole table; so a user without the right to create it can still load.
pub(super) async fn make_index(shared: &Shared, map: &MapName) -> Result<(), Failure> {
    let session = shared.connections.session().await?;
    match make_index_locked(&session, shared, map).await {
        Ok(()) => session.end("COMMIT").await,
        Err(failure) => Err(session.abandon(failure.on_map(map)).await),
    }
}

/// Holds the lock of the counter, so that only one process creates the index.
async fn make_index_locked(
    session: &Session,
    shared: &Shared,
    map: &MapName,
) -> Result<(), Failure> {
    let options = &shared.options;
    session.begin(&transaction::begin(options)).await?;
    let Some(entry) = Entry::find(session, options, map, "FOR NO KEY UPDATE").await? else {
        return Ok(());
    };
    let sql = format!(
        "SELECT {} FROM {} WHERE id = {}",
        catalog::is_indexed(options),
        options.qualified("persistify_maps"),
        entry.id
    );
    let found = session.row(&Statement::new(sql)).await?;
    let is_indexed = found.map(|row| row.try_get(0)).transpose()?;
    if is_indexed.unwrap_or(true) {
        return Ok(());
    }
    let table = entry.table(options).name;
    let index = format!("CREATE INDEX ON {table} (revision)");
    session.batch(&index).await
}

/// The error for an adopted table: other programs delete from it without leaving
/// tombstones, so its changes are unknown.
pub(super) fn not_told(map: &MapName) -> Error {
    let message = "an adopted table does not tell its changes, because other programs may delete from it; load all of its records";
    Error::new(ErrorKind::Unsupported, message).on_map(map)
}
