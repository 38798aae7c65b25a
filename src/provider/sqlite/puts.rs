//! The statement that puts entries into a table that was made here.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection};

use super::{rows::value_to, table::Table};
use crate::record::Payload;

/// What is the same for all entries of a batch: `?1` is the time of writing,
/// `?2` the revision.
const SHARED: usize = 2;

/// What each entry has of its own: key, value, expiry, schema.
const OWN: usize = 4;

/// An entry to put.
pub(super) struct Put<'b> {
    pub(super) key: &'b Arc<str>,
    pub(super) payload: &'b Payload,
    pub(super) expires_at: Option<i64>,
}

/// A statement that puts a number of entries. It looks for nothing first:
/// that makes it as fast as a loop by hand.
pub(super) struct Puts<'c> {
    statement: CachedStatement<'c>,
    at: i64,
    /// Expiry and schema as they are bound for each entry. Mostly all are
    /// alike, and need not be bound again.
    bound: Vec<(Option<i64>, u32)>,
}

impl<'c> Puts<'c> {
    /// Puts one entry.
    pub(super) fn one(
        connection: &'c Connection,
        table: &Table,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        Self::new(connection, "INSERT", table, 1, at, revision)
    }

    /// Puts so many. If it fails, some of them may have been put: else SQLite
    /// would keep a copy of every page that it changes.
    pub(super) fn many(
        connection: &'c Connection,
        table: &Table,
        count: usize,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        Self::new(connection, "INSERT OR FAIL", table, count, at, revision)
    }

    fn new(
        connection: &'c Connection,
        insert: &str,
        table: &Table,
        count: usize,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(&sql(insert, table, count))?;
        // Bound once, it stays for all that is put.
        statement.raw_bind_parameter(1, at)?;
        statement.raw_bind_parameter(2, revision)?;
        let usual = (None, 0);
        for n in 0..count {
            bind_expiry_and_schema(&mut statement, n, usual)?;
        }
        let bound = vec![usual; count];
        Ok(Self {
            statement,
            at,
            bound,
        })
    }

    /// Puts one that was written at another time than the batch.
    pub(super) fn put_at(&mut self, put: &Put<'_>, written_at: i64) -> rusqlite::Result<()> {
        self.statement.raw_bind_parameter(1, written_at)?;
        let done = self.put(std::slice::from_ref(put));
        self.statement.raw_bind_parameter(1, self.at)?;
        done
    }

    /// Puts these, which are as many as it was made for.
    pub(super) fn put(&mut self, puts: &[Put<'_>]) -> rusqlite::Result<()> {
        let statement = &mut self.statement;
        for ((n, put), bound) in puts.iter().enumerate().zip(&mut self.bound) {
            let [key, value, ..] = numbers(n);
            statement.raw_bind_parameter(key, &**put.key)?;
            statement.raw_bind_parameter(value, value_to(&put.payload.bytes))?;
            let wanted = (put.expires_at, put.payload.schema);
            if *bound != wanted {
                bind_expiry_and_schema(statement, n, wanted)?;
                *bound = wanted;
            }
        }
        statement.raw_execute().map(drop)
    }
}

fn bind_expiry_and_schema(
    statement: &mut CachedStatement<'_>,
    entry: usize,
    (expires_at, schema): (Option<i64>, u32),
) -> rusqlite::Result<()> {
    let [.., expiry_number, schema_number] = numbers(entry);
    statement.raw_bind_parameter(expiry_number, expires_at)?;
    statement.raw_bind_parameter(schema_number, schema)
}

/// The numbers of the parameters of an entry.
fn numbers(entry: usize) -> [usize; OWN] {
    let first = SHARED + entry * OWN + 1;
    std::array::from_fn(|n| first + n)
}

fn sql(insert: &str, table: &Table, count: usize) -> String {
    let Table {
        name,
        key,
        value,
        updated_at,
        ..
    } = table;
    let row = |n| {
        let [key, value, expires_at, schema] = numbers(n);
        format!("(?{key}, ?{value}, ?1, ?2, ?{expires_at}, ?{schema})")
    };
    let rows: Vec<_> = (0..count).map(row).collect();
    format!(
        "{insert} INTO {name} ({key}, {value}, {updated_at}, revision, expires_at, schema)
         VALUES {}
         ON CONFLICT ({key}) DO UPDATE SET
            {value} = excluded.{value}, {updated_at} = excluded.{updated_at},
            revision = excluded.revision, expires_at = excluded.expires_at,
            schema = excluded.schema",
        rows.join(", ")
    )
}
