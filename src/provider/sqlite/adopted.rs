//! Tables of other programs: what they must be like, and how what those
//! programs wrote is noticed.

use rusqlite::{CachedStatement, Connection, params, types::Value};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    builder::Columns,
    errors::Fault,
    read,
    rows::{Stored, revision_to, value_to},
    schema,
    table::Table,
    time::Time,
    write::{Target, revision_now},
};
use crate::{
    error::{Error, ErrorKind, Result},
    load::Wanted,
    name::MapName,
    record::Payload,
};

/// A column of a table, as SQLite describes it.
struct Column {
    name: String,
    declared: String,
    not_null: bool,
    has_default: bool,
    /// A row number, which SQLite gives out by itself.
    row_number: bool,
}

impl Column {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether text stays text in it, by SQLite's rules of type affinity.
    fn keeps_text(&self) -> bool {
        let declared = self.declared.to_ascii_uppercase();
        let holds = |part| declared.contains(part);
        let text = holds("CHAR") || holds("CLOB") || holds("TEXT") || holds("BLOB");
        !holds("INT") && (declared.is_empty() || text)
    }

    fn time(&self) -> Time {
        if self.declared.to_ascii_uppercase().contains("INT") {
            Time::Millis
        } else {
            Time::Text
        }
    }
}

/// Checks that a table can hold a map, and finds how it keeps the time.
///
/// # Errors
///
/// `Unusable` if it, or a column, is missing; `Invalid` if it cannot hold one.
pub(super) fn inspect(
    connection: &Connection,
    map: &MapName,
    table: &str,
    columns: &Columns,
) -> Result<Time, Fault> {
    let found = columns_of(connection, table)?;
    if found.is_empty() {
        let message = format!("the adopted table {table:?} is missing; create it, or restore it");
        return Err(Error::new(ErrorKind::Unusable, message).on_map(map).into());
    }
    for name in [&columns.key, &columns.value] {
        let Some(column) = found.iter().find(|column| column.is(name)) else {
            return Err(no_column(map, table, name).into());
        };
        if !column.keeps_text() {
            let problem = format!("the column {name:?} is not a column of text");
            return Err(unfit(map, table, &problem).into());
        }
    }
    check_others(map, table, columns, &found)?;
    if !is_unique(connection, table, &columns.key)? {
        let problem = format!(
            "the column {:?} is not unique by itself, or compares otherwise than byte by byte",
            columns.key
        );
        return Err(unfit(map, table, &problem).into());
    }
    let time = found.iter().find(|column| column.is(&columns.updated_at));
    Ok(time.map_or(Time::Missing, Column::time))
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.name, c.type, c.\"notnull\", c.dflt_value IS NOT NULL, c.pk
         FROM pragma_table_list(?1) AS l, pragma_table_xinfo(?1) AS c
         WHERE l.type = 'table' AND l.schema = 'main' AND c.hidden = 0",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(Column {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            has_default: row.get(3)?,
            row_number: row.get::<_, i64>(4)? > 0
                && row.get_ref(1)?.as_str()?.eq_ignore_ascii_case("INTEGER"),
        })
    })?;
    rows.collect()
}

/// A new entry brings a key, a value and a time; the table has to come up with
/// the rest, or it would refuse every single one.
fn check_others(map: &MapName, table: &str, columns: &Columns, found: &[Column]) -> Result<()> {
    let ours = [&columns.key, &columns.value, &columns.updated_at];
    let mut others = found
        .iter()
        .filter(|column| !ours.iter().any(|name| column.is(name)));
    let Some(column) = others.find(|c| c.not_null && !c.has_default && !c.row_number) else {
        return Ok(());
    };
    let problem = format!(
        "the column {:?} must not be empty and has no default, so no entry can be added",
        column.name
    );
    Err(unfit(map, table, &problem))
}

fn is_unique(connection: &Connection, table: &str, key: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM pragma_index_list(?1) AS i
             WHERE i.\"unique\" = 1 AND i.partial = 0
             AND (SELECT count(*) FROM pragma_index_xinfo(i.name) AS x WHERE x.key = 1) = 1
             AND EXISTS (SELECT 1 FROM pragma_index_xinfo(i.name) AS x
                WHERE x.key = 1 AND x.name = ?2 COLLATE NOCASE AND x.coll = 'BINARY')",
        )?
        .exists([table, key])
}

fn no_column(map: &MapName, table: &str, name: &str) -> Error {
    let message = format!(
        "the adopted table {table:?} has no column {name:?}; name its columns with `.columns(..)`, or put it back"
    );
    Error::new(ErrorKind::Unusable, message).on_map(map)
}

fn unfit(map: &MapName, table: &str, problem: &str) -> Error {
    let message = format!("the table {table:?} cannot hold a map: {problem}; use another table");
    Error::new(ErrorKind::Invalid, message).on_map(map)
}

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
}

