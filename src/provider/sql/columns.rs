//! The names of a table's columns.

use super::options::Problem;

/// The names of the columns in all tables of a database.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) updated_at: String,
}

impl Default for Columns {
    fn default() -> Self {
        Self::new("key", "value", "updated_at")
    }
}

impl Columns {
    pub(crate) fn new(
        key: impl Into<String>,
        value: impl Into<String>,
        updated_at: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            updated_at: updated_at.into(),
        }
    }

    pub(crate) fn names(&self) -> [&str; 3] {
        [&self.key, &self.value, &self.updated_at]
    }

    /// Checks that the names differ from each other and from `reserved`, the other columns
    /// that every table has. `folded` is the form in which the database compares names.
    pub(crate) fn check(
        &self,
        reserved: &[&str],
        folded: fn(&str) -> String,
    ) -> Result<(), Problem> {
        let names = self.names().map(folded);
        if let Some(name) = names.iter().find(|name| reserved.contains(&name.as_str())) {
            let problem = format!("{name:?} is the name of a column that every table has");
            return Err(Problem::new("columns", problem));
        }
        let [key, value, updated_at] = &names;
        if key == value || key == updated_at || value == updated_at {
            let problem = "the three names differ from each other";
            return Err(Problem::new("columns", problem));
        }
        Ok(())
    }
}

/// A name quoted for SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
