//! The rows of a table that a load wants.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::{changes, errors::Failure, table::Table};
use crate::{
    error::Result,
    load::Wanted,
    record::{Record, Revision},
};

/// Calls `each` with every wanted record of a table.
pub(super) fn for_each(
    connection: &Connection,
    table: &Table,
    wanted: &Wanted,
    unknown: Revision,
    end: Option<Revision>,
    mut each: impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let key = table.key_by_bytes();
    // SQLite's integers have 64 bits.
    let at_most = |limit: &usize| i64::try_from(*limit).unwrap_or(i64::MAX);
    match wanted {
        Wanted::All => table.for_each(connection, "", &[], unknown, each),
        Wanted::Keys(keys) => {
            // Each key once, in the order of the index.
            for key in keys.iter().collect::<BTreeSet<_>>() {
                if let Some(record) = table.record(connection, key, unknown)? {
                    each(record)?;
                }
            }
            Ok(())
        }
        Wanted::Page { after: None, limit } => {
            let rest = format!("ORDER BY {key} LIMIT {}", at_most(limit));
            table.for_each(connection, &rest, &[], unknown, each)
        }
        Wanted::Page {
            after: Some(after),
            limit,
        } => {
            let rest = format!("WHERE {key} > $1 ORDER BY {key} LIMIT {}", at_most(limit));
            table.for_each(connection, &rest, &[after], unknown, each)
        }
        Wanted::Changed { after, .. } => changes::for_each(connection, table, *after, end, each),
    }
}
