//! Tables of other programs: what they must be like to hold a map.

use rusqlite::{Connection, OptionalExtension};

use super::{builder::Columns, errors::Fault, time::Time};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
};

/// A column of a table, as SQLite describes it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a property of its own, and they go together in every way"
)]
struct Column {
    name: String,
    declared: String,
    not_null: bool,
    has_default: bool,
    /// A row number, which SQLite gives out by itself.
    row_number: bool,
    /// It takes nothing but what it is declared as.
    strict: bool,
    /// It takes nothing at all: the table computes it.
    generated: bool,
}

impl Column {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// What it is for, by SQLite's rules of type affinity; `None` if it makes
    /// numbers of text.
    fn holds(&self) -> Option<Holds> {
        let declared = self.declared.to_ascii_uppercase();
        let has = |part| declared.contains(part);
        let is_text = has("CHAR") || has("CLOB") || has("TEXT");
        match &*declared {
            "" | "ANY" if self.strict => Some(Holds::Text),
            "" => Some(Holds::Text),
            _ if has("INT") => None,
            _ if is_text => Some(Holds::Text),
            _ if has("BLOB") => Some(Holds::Bytes),
            _ => None,
        }
    }

    /// Whether no row can be added without it.
    fn must_be_given(&self) -> bool {
        self.not_null && !self.has_default && !self.row_number && !self.generated
    }

    /// `None` if it takes no time.
    fn time(&self) -> Option<Time> {
        if self.declared.to_ascii_uppercase().contains("INT") {
            return Some(Time::Millis);
        }
        (!self.strict || self.holds() == Some(Holds::Text)).then_some(Time::Text)
    }
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    /// What its program reads is bytes, and it may take no text for them.
    Bytes,
}

/// Checks that a table can hold a map, and finds how it keeps times and values.
///
/// # Errors
///
/// `Unusable` if it, or a column, is missing; `Invalid` if it cannot hold one.
pub(super) fn inspect(
    connection: &Connection,
    map: &MapName,
    table: &str,
    columns: &Columns,
) -> Result<(Time, Holds), Fault> {
    let found = columns_of(connection, table)?;
    if found.is_empty() {
        return Err(no_table(connection, map, table)?.into());
    }
    let mut held = [None; 2];
    for (name, held) in [&columns.key, &columns.value].into_iter().zip(&mut held) {
        let Some(column) = found.iter().find(|column| column.is(name)) else {
            return Err(no_column(map, table, name).into());
        };
        if column.generated {
            let problem = format!("the column {name:?} is generated");
            return Err(unfit(map, table, &problem).into());
        }
        *held = column.holds();
    }
    let [Some(Holds::Text), Some(values)] = held else {
        let name = if held[0] == Some(Holds::Text) {
            &columns.value
        } else {
            &columns.key
        };
        let problem = format!("the column {name:?} is not a column of text");
        return Err(unfit(map, table, &problem).into());
    };
    check_others(map, table, columns, &found)?;
    if !is_unique(connection, table, &columns.key)? {
        let problem = format!(
            "the column {:?} is not unique by itself, or compares otherwise than byte by byte",
            columns.key
        );
        return Err(unfit(map, table, &problem).into());
    }
    let mut written = found.iter().filter(|column| !column.generated);
    let time = written.find(|column| column.is(&columns.updated_at));
    let time = time.map_or(Some(Time::Missing), Column::time);
    let time = time.ok_or_else(|| {
        let problem = format!("the column {:?} takes no time", columns.updated_at);
        unfit(map, table, &problem)
    })?;
    Ok((time, values))
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.name, c.type, c.\"notnull\", c.dflt_value IS NOT NULL, c.pk, l.strict,
            c.hidden
         FROM pragma_table_list(?1) AS l, pragma_table_xinfo(?1) AS c
         WHERE l.type = 'table' AND l.schema = 'main'",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(Column {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            has_default: row.get(3)?,
            row_number: row.get::<_, i64>(4)? > 0
                && row.get_ref(1)?.as_str()?.eq_ignore_ascii_case("INTEGER"),
            strict: row.get(5)?,
            generated: row.get::<_, i64>(6)? > 0,
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
    let Some(column) = others.find(|c| c.must_be_given()) else {
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

fn no_table(connection: &Connection, map: &MapName, table: &str) -> rusqlite::Result<Error> {
    let kind = connection
        .prepare_cached("SELECT type FROM pragma_table_list(?1) WHERE schema = 'main'")?
        .query_row([table], |row| row.get::<_, String>(0))
        .optional()?;
    if let Some(kind) = kind {
        return Ok(unfit(
            map,
            table,
            &format!("it is a {kind}, and no table of its own"),
        ));
    }
    let message = format!("the adopted table {table:?} is missing; create it, or restore it");
    Ok(Error::new(ErrorKind::Unusable, message).on_map(map))
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
