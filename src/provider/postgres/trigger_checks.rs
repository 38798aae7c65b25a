//! Detects changes that triggers or rules of other programs ignored in this provider's
//! tables. Such changes must not count as saved.
//!
//! A commit in a single round trip only counts the rows that it put. If the catalog shows
//! triggers or rules, commits take two round trips and check each change first.

use tokio_postgres::types::Type;

use super::{changes::Changes, options::Options, statement::Statement, table::Table};
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
};

/// Statements that fail if a change was ignored: they insert a writer without an id,
/// which violates a constraint.
pub(super) struct Checks {
    writers: String,
}

impl Checks {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            writers: options.qualified("persistify_writers"),
        }
    }

    /// Checks that the table is empty.
    pub(super) fn cleared<'a>(&self, table: &Table) -> Statement<'a> {
        Statement::new(self.fails_if(&format!("{} AS t", table.name)))
    }

    /// Checks that this transaction wrote each row that was put, and that the deleted rows
    /// are gone.
    pub(super) fn changed<'a>(&self, table: &Table, changes: &Changes<'a>) -> Vec<Statement<'a>> {
        let Table { name, key, .. } = table;
        let mut checks = Vec::new();
        if !changes.puts.is_empty() {
            let keys = changes.puts.iter().map(|put| put.key.key.to_string());
            let sql = self.fails_if(&format!(
                "unnest($1::text[]) AS u (k) WHERE NOT EXISTS
                    (SELECT 1 FROM {name} AS t WHERE t.{key} = u.k AND age(t.xmin) <= 0)"
            ));
            checks.push(Statement::new(sql).array(keys, Type::TEXT_ARRAY));
        }
        if !changes.deletes.is_empty() {
            let keys = changes.deletes.iter().map(|d| d.key.key.to_string());
            let sql = self.fails_if(&format!("{name} AS t WHERE t.{key} = ANY($1)"));
            checks.push(Statement::new(sql).array(keys, Type::TEXT_ARRAY));
        }
        checks
    }

    fn fails_if(&self, found: &str) -> String {
        format!(
            "INSERT INTO {} (writer, sequence, revision, skipped, at)
             SELECT NULL::uuid, 0, 0, 0, now() FROM {found} LIMIT 1",
            self.writers
        )
    }
}

/// The error if fewer rows were put than sent.
pub(super) fn refused(map: &MapName) -> Error {
    let message = "Postgres refuses these changes: a trigger or a rule of their table skips them";
    Error::new(ErrorKind::Refused, message).on_map(map)
}
