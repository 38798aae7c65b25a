//! How entries are written to a table of another program.

use rusqlite::{CachedStatement, Connection, params, types::Value};

use super::{
    errors::Fault,
    inspect::Holds,
    noted::{Note, digest_of},
    rows::{to_millis, value_to},
    table::{Adopted, Table},
    time::Time,
};
use crate::{
    batch::{Change, Op},
    error::{Error, ErrorKind, Result},
    record::Payload,
};

/// The statements for one batch.
pub(super) struct AdoptedTable<'c> {
    connection: &'c Connection,
    table: &'c Table,
    put: CachedStatement<'c>,
    delete: CachedStatement<'c>,
    forget: CachedStatement<'c>,
    note: Note<'c>,
    time: Time,
    /// `None` if the table does not keep it.
    at: Option<Value>,
    /// What stands in the table by then may be something else.
    has_trigger: bool,
}

impl<'c> AdoptedTable<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        table: &'c Table,
        adopted: &Adopted,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let (name, companion) = (&table.name, &adopted.companion);
        let delete = format!(
            "DELETE FROM {name} AS t WHERE {} = ?1",
            table.key_by_bytes()
        );
        let forget = format!("DELETE FROM {companion} WHERE key = ?1");
        let at = match adopted.time {
            Time::Missing => None,
            kept => Some(kept.written(connection, at)?),
        };
        Ok(Self {
            connection,
            table,
            put: connection.prepare_cached(&put(table, adopted.values, at.is_some()))?,
            delete: connection.prepare_cached(&delete)?,
            forget: connection.prepare_cached(&forget)?,
            note: Note::new(connection, companion, revision)?,
            time: adopted.time,
            at,
            has_trigger: table.has_trigger(connection)?,
        })
    }

    /// What the row says of when it was written.
    fn written(&self, at: Option<i64>) -> rusqlite::Result<Option<Value>> {
        match (&self.at, at) {
            (Some(_), Some(at)) => self.time.written(self.connection, at).map(Some),
            (of_batch, _) => Ok(of_batch.clone()),
        }
    }
}

/// An upsert, and not a replacement: the other columns keep their values. It
/// is the same key only if its bytes are, whatever another index takes it for. A
/// value that its program stored as text or as bytes is stored as that again: one
/// that reads the other may not take it.
fn put(table: &Table, values: Holds, with_time: bool) -> String {
    let Table {
        name,
        key,
        value,
        updated_at,
        ..
    } = table;
    let new = match values {
        Holds::Text => "?2",
        Holds::Bytes => "CAST(?2 AS BLOB)",
    };
    let again = format!(
        "{value} = CASE typeof({name}.{value}) WHEN 'blob' THEN CAST(?2 AS BLOB)
            WHEN 'text' THEN ?2 ELSE excluded.{value} END"
    );
    if with_time {
        format!(
            "INSERT INTO {name} ({key}, {value}, {updated_at}) VALUES (?1, {new}, ?3)
             ON CONFLICT ({key} COLLATE BINARY) DO UPDATE SET
                {again}, {updated_at} = excluded.{updated_at}"
        )
    } else {
        format!(
            "INSERT INTO {name} ({key}, {value}) VALUES (?1, {new})
             ON CONFLICT ({key} COLLATE BINARY) DO UPDATE SET {again}"
        )
    }
}

impl AdoptedTable<'_> {
    /// Writes these changes, one by one.
    pub(super) fn write(&mut self, changes: &[&Change]) -> Result<(), Fault> {
        let map = &self.table.map;
        changes.iter().try_for_each(|change| {
            let done = self.change(change);
            done.map_err(|fault| fault.on_key(map, &change.key))
        })
    }

    fn change(&mut self, change: &Change) -> Result<(), Fault> {
        let key = &change.key;
        match &change.op {
            Op::Put {
                payload,
                expires_at,
            } => {
                let (expires_at, written_at) = (expires_at.map(to_millis), change.written_at);
                self.put(key, payload, expires_at, written_at.map(to_millis))
            }
            Op::Touch { expires_at } => self.touch(key, expires_at.map(to_millis)),
            Op::Delete => self.delete(key),
        }
    }

    /// `written_at` is of the value, if it is not of the batch.
    fn put(
        &mut self,
        key: &str,
        payload: &Payload,
        expires_at: Option<i64>,
        written_at: Option<i64>,
    ) -> Result<(), Fault> {
        let value = value_to(&payload.bytes);
        let put = match self.written(written_at)? {
            Some(at) => self.put.execute(params![key, value, at])?,
            None => self.put.execute(params![key, value])?,
        };
        if put == 0 {
            return Err(self.left_out(key).into());
        }
        let digest = if self.has_trigger {
            let stored = self.table.row(self.connection, key)?;
            digest_of(&stored.ok_or_else(|| self.left_out(key))?.value)
        } else {
            digest_of(&payload.bytes)
        };
        self.note.add(key, expires_at, payload.schema, digest)?;
        Ok(())
    }

    fn touch(&mut self, key: &str, expires_at: Option<i64>) -> Result<(), Fault> {
        let Some(stored) = self.table.row(self.connection, key)? else {
            return self.delete(key);
        };
        let digest = digest_of(&stored.value);
        let known = stored.digest == Some(digest);
        let schema = stored.schema.filter(|_| known).unwrap_or_default();
        self.note.add(key, expires_at, schema, digest)?;
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Fault> {
        let deleted = self.delete.execute([key])?;
        if deleted == 0 && self.table.row(self.connection, key)?.is_some() {
            return Err(self.left_out(key).into());
        }
        self.forget.execute([key])?;
        Ok(())
    }

    /// What is not in the table must not count as saved.
    fn left_out(&self, key: &str) -> Error {
        let message = format!(
            "the table {} leaves this change out, by a trigger or a rule of its own",
            self.table.name
        );
        Error::new(ErrorKind::Refused, message)
            .on_map(&self.table.map)
            .on_keys([key.into()])
            .nothing_applied()
    }
}
