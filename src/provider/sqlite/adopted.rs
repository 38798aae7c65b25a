//! Adopted tables: writing entries to them, and noting the writes of the other program.

use rusqlite::{CachedStatement, Connection, ToSql, params};

use super::{
    errors::Failure,
    inspection::Holds,
    meta,
    rows::cell_of,
    table::{Adopted, Table},
    times::{Time, to_millis},
};
use crate::{
    batch::{Change, Op},
    error::{Error, ErrorKind, Result},
    load::Wanted,
    provider::sql::numbers::{from_revision, revision_now},
    record::{Payload, Revision},
};

/// The statements for one batch.
pub(super) struct AdoptedTable<'c> {
    connection: &'c Connection,
    table: &'c Table,
    adopted: &'c Adopted,
    at: i64,
    revision: i64,
    put: CachedStatement<'c>,
    note: CachedStatement<'c>,
    touch: CachedStatement<'c>,
    delete: CachedStatement<'c>,
    forget: CachedStatement<'c>,
}

impl<'c> AdoptedTable<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        table: &'c Table,
        adopted: &'c Adopted,
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let companion = &adopted.companion;
        let (name, key) = (&table.name, table.key_by_bytes());
        // Notes the value as it is in the table after the write: a trigger may have
        // changed it.
        let note = companion.note(&format!(
            "SELECT {}, ?2, ?3, ?4, {} FROM {name} AS t WHERE {key} = ?1",
            companion.key, companion.digest
        ));
        let touch = companion.note(&format!(
            "SELECT {}, ?2, ?3, coalesce(c.schema, 0), {} FROM {} WHERE {key} = ?1",
            companion.key,
            companion.digest,
            companion.joined()
        ));
        let delete = format!("DELETE FROM {name} AS t WHERE {key} = ?1");
        let forget = format!("DELETE FROM {} WHERE key = ?1", companion.name);
        Ok(Self {
            connection,
            table,
            adopted,
            at,
            revision,
            put: connection.prepare_cached(&put(table, adopted))?,
            note: connection.prepare_cached(&note)?,
            touch: connection.prepare_cached(&touch)?,
            delete: connection.prepare_cached(&delete)?,
            forget: connection.prepare_cached(&forget)?,
        })
    }

    pub(super) fn write(&mut self, change: &Change) -> Result<(), Failure> {
        let key = &change.key;
        match &change.op {
            Op::Put {
                payload,
                expires_at,
            } => {
                let at = change.written_at.map_or(self.at, to_millis);
                self.put(key, payload, at, expires_at.map(to_millis))
            }
            Op::Touch { expires_at } => {
                let expires_at = expires_at.map(to_millis);
                self.touch
                    .execute(params![key, self.revision, expires_at])?;
                Ok(())
            }
            Op::Delete => self.delete(key),
        }
    }

    fn put(
        &mut self,
        key: &str,
        payload: &Payload,
        at: i64,
        expires_at: Option<i64>,
    ) -> Result<(), Failure> {
        let value = cell_of(payload)?;
        let put = match self.adopted.time.written(self.connection, at)? {
            Some(at) => self.put.execute(params![key, value, at])?,
            None => self.put.execute(params![key, value])?,
        };
        let noted = params![key, self.revision, expires_at, payload.schema];
        let noted = self.note.execute(noted)?;
        if put == 0 || noted == 0 {
            return Err(self.ignored().into());
        }
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Failure> {
        let deleted = self.delete.execute([key])?;
        if deleted == 0 {
            let left = self.table.record(self.connection, key, Revision::ZERO)?;
            if left.is_some() {
                return Err(self.ignored().into());
            }
        }
        self.forget.execute([key])?;
        Ok(())
    }

    /// A change that the table ignores must not count as saved.
    fn ignored(&self) -> Error {
        let message = format!(
            "the table {} ignores this change, because of a trigger or a constraint of its own",
            self.table.name
        );
        Error::new(ErrorKind::Refused, message).nothing_applied()
    }
}

