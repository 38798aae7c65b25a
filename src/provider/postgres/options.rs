//! The options of a Postgres database and their bounds.

use std::{collections::BTreeMap, time::Duration};

use super::values::ValueType;
use crate::{
    error::{Error, Result},
    name::MapName,
    provider::sql::{
        columns::{Columns, quoted},
        options::Problem,
    },
};

/// The longest name that Postgres takes, in bytes.
pub(super) const MAX_NAME: usize = 63;

#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Which database it is, in the words of a message: without any secret.
    pub(super) database: String,
    pub(super) schema: String,
    pub(super) columns: Columns,
    pub(super) value_type: ValueType,
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
    /// For how long tombstones are kept.
    pub(super) tombstones_kept: Duration,
    /// The table of each adopted map.
    pub(super) adopted: BTreeMap<MapName, TableName>,
}

/// The name of a table of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl TableName {
    /// As it is written in SQL.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// Postgres counts timeouts in milliseconds, as a C `int`.
const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// The columns beside key, value and time in the tables that are made here.
const RESERVED: [&str; 4] = ["revision", "expires_at", "schema", "long_key"];

impl Options {
    pub(super) fn check(&self) -> Result<(), Problem> {
        for (option, timeout) in [
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
        ] {
            if timeout > MAX_TIMEOUT {
                let problem = "it is at most 2147483647 milliseconds";
                return Err(Problem::new(option, problem));
            }
            if !timeout.is_zero() && timeout.as_millis() == 0 {
                let problem = "it is zero, or at least a millisecond";
                return Err(Problem::new(option, problem));
            }
        }
        check_name("schema", &self.schema)?;
        let mut names = self.columns.names().into_iter();
        names.try_for_each(|name| check_name("columns", name))?;
        self.columns.check(&RESERVED, str::to_owned)
    }

    /// A table of ours, as it is written in SQL.
    pub(super) fn qualified(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(table))
    }
}

pub(super) fn check_name(option: &'static str, name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.contains('\0') || name.len() > MAX_NAME {
        let problem = format!("a name has 1 to {MAX_NAME} bytes and no NUL");
        return Err(Problem::new(option, problem));
    }
    Ok(())
}

pub(super) fn invalid(option: &'static str, problem: &str) -> Error {
    of_database(Problem::new(option, problem))
}

pub(super) fn of_database(problem: Problem) -> Error {
    problem.of("the Postgres database")
}

/// A piece of text as it is written in SQL, whatever characters it has and
/// however the server reads backslashes.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
