//! The table of a map, and its SQL.

use rusqlite::{Connection, ToSql};

use super::{
    errors::Failure,
    inspection::{Holds, inspect},
    rows::{self, DIGEST},
    schema::{self, Location},
    times::Time,
};
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    provider::sql::{
        columns::{Columns, quoted},
        companion::Companion,
    },
    record::{Record, Revision},
};

/// The table of a map. All names are quoted.
///
/// In the SQL every column is qualified with its table: SQLite takes an unqualified quoted
/// name that is not a column for a string.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) map: MapName,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) updated_at: String,
    pub(super) adopted: Option<Adopted>,
}

/// The properties of an adopted table.
#[derive(Debug)]
pub(super) struct Adopted {
    pub(super) time: Time,
    pub(super) values: Holds,
    pub(super) companion: Companion,
}

impl Table {
    /// The table of a map; `None` if it was never written to.
    pub(super) fn find(
        connection: &Connection,
        map: &MapName,
        columns: &Columns,
    ) -> Result<Option<Self>, Failure> {
        let Some(location) = schema::location(connection, map)? else {
            return Ok(None);
        };
        let mut table = Self::new(map, &location.table, columns);
        if let Some(companion) = location.companion {
            let (time, values) = inspect(connection, map, &location.table, columns)?;
            let companion = table.companion(&companion);
            table.adopted = Some(Adopted {
                time,
                values,
                companion,
            });
        }
        Ok(Some(table))
    }

    /// Creates the table of a map that has none.
    pub(super) fn create(
        connection: &Connection,
        map: &MapName,
        columns: &Columns,
    ) -> Result<Self, Failure> {
        // With the prefix it is neither one of SQLite's tables nor one of ours.
        let name = format!("map_{}", map.encoded(usize::MAX));
        if schema::has_table(connection, &name)? {
            return Err(taken(map, &name).into());
        }
        let table = Self::new(map, &name, columns);
        connection.execute_batch(&table.definition())?;
        let location = Location {
            table: name,
            companion: None,
        };
        schema::add_location(connection, map, &location)?;
        Ok(table)
    }

    fn new(map: &MapName, name: &str, columns: &Columns) -> Self {
        Self {
            map: map.clone(),
            name: quoted(name),
            key: quoted(&columns.key),
            value: quoted(&columns.value),
            updated_at: quoted(&columns.updated_at),
            adopted: None,
        }
    }

    fn companion(&self, name: &str) -> Companion {
        Companion {
            name: quoted(name),
            table: self.name.clone(),
            key: format!("t.{}", self.key),
            key_by_bytes: self.key_by_bytes(),
            digest: format!("{DIGEST}(t.{})", self.value),
        }
    }

    // An ordinary table with row numbers: measured, it takes changed rows two to five
    // times as fast as one that is clustered by key. The key has the only index, unless
    // the changes of the map are loaded: each index slows down every write. The key has
    // the only `NOT NULL`: with another one, SQLite copies every page that a statement
    // changes, to undo the statement if it fails, and inserts a fifth fewer rows in the
    // same time.
    fn definition(&self) -> String {
        let Self {
            name,
            key,
            value,
            updated_at,
            ..
        } = self;
        format!(
            "CREATE TABLE {name} (
                {key} TEXT PRIMARY KEY NOT NULL,
                {value} TEXT,
                {updated_at} INTEGER,
                revision INTEGER DEFAULT 0,
                expires_at INTEGER,
                schema INTEGER DEFAULT 0
            )"
        )
    }

    /// The query for the columns that [`rows::record`] reads. `rest` comes after the
    /// `FROM` clause.
    pub(super) fn select(&self, rest: &str) -> String {
        let Self { key, value, .. } = self;
        let (value, time, known, from) = match &self.adopted {
            None => {
                let time = format!("t.{}", self.updated_at);
                (
                    format!("t.{value}"),
                    time,
                    "t",
                    format!("{} AS t", self.name),
                )
            }
            Some(adopted) => {
                let time = adopted.time.in_millis(&self.updated_at);
                (as_json(value), time, "c", adopted.companion.joined())
            }
        };
        format!(
            "SELECT t.{key}, {value}, {time}, {known}.revision, {known}.expires_at, {known}.schema
             FROM {from} {rest}"
        )
    }

    /// The key's column, compared byte by byte regardless of its collation.
    pub(super) fn key_by_bytes(&self) -> String {
        format!("t.{} COLLATE BINARY", self.key)
    }

    /// The record of that key.
    pub(super) fn record(
        &self,
        connection: &Connection,
        key: &str,
        unknown: Revision,
    ) -> Result<Option<Record>, Failure> {
        let mut found = None;
        let rest = format!("WHERE {} = $1", self.key_by_bytes());
        self.for_each(connection, &rest, &[&key], unknown, |record| {
            found = Some(record);
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `each` with every record of a [`select`](Self::select).
    pub(super) fn for_each(
        &self,
        connection: &Connection,
        rest: &str,
        parameters: &[&dyn ToSql],
        unknown: Revision,
        mut each: impl FnMut(Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut statement = connection.prepare_cached(&self.select(rest))?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            each(rows::record(row, &self.map, unknown)?)?;
        }
        Ok(())
    }

    /// The number of rows.
    pub(super) fn count(&self, connection: &Connection) -> rusqlite::Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", self.name);
        let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

/// A value of an adopted table. It is JSON, even if its program stores it as a blob.
fn as_json(value: &str) -> String {
    format!("CASE typeof(t.{value}) WHEN 'blob' THEN CAST(t.{value} AS TEXT) ELSE t.{value} END")
}

fn taken(map: &MapName, table: &str) -> Error {
    let message = format!(
        "the map would be stored in the table {table:?}, which another program created; adopt it with `.table(..)`, or rename it"
    );
    Error::new(ErrorKind::Unusable, message).on_map(map)
}
