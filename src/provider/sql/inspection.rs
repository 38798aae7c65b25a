//! Checks whether a table of another program can hold a map.

use super::columns::Columns;
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
};

/// A column, as the database describes it; `K` is its type.
#[derive(Debug)]
pub(crate) struct Column<K> {
    pub(crate) name: String,
    pub(crate) kind: K,
    /// Whether a new row needs a value for it.
    pub(crate) required: bool,
    /// Whether the table computes it, so that it cannot be written.
    pub(crate) generated: bool,
}

/// A table that is to be adopted for a map.
pub(crate) struct Candidate<'a, K> {
    pub(crate) map: &'a MapName,
    /// Its name, as messages show it.
    pub(crate) table: &'a str,
    pub(crate) columns: &'a Columns,
    pub(crate) found: Vec<Column<K>>,
    /// Whether two names are equal to the database.
    pub(crate) is_same: fn(&str, &str) -> bool,
}

impl<K> Candidate<'_, K> {
    pub(crate) fn key(&self) -> Result<&Column<K>> {
        self.required(&self.columns.key)
    }

    pub(crate) fn value(&self) -> Result<&Column<K>> {
        self.required(&self.columns.value)
    }

    /// The column of the times, if the table has one.
    pub(crate) fn updated_at(&self) -> Option<&Column<K>> {
        self.column(&self.columns.updated_at)
    }

    /// # Errors
    ///
    /// `Unusable` if there is no such column; `Invalid` if it cannot be written.
    fn required(&self, name: &str) -> Result<&Column<K>> {
        let Some(column) = self.column(name) else {
            let message = format!(
                "the adopted table {} has no column {name:?}; name its columns with `.columns(..)`, or put it back",
                self.table
            );
            return Err(Error::new(ErrorKind::Unusable, message).on_map(self.map));
        };
        self.check_written(column)?;
        Ok(column)
    }

    pub(crate) fn check_written(&self, column: &Column<K>) -> Result<()> {
        if column.generated {
            return Err(self.unfit(&format!("the column {:?} is generated", column.name)));
        }
        Ok(())
    }

    /// Checks that every other column may be empty or has a default, because a new
    /// entry has only a key, a value and a time.
    pub(crate) fn check_others(&self) -> Result<()> {
        let ours = self.columns.names();
        let is_ours = |column: &Column<K>| ours.iter().any(|n| (self.is_same)(&column.name, n));
        let mut others = self.found.iter().filter(|column| !is_ours(column));
        let Some(column) = others.find(|column| column.required) else {
            return Ok(());
        };
        Err(self.unfit(&format!(
            "the column {:?} must not be empty and has no default, so no entry can be added",
            column.name
        )))
    }

    pub(crate) fn not_unique(&self) -> Error {
        self.unfit(&format!(
            "the column {:?} is not unique by itself, or compares otherwise than byte by byte",
            self.columns.key
        ))
    }

    pub(crate) fn unfit(&self, problem: &str) -> Error {
        unfit(self.map, self.table, problem)
    }

    fn column(&self, name: &str) -> Option<&Column<K>> {
        let mut found = self.found.iter();
        found.find(|column| (self.is_same)(&column.name, name))
    }
}

/// The error for a table that cannot hold a map.
pub(crate) fn unfit(map: &MapName, table: &str, problem: &str) -> Error {
    let message = format!("the table {table} cannot hold a map: {problem}; use another table");
    Error::new(ErrorKind::Invalid, message).on_map(map)
}

/// The error for a table that does not exist.
pub(crate) fn missing(map: &MapName, table: &str) -> Error {
    let message = format!("the adopted table {table} is missing; create it, or restore it");
    Error::new(ErrorKind::Unusable, message).on_map(map)
}

/// The error for a map that is stored in another table than the one to be adopted.
pub(crate) fn kept_elsewhere(map: &MapName, kept_in: &str, table: &str) -> Error {
    let message = format!(
        "the map is kept in the table {kept_in} already, not in {table}; give the table another map's name"
    );
    Error::new(ErrorKind::Invalid, message).on_map(map)
}

/// The error for a table that already holds another map.
pub(crate) fn taken(map: &MapName, table: &str) -> Error {
    let message = format!("the table {table} is another map already; a table holds one map");
    Error::new(ErrorKind::Invalid, message).on_map(map)
}
