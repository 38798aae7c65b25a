//! Writing entries to a map's own table.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params};

use super::{errors::Failure, rows::cell_of, table::Table, times::to_millis, tombstones};
use crate::{
    batch::{Change, Op, WriterId},
    error::Result,
    record::Cause,
};

/// The statements for one batch.
pub(super) struct OwnTable<'c> {
    connection: &'c Connection,
    table: &'c Table,
    writer: WriterId,
    at: i64,
    revision: i64,
    put: CachedStatement<'c>,
    touch: CachedStatement<'c>,
}

impl<'c> OwnTable<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        table: &'c Table,
        writer: WriterId,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let Table {
            name,
            key,
            value,
            updated_at,
            ..
        } = table;
        let put = format!(
            "INSERT INTO {name} ({key}, {value}, {updated_at}, revision, expires_at, schema)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT ({key}) DO UPDATE SET
                {value} = excluded.{value}, {updated_at} = excluded.{updated_at},
                revision = excluded.revision, expires_at = excluded.expires_at,
                schema = excluded.schema"
        );
        let touch =
            format!("UPDATE {name} AS t SET expires_at = ?2, revision = ?3 WHERE t.{key} = ?1");
        Ok(Self {
            connection,
            table,
            writer,
            at,
            revision,
            put: connection.prepare_cached(&put)?,
            touch: connection.prepare_cached(&touch)?,
        })
    }

    /// Writes a change; deletions are left to [`delete`](Self::delete).
    pub(super) fn write(&mut self, change: &Change) -> Result<(), Failure> {
        let key: &Arc<str> = &change.key;
        let written = match &change.op {
            Op::Put {
                payload,
                expires_at,
            } => self.put.execute(params![
                key,
                cell_of(payload)?,
                change.written_at.map_or(self.at, to_millis),
                self.revision,
                expires_at.map(to_millis),
                payload.schema,
            ]),
            Op::Touch { expires_at } => {
                let expires_at = expires_at.map(to_millis);
                self.touch.execute(params![key, expires_at, self.revision])
            }
            Op::Delete => return Ok(()),
        };
        written?;
        Ok(())
    }

    /// Applies the deletions among these changes, many per statement.
    pub(super) fn delete(&self, changes: &[&Change]) -> Result<(), Failure> {
        for cause in [Cause::Removed, Cause::Expired] {
            let is_one = |change: &&&Change| change.op == Op::Delete && change.cause == cause;
            let keys: Vec<_> = changes.iter().filter(is_one).map(|c| &c.key).collect();
            let (connection, to) = (self.connection, (self.revision, self.at));
            tombstones::delete(connection, self.table, &keys, to, cause, self.writer)?;
        }
        Ok(())
    }
}
