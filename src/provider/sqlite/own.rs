//! How entries are written to a table that was made here.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params};

use super::{errors::Failure, rows::cell_of, table::Table, times::to_millis};
use crate::{
    batch::{Change, Op},
    error::Result,
};

/// The statements for one batch.
pub(super) struct OwnTable<'c> {
    at: i64,
    revision: i64,
    put: CachedStatement<'c>,
    touch: CachedStatement<'c>,
    delete: CachedStatement<'c>,
}

impl<'c> OwnTable<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        table: &Table,
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
        let delete = format!("DELETE FROM {name} AS t WHERE t.{key} = ?1");
        Ok(Self {
            at,
            revision,
            put: connection.prepare_cached(&put)?,
            touch: connection.prepare_cached(&touch)?,
            delete: connection.prepare_cached(&delete)?,
        })
    }

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
            Op::Delete => self.delete.execute([key]),
        };
        written?;
        Ok(())
    }
}
