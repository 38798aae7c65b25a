//! Checks whether a table of another program can be adopted in SQLite.

use rusqlite::{Connection, OptionalExtension};

use super::{errors::Failure, times::Time};
use crate::{
    error::Error,
    name::MapName,
    provider::sql::{
        columns::Columns,
        inspection::{Candidate, Column, missing, unfit},
    },
};

/// How a column is declared.
struct Declared {
    upper: String,
    /// Whether the table is `STRICT`: the column takes only values of its declared type.
    strict: bool,
}

impl Declared {
    /// The kind of values, by SQLite's type affinity; `None` if it converts text to
    /// numbers.
    fn holds(&self) -> Option<Holds> {
        let has = |part| self.upper.contains(part);
        let is_text = has("CHAR") || has("CLOB") || has("TEXT");
        match &*self.upper {
            "" => Some(Holds::Text),
            "ANY" if self.strict => Some(Holds::Text),
            _ if has("INT") => None,
            _ if is_text => Some(Holds::Text),
            _ if has("BLOB") => Some(Holds::Bytes),
            _ => None,
        }
    }

    /// How the column stores times; `None` if it cannot.
    fn time(&self) -> Option<Time> {
        if self.upper.contains("INT") {
            return Some(Time::Millis);
        }
        (!self.strict || self.holds() == Some(Holds::Text)).then_some(Time::Text)
    }
}

/// The kind of values in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    /// Blobs. The other program may not be able to read text.
    Bytes,
}

/// Checks that a table can hold a map, and returns how it stores times and values.
///
/// # Errors
///
/// `Unusable` if the table or a column is missing; `Invalid` if it cannot hold a map.
pub(super) fn inspect(
    connection: &Connection,
    map: &MapName,
    table: &str,
    columns: &Columns,
) -> Result<(Time, Holds), Failure> {
    let shown = format!("{table:?}");
    let found = columns_of(connection, table)?;
    if found.is_empty() {
        return Err(no_table(connection, map, table)?.into());
    }
    let candidate = Candidate {
        map,
        table: &shown,
        columns,
        found,
        is_same: str::eq_ignore_ascii_case,
    };
    let no_text = |column: &Column<Declared>| {
        candidate.unfit(&format!(
            "the column {:?} is not a column of text",
            column.name
        ))
    };
    let (key, value) = (candidate.key()?, candidate.value()?);
    if key.kind.holds() != Some(Holds::Text) {
        return Err(no_text(key).into());
    }
    let values = value.kind.holds().ok_or_else(|| no_text(value))?;
    candidate.check_others()?;
    if !is_unique(connection, table, &columns.key)? {
        return Err(candidate.not_unique().into());
    }
    let written = candidate.updated_at().filter(|column| !column.generated);
    let time = written.map_or(Some(Time::Missing), |column| column.kind.time());
    let time = time.ok_or_else(|| {
        candidate.unfit(&format!(
            "the column {:?} takes no time",
            columns.updated_at
        ))
    })?;
    Ok((time, values))
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column<Declared>>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.name, upper(c.type), l.strict, c.hidden > 0,
            c.\"notnull\" AND c.dflt_value IS NULL AND c.hidden = 0
                AND NOT (c.pk > 0 AND upper(c.type) = 'INTEGER')
         FROM pragma_table_list(?1) AS l, pragma_table_xinfo(?1) AS c
         WHERE l.type = 'table' AND l.schema = 'main'",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(Column {
            name: row.get(0)?,
            kind: Declared {
                upper: row.get(1)?,
                strict: row.get(2)?,
            },
            generated: row.get(3)?,
            required: row.get(4)?,
        })
    })?;
    rows.collect()
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

fn no_table(connection: &Connection, map: &MapName, table: &str) -> rusqlite::Result<Error> {
    let kind = connection
        .prepare_cached("SELECT type FROM pragma_table_list(?1) WHERE schema = 'main'")?
        .query_row([table], |row| row.get::<_, String>(0))
        .optional()?;
    let shown = format!("{table:?}");
    Ok(match kind {
        Some(kind) => unfit(map, &shown, &format!("it is a {kind}, not a table")),
        None => missing(map, &shown),
    })
}
