//! How entries are written to a table that was made here.

use rusqlite::{CachedStatement, Connection, params};

use super::{errors::Fault, rows::value_to, table::Table, write::Target};
use crate::{error::Result, record::Payload};

/// The statements for one batch. A put is a single one, and looks for nothing
/// first: that is what makes it as fast as a loop by hand.
pub(super) struct OwnTable<'c> {
    put: CachedStatement<'c>,
    touch: CachedStatement<'c>,
    delete: CachedStatement<'c>,
    revision: i64,
    at: i64,
    /// The time that is bound.
    bound: i64,
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
        let mut own = Self {
            put: connection.prepare_cached(&put)?,
            touch: connection.prepare_cached(&touch)?,
            delete: connection
                .prepare_cached(&format!("DELETE FROM {name} AS t WHERE t.{key} = ?1"))?,
            revision,
            at,
            bound: at,
        };
        // What is the same for all rows is bound once, and stays.
        own.put.raw_bind_parameter(3, at)?;
        own.put.raw_bind_parameter(4, revision)?;
        Ok(own)
    }
}

impl Target for OwnTable<'_> {
    fn put(
        &mut self,
        key: &str,
        payload: &Payload,
        expires_at: Option<i64>,
        written_at: Option<i64>,
    ) -> Result<(), Fault> {
        let at = written_at.unwrap_or(self.at);
        if at != self.bound {
            self.put.raw_bind_parameter(3, at)?;
            self.bound = at;
        }
        self.put.raw_bind_parameter(1, key)?;
        self.put.raw_bind_parameter(2, value_to(&payload.bytes))?;
        self.put.raw_bind_parameter(5, expires_at)?;
        self.put.raw_bind_parameter(6, payload.schema)?;
        self.put.raw_execute()?;
        Ok(())
    }

    fn touch(&mut self, key: &str, expires_at: Option<i64>) -> Result<(), Fault> {
        self.touch
            .execute(params![key, expires_at, self.revision])?;
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Fault> {
        self.delete.execute([key])?;
        Ok(())
    }
}