impl<'c> AdoptedTable<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        table: &'c Table,
        (time, companion): (Time, &str),
        at: i64,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let name = &table.name;
        let delete = format!(
            "DELETE FROM {name} AS t WHERE {} = ?1",
            table.key_by_bytes()
        );
        let forget = format!("DELETE FROM {companion} WHERE key = ?1");
        let at = match time {
            Time::Missing => None,
            kept => Some(kept.written(connection, at)?),
        };
        Ok(Self {
            connection,
            table,
            put: connection.prepare_cached(&put(table, at.is_some()))?,
            delete: connection.prepare_cached(&delete)?,
            forget: connection.prepare_cached(&forget)?,
            note: Note::new(connection, companion, revision)?,
            time,
            at,
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

/// An upsert, and not a replacement: the other columns keep their values.
fn put(table: &Table, with_time: bool) -> String {
    let Table {
        name,
        key,
        value,
        updated_at,
        ..
    } = table;
    if with_time {
        format!(
            "INSERT INTO {name} ({key}, {value}, {updated_at}) VALUES (?1, ?2, ?3)
             ON CONFLICT ({key}) DO UPDATE SET
                {value} = excluded.{value}, {updated_at} = excluded.{updated_at}"
        )
    } else {
        format!(
            "INSERT INTO {name} ({key}, {value}) VALUES (?1, ?2)
             ON CONFLICT ({key}) DO UPDATE SET {value} = excluded.{value}"
        )
    }
}

impl Target for AdoptedTable<'_> {
    fn put(
        &mut self,
        key: &str,
        payload: &Payload,
        expires_at: Option<i64>,
        written_at: Option<i64>,
    ) -> Result<(), Fault> {
        let value = value_to(&payload.bytes);
        match self.written(written_at)? {
            Some(at) => self.put.execute(params![key, value, at])?,
            None => self.put.execute(params![key, value])?,
        };
        let digest = digest_of(&payload.bytes);
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
        self.delete.execute([key])?;
        self.forget.execute([key])?;
        Ok(())
    }
}

/// Notes in the table beside an adopted one what is known of a row.
struct Note<'c> {
    statement: CachedStatement<'c>,
    revision: i64,
}

impl<'c> Note<'c> {
    fn new(connection: &'c Connection, companion: &str, revision: i64) -> rusqlite::Result<Self> {
        let sql = format!(
            "INSERT INTO {companion} (key, revision, expires_at, schema, digest)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (key) DO UPDATE SET
                revision = excluded.revision, expires_at = excluded.expires_at,
                schema = excluded.schema, digest = excluded.digest"
        );
        Ok(Self {
            statement: connection.prepare_cached(&sql)?,
            revision,
        })
    }

    fn add(
        &mut self,
        key: &str,
        expires_at: Option<i64>,
        schema: u32,
        digest: [u8; 16],
    ) -> rusqlite::Result<()> {
        let parameters = params![key, self.revision, expires_at, schema, digest];
        self.statement.execute(parameters).map(drop)
    }

    /// A value that is not the one last seen is a fresh entry, without expiry.
    fn if_new(&mut self, stored: &mut Stored) -> rusqlite::Result<bool> {
        let digest = digest_of(&stored.value);
        if stored.digest == Some(digest) {
            return Ok(false);
        }
        self.add(&stored.key, None, 0, digest)?;
        stored.revision = Some(self.revision);
        stored.expires_at = None;
        stored.schema = None;
        stored.digest = Some(digest);
        Ok(true)
    }
}

fn digest_of(value: &[u8]) -> [u8; 16] {
    xxh3_128(value).to_be_bytes()
}

/// Gives a row the revision if another program wrote it since it was last
/// seen; says whether it did.
pub(super) fn note_if_new(
    connection: &Connection,
    table: &Table,
    stored: &mut Stored,
    revision: i64,
) -> Result<bool, Fault> {
    let Some((_, companion)) = &table.adopted else {
        return Ok(false);
    };
    Ok(Note::new(connection, companion, revision)?.if_new(stored)?)
}

/// Notes what another program wrote or deleted among the wanted rows; says
/// whether there was anything.
pub(super) fn note_all(
    connection: &Connection,
    table: &Table,
    wanted: &Wanted,
) -> Result<bool, Fault> {
    let Some((_, companion)) = &table.adopted else {
        return Ok(false);
    };
    let revision = revision_now(schema::revision(connection)?);
    let mut note = Note::new(connection, companion, revision_to(revision)?)?;
    // All of them, if the wanted ones are those that turn out to have changed.
    let among = match wanted {
        Wanted::Changed { .. } => &Wanted::All,
        other => other,
    };
    let mut changed = false;
    read::for_each(connection, table, among, |mut stored| {
        changed |= note.if_new(&mut stored)?;
        Ok(())
    })?;
    if *among == Wanted::All {
        changed |= forget_deleted(connection, table, companion)?;
    }
    if changed {
        schema::set_revision(connection, revision)?;
    }
    Ok(changed)
}

fn forget_deleted(
    connection: &Connection,
    table: &Table,
    companion: &str,
) -> rusqlite::Result<bool> {
    let sql = format!(
        "DELETE FROM {companion} AS c WHERE NOT EXISTS
            (SELECT 1 FROM {} AS t WHERE {} = c.key)",
        table.name,
        table.key_by_bytes()
    );
    Ok(connection.execute(&sql, [])? > 0)
}
