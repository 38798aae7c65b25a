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

/// The maximum length of a name in Postgres, in bytes.
pub(super) const MAX_NAME: usize = 63;

/// The options that the driver reads after the `?` of a URL.
pub(crate) const DRIVER_OPTIONS: [&str; 20] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "dbname",
    "host",
    "password",
    "port",
    "sslnegotiation",
    "user",
];

#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Names the database in messages, without secrets.
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

/// The name of an adopted table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl TableName {
    /// The name, as written in SQL.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// Postgres stores timeouts in milliseconds, as a C `int`.
const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// The columns beside key, value and time in the provider's own tables.
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

    /// The name of one of the provider's tables, as written in SQL.
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

/// A text literal in SQL, safe for any characters and for any setting of
/// `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
