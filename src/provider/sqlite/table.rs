//! The table of a map, and the SQL that it takes.

use rusqlite::{Connection, ToSql};

use super::{
    builder::Columns,
    errors::Fault,
    inspect::{Holds, inspect},
    rows::Stored,
    schema::{self, Place},
    time::Time,
};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
};

/// The table of a map. All names are quoted.
///
/// In the SQL every column carries the name of its table: SQLite takes a
/// quoted name without one, if there is no such column, for a piece of text.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) map: MapName,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) updated_at: String,
    pub(super) adopted: Option<Adopted>,
}

/// What is known of a table of another program.
#[derive(Debug)]
pub(super) struct Adopted {
    pub(super) time: Time,
    pub(super) values: Holds,
    /// The table beside it.
    pub(super) companion: String,
}

impl Table {
    /// The table of a map; `None` if it was never written to.
    pub(super) fn find(
        connection: &Connection,
        map: &MapName,
        columns: &Columns,
    ) -> Result<Option<Self>, Fault> {
        let Some(place) = schema::place_of(connection, map)? else {
            return Ok(None);
        };
        let adopted = match place.companion {
            Some(companion) => {
                let (time, values) = inspect(connection, map, &place.table, columns)?;
                let companion = quoted(&companion);
                Some(Adopted {
                    time,
                    values,
                    companion,
                })
            }
            None => None,
        };
        Ok(Some(Self::new(map, &place.table, columns, adopted)))
    }

    /// The table of a map; made if there is none.
    pub(super) fn find_or_create(
        connection: &Connection,
        map: &MapName,
        columns: &Columns,
    ) -> Result<Self, Fault> {
        if let Some(table) = Self::find(connection, map, columns)? {
            return Ok(table);
        }
        // The prefix keeps it from being one of SQLite's own tables, or ours.
        let name = format!("map_{}", map.encoded(usize::MAX));
        if schema::has_table(connection, &name)? {
            return Err(taken(map, &name).into());
        }
        let table = Self::new(map, &name, columns, None);
        connection.execute_batch(&table.create())?;
        let place = Place {
            table: name,
            companion: None,
        };
        schema::add_place(connection, map, &place)?;
        Ok(table)
    }

    fn new(map: &MapName, name: &str, columns: &Columns, adopted: Option<Adopted>) -> Self {
        Self {
            map: map.clone(),
            name: quoted(name),
            key: quoted(&columns.key),
            value: quoted(&columns.value),
            updated_at: quoted(&columns.updated_at),
            adopted,
        }
    }

    // An ordinary table with a row number: measured, it takes changed rows two
    // to five times as fast as one that is sorted by its keys. No index beside
    // the key's: each would slow down every write, for loads that are rare. And
    // no `NOT NULL` but the key's: with another one SQLite keeps a copy of every
    // page that a statement for many rows changes, to be able to undo half of
    // it, and puts a fifth fewer new rows in the same time.
    fn create(&self) -> String {
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

    /// Selects what [`Stored`] reads, of the rows that the rest says.
    pub(super) fn select(&self, rest: &str) -> String {
        let Self {
            name, key, value, ..
        } = self;
        match &self.adopted {
            None => format!(
                "SELECT t.{key}, t.{value}, t.{}, t.revision, t.expires_at, t.schema, NULL
                 FROM {name} AS t {rest}",
                self.updated_at
            ),
            Some(Adopted {
                time, companion, ..
            }) => format!(
                "SELECT t.{key}, t.{value}, {}, c.revision, c.expires_at, c.schema, c.digest
                 FROM {name} AS t
                 LEFT JOIN {companion} AS c ON c.key = t.{key} COLLATE BINARY {rest}",
                time.in_millis(&self.updated_at)
            ),
        }
    }

    /// The key's column, comparing by bytes whatever the table says.
    pub(super) fn key_by_bytes(&self) -> String {
        format!("t.{} COLLATE BINARY", self.key)
    }

    /// The column that holds the revisions.
    pub(super) fn revision(&self) -> &'static str {
        if self.adopted.is_some() {
            "c.revision"
        } else {
            "t.revision"
        }
    }

    /// The row of that key.
    pub(super) fn row(&self, connection: &Connection, key: &str) -> Result<Option<Stored>, Fault> {
        let mut found = None;
        let rest = format!("WHERE {} = ?1", self.key_by_bytes());
        self.for_each(connection, &rest, &[&key], |stored| {
            found = Some(stored);
            Ok(())
        })?;
        Ok(found)
    }

    /// Each row of a select with that rest.
    pub(super) fn for_each(
        &self,
        connection: &Connection,
        rest: &str,
        parameters: &[&dyn ToSql],
        mut each: impl FnMut(Stored) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut statement = connection.prepare_cached(&self.select(rest))?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            each(Stored::read(row, &self.map)?)?;
        }
        Ok(())
    }

    /// Whether writing to it sets off something that another program put there.
    pub(super) fn has_trigger(&self, connection: &Connection) -> rusqlite::Result<bool> {
        connection
            .prepare_cached(
                "SELECT 1 FROM sqlite_schema
                 WHERE type = 'trigger' AND format('\"%w\"', tbl_name) = ?1 COLLATE NOCASE",
            )?
            .exists([&self.name])
    }

    /// How many rows there are.
    pub(super) fn count(&self, connection: &Connection) -> rusqlite::Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", self.name);
        let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

/// A name as it stands in SQL, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn taken(map: &MapName, table: &str) -> Error {
    let message = format!(
        "there is a table {table:?} of another program where the map would be kept; adopt it with `.table(..)`, or rename it"
    );
    Error::new(ErrorKind::Unusable, message).on_map(map)
}
