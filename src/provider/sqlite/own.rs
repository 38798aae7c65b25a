//! How entries are written to a table that was made here.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params};

use super::{
    errors::{Fault, is_about_the_row},
    rows::{to_millis, value_to},
    table::Table,
};
use crate::{
    batch::{Change, Op},
    record::Payload,
};

/// How many entries a statement puts. To begin and end one costs a fifth of
/// what a row does; measured, twice as many gain little more.
const TOGETHER: usize = 32;

/// The statements for one batch. A put looks for nothing first: that, and
/// putting many with one statement, is what makes it as fast as a loop by hand.
pub(super) struct OwnTable<'c> {
    connection: &'c Connection,
    table: &'c Table,
    at: i64,
    revision: i64,
    alone: Puts<'c>,
    /// Not made for a batch that has no use for it.
    together: Option<Puts<'c>>,
    touch: CachedStatement<'c>,
    delete: CachedStatement<'c>,
}

/// An entry to put.
struct Put<'b> {
    key: &'b Arc<str>,
    payload: &'b Payload,
    expires_at: Option<i64>,
}

impl<'c> OwnTable<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        table: &'c Table,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let Table { name, key, .. } = table;
        let touch =
            format!("UPDATE {name} AS t SET expires_at = ?2, revision = ?3 WHERE t.{key} = ?1");
        let delete = format!("DELETE FROM {name} AS t WHERE t.{key} = ?1");
        Ok(Self {
            connection,
            table,
            at,
            revision,
            alone: Puts::new(connection, table, 1, at, revision)?,
            together: None,
            touch: connection.prepare_cached(&touch)?,
            delete: connection.prepare_cached(&delete)?,
        })
    }

    /// Writes these changes, the puts among them in groups.
    pub(super) fn write<'b>(
        &mut self,
        changes: impl Iterator<Item = &'b Change>,
    ) -> Result<(), Fault> {
        let mut puts = Vec::with_capacity(TOGETHER);
        for Change { key, op, .. } in changes {
            match op {
                Op::Put {
                    payload,
                    expires_at,
                } => puts.push(Put {
                    key,
                    payload,
                    expires_at: expires_at.map(to_millis),
                }),
                Op::Touch { expires_at } => self.touch(key, expires_at.map(to_millis))?,
                Op::Delete => self.delete(key)?,
            }
            if puts.len() == TOGETHER {
                self.put_together(&puts)?;
                puts.clear();
            }
        }
        puts.iter().try_for_each(|put| self.put_alone(put))
    }

    fn put_together(&mut self, puts: &[Put<'_>]) -> Result<(), Fault> {
        let (connection, table) = (self.connection, self.table);
        let together = match &mut self.together {
            Some(together) => together,
            none => none.insert(Puts::new(
                connection,
                table,
                TOGETHER,
                self.at,
                self.revision,
            )?),
        };
        match together.put(puts) {
            // A rule of the table that ended the transaction: what came next
            // would be committed by itself.
            Err(cause) if connection.is_autocommit() => Err(Fault::Commit(cause)),
            // One by one, which tells whose fault it is. Those that are in the
            // table already are put once more.
            Err(cause) if is_about_the_row(&cause) => {
                puts.iter().try_for_each(|put| self.put_alone(put))
            }
            done => Ok(done?),
        }
    }

    fn put_alone(&mut self, put: &Put<'_>) -> Result<(), Fault> {
        let done = self.alone.put(std::slice::from_ref(put));
        self.on_key(put.key, done)
    }

    fn touch(&mut self, key: &Arc<str>, expires_at: Option<i64>) -> Result<(), Fault> {
        let parameters = params![key, expires_at, self.revision];
        let done = self.touch.execute(parameters);
        self.on_key(key, done.map(drop))
    }

    fn delete(&mut self, key: &Arc<str>) -> Result<(), Fault> {
        let done = self.delete.execute([key]);
        self.on_key(key, done.map(drop))
    }

    fn on_key(&self, key: &Arc<str>, done: rusqlite::Result<()>) -> Result<(), Fault> {
        done.map_err(|cause| Fault::from(cause).on_key(&self.table.map, key))
    }
}

/// One statement that puts so many entries.
struct Puts<'c> {
    statement: CachedStatement<'c>,
}

/// What is the same for all entries of a batch: `?1` is the time, `?2` the
/// revision.
const SHARED: usize = 2;
/// What differs: key, value, expiry, schema.
const OWN: usize = 4;

impl<'c> Puts<'c> {
    fn new(
        connection: &'c Connection,
        table: &Table,
        count: usize,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(&sql(table, count))?;
        // What is bound stays for all that the statement puts.
        statement.raw_bind_parameter(1, at)?;
        statement.raw_bind_parameter(2, revision)?;
        Ok(Self { statement })
    }

    fn put(&mut self, puts: &[Put<'_>]) -> rusqlite::Result<()> {
        for (n, put) in puts.iter().enumerate() {
            let first = SHARED + n * OWN;
            self.statement.raw_bind_parameter(first + 1, &**put.key)?;
            self.statement
                .raw_bind_parameter(first + 2, value_to(&put.payload.bytes))?;
            self.statement
                .raw_bind_parameter(first + 3, put.expires_at)?;
            self.statement
                .raw_bind_parameter(first + 4, put.payload.schema)?;
        }
        self.statement.raw_execute().map(drop)
    }
}

fn sql(table: &Table, count: usize) -> String {
    let Table {
        name,
        key,
        value,
        updated_at,
        ..
    } = table;
    let row = |n| {
        let first = SHARED + n * OWN;
        let [key, value, expires_at, schema] = [1, 2, 3, 4].map(|n| first + n);
        format!("(?{key}, ?{value}, ?1, ?2, ?{expires_at}, ?{schema})")
    };
    let rows: Vec<_> = (0..count).map(row).collect();
    // `OR FAIL`: else SQLite would keep a copy of each page for the case that
    // it has to undo half a statement, where all of the batch is undone.
    format!(
        "INSERT OR FAIL INTO {name} ({key}, {value}, {updated_at}, revision, expires_at, schema)
         VALUES {}
         ON CONFLICT ({key}) DO UPDATE SET
            {value} = excluded.{value}, {updated_at} = excluded.{updated_at},
            revision = excluded.revision, expires_at = excluded.expires_at,
            schema = excluded.schema",
        rows.join(", ")
    )
}