/// An upsert rather than a replacement, so that other columns keep their values. Keys are
/// equal only if their bytes are, even if another index compares them differently. A value
/// that its program stored as text or as a blob keeps that type: the program may not be
/// able to read the other.
fn put(table: &Table, adopted: &Adopted) -> String {
    let Table {
        name,
        key,
        value,
        updated_at,
        ..
    } = table;
    let new = match adopted.values {
        Holds::Text => "?2",
        Holds::Bytes => "CAST(?2 AS BLOB)",
    };
    let keeps_time = adopted.time != Time::Missing;
    let [column, at, set] = if keeps_time {
        [
            format!(", {updated_at}"),
            ", ?3".to_owned(),
            format!(", {updated_at} = excluded.{updated_at}"),
        ]
    } else {
        [const { String::new() }; 3]
    };
    format!(
        "INSERT INTO {name} ({key}, {value}{column}) VALUES (?1, {new}{at})
         ON CONFLICT ({key} COLLATE BINARY) DO UPDATE SET
            {value} = CASE typeof({name}.{value}) WHEN 'blob' THEN CAST(?2 AS BLOB)
                WHEN 'text' THEN ?2 ELSE excluded.{value} END{set}"
    )
}

/// A selection of rows of an adopted table: a condition, and the key that is its `$1`.
struct Rows<'w> {
    within: Option<String>,
    key: Option<&'w str>,
}

impl Rows<'_> {
    fn parameters(&self) -> Vec<&dyn ToSql> {
        let key = self.key.as_ref();
        key.map(|key| key as &dyn ToSql).into_iter().collect()
    }
}

impl Adopted {
    /// The rows that a load reads, whose new writes it has to note first.
    fn rows_of<'w>(&self, wanted: &'w Wanted) -> Vec<Rows<'w>> {
        match wanted {
            Wanted::Keys(keys) => keys.iter().map(|key| self.row_of(key)).collect(),
            Wanted::Page { after, limit } => {
                let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
                let within = self.companion.is_on_page(after.is_some(), limit);
                vec![Rows {
                    within: Some(within),
                    key: after.as_deref(),
                }]
            }
            Wanted::All | Wanted::Changed { .. } => vec![Rows {
                within: None,
                key: None,
            }],
        }
    }

    fn row_of<'w>(&self, key: &'w str) -> Rows<'w> {
        Rows {
            within: Some(format!("{} = $1", self.companion.key_by_bytes)),
            key: Some(key),
        }
    }

    /// Whether the other program wrote rows that a load has to note first.
    pub(super) fn any_new(
        &self,
        connection: &Connection,
        wanted: &Wanted,
    ) -> Result<bool, Failure> {
        for rows in self.rows_of(wanted) {
            let sql = self.companion.any_new(rows.within.as_deref());
            let mut statement = connection.prepare_cached(&sql)?;
            if statement.query_row(&*rows.parameters(), |row| row.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn note(
        &self,
        connection: &Connection,
        rows: &Rows<'_>,
        revision: i64,
    ) -> Result<bool, Failure> {
        let sql = self.companion.note_new(rows.within.as_deref(), revision);
        let mut noted = connection.execute(&sql, &*rows.parameters())?;
        if rows.within.is_none() {
            noted += connection.execute(&self.companion.forget_deleted(), [])?;
        }
        Ok(noted > 0)
    }

    /// Notes the row of a key if the other program wrote it, and returns whether it did.
    pub(super) fn note_row(
        &self,
        connection: &Connection,
        key: &str,
        revision: Revision,
    ) -> Result<bool, Failure> {
        self.note(connection, &self.row_of(key), from_revision(revision)?)
    }
}

/// Notes the writes of the other program that a load reads.
pub(super) fn note_before_load(
    connection: &Connection,
    adopted: &Adopted,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let revision = revision_now(meta::last_revision(connection)?);
    for rows in adopted.rows_of(wanted) {
        adopted.note(connection, &rows, from_revision(revision)?)?;
    }
    meta::set_revision(connection, meta::LAST, revision)
}
