//! What can be chosen for a Postgres database, and the bounds of each choice.

use std::{collections::BTreeMap, time::Duration};

use super::{
    quoting::{MAX_NAME, quoted},
    values::ValueType,
};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
};

#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Which database it is, in the words of a message: without any secret.
    pub(super) place: String,
    pub(super) schema: String,
    pub(super) columns: Columns,
    pub(super) value_type: ValueType,
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
    /// Which table of another program a map is, by its quoted name.
    pub(super) adopted: BTreeMap<MapName, AdoptedName>,
}

/// A table of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdoptedName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl AdoptedName {
    /// As it stands in SQL.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// What the columns are called in the tables of a schema.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) updated_at: String,
}

/// Postgres counts timeouts in milliseconds, as a C `int`.
const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// The columns beside key, value and time in the tables that are made here.
const TAKEN: [&str; 4] = ["revision", "expires_at", "schema", "long_key"];

impl Options {
    pub(super) fn check(&self) -> Result<()> {
        for (option, timeout) in [
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
        ] {
            if timeout > MAX_TIMEOUT {
                return Err(invalid(option, "it is at most 2147483647 milliseconds"));
            }
            if !timeout.is_zero() && timeout.as_millis() == 0 {
                return Err(invalid(option, "it is zero, or at least a millisecond"));
            }
        }
        check_name("schema", &self.schema)?;
        self.columns.check()
    }

    /// A table of ours, as it stands in SQL.
    pub(super) fn qualified(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(table))
    }
}

impl Columns {
    fn check(&self) -> Result<()> {
        let names = [&self.key, &self.value, &self.updated_at];
        for name in names {
            check_name("columns", name)?;
        }
        if let Some(name) = names.iter().find(|name| TAKEN.contains(&name.as_str())) {
            let problem = format!("{name:?} is the name of a column that every table has");
            return Err(invalid("columns", &problem));
        }
        let [key, value, updated_at] = names;
        if key == value || key == updated_at || value == updated_at {
            return Err(invalid("columns", "the three names differ from each other"));
        }
        Ok(())
    }
}

pub(super) fn check_name(option: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains('\0') || name.len() > MAX_NAME {
        let problem = format!("a name has 1 to {MAX_NAME} bytes and no NUL");
        return Err(invalid(option, &problem));
    }
    Ok(())
}

pub(super) fn invalid(option: &str, problem: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("option `{option}` of the Postgres database: {problem}"),
    )
}
