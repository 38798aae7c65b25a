//! How entries are written to a table that was made here.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params};

use super::{
    errors::{Fault, is_about_the_row},
    puts::{Put, Puts},
    rows::to_millis,
    table::Table,
};
use crate::{
    batch::{Change, Op},
    error::Result,
};

/// How many entries are put with one statement. Measured: a fifth less time a
/// row than one by one; twice as many gain no more.
const TOGETHER: usize = 32;

/// The statements for one batch.
pub(super) struct OwnTable<'c> {
    table: &'c Table,
    one: Puts<'c>,
    many: Option<Puts<'c>>,
    touch: CachedStatement<'c>,
    delete: CachedStatement<'c>,
    revision: i64,
}

impl<'c> OwnTable<'c> {
    /// For so many changes.
    pub(super) fn new(
        connection: &'c Connection,
        table: &'c Table,
        at: i64,
        revision: i64,
        changes: usize,
    ) -> rusqlite::Result<Self> {
        let Table { name, key, .. } = table;
        let touch =
            format!("UPDATE {name} AS t SET expires_at = ?2, revision = ?3 WHERE t.{key} = ?1");
        let delete = format!("DELETE FROM {name} AS t WHERE t.{key} = ?1");
        // Putting many would change what a trigger's own statements do.
        let many = changes >= TOGETHER && !table.has_trigger(connection)?;
        let many = many.then(|| Puts::many(connection, table, TOGETHER, at, revision));
        Ok(Self {
            table,
            one: Puts::one(connection, table, at, revision)?,
            many: many.transpose()?,
            touch: connection.prepare_cached(&touch)?,
            delete: connection.prepare_cached(&delete)?,
            revision,
        })
    }

    /// Writes these changes, in whatever order.
    pub(super) fn write(&mut self, changes: &[&Change]) -> Result<(), Fault> {
        let mut puts = Vec::with_capacity(TOGETHER);
        for change in changes {
            let key = &change.key;
            match &change.op {
                Op::Put {
                    payload,
                    expires_at,
                } => {
                    let put = Put {
                        key,
                        payload,
                        expires_at: expires_at.map(to_millis),
                    };
                    match change.written_at {
                        Some(at) => self.put_at(&put, to_millis(at))?,
                        None => puts.push(put),
                    }
                }
                Op::Touch { expires_at } => self.touch(key, expires_at.map(to_millis))?,
                Op::Delete => self.delete(key)?,
            }
            if puts.len() == TOGETHER {
                self.put_many(&puts)?;
                puts.clear();
            }
        }
        self.put_each(&puts)
    }

    fn put_many(&mut self, puts: &[Put<'_>]) -> Result<(), Fault> {
        let Some(many) = &mut self.many else {
            return self.put_each(puts);
        };
        match many.put(puts) {
            // One by one, which tells whose fault it is. Those that were put
            // already are put once more.
            Err(cause) if is_about_the_row(&cause) => self.put_each(puts),
            done => Ok(done?),
        }
    }

    fn put_each(&mut self, puts: &[Put<'_>]) -> Result<(), Fault> {
        for put in puts {
            let done = self.one.put(std::slice::from_ref(put));
            self.on_key(put.key, done)?;
        }
        Ok(())
    }

    /// One that was written at another time than the others.
    fn put_at(&mut self, put: &Put<'_>, written_at: i64) -> Result<(), Fault> {
        let done = self.one.put_at(put, written_at);
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
