//! The rows of a table that a load wants.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::{errors::Failure, table::Table};
use crate::{
    error::Result,
    load::Wanted,
    provider::sql::numbers::bound,
    record::{Record, Revision},
};

/// Each wanted record of a table.
pub(super) fn for_each(
    connection: &Connection,
    table: &Table,
    wanted: &Wanted,
    unknown: Revision,
    mut each: impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let key = table.key_by_bytes();
    // SQLite's numbers end at that.
    let at_most = |limit: &usize| i64::try_from(*limit).unwrap_or(i64::MAX);
    match wanted {
        Wanted::All => table.for_each(connection, "", &[], unknown, each),
        Wanted::Keys(keys) => {
            // Each once, in the order of the index.
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
        // Their limit is applied to whole commits, once all are read.
        Wanted::Changed { after, .. } => {
            let rest = format!("WHERE {}", table.changed_after(bound(*after)));
            table.for_each(connection, &rest, &[], unknown, each)
        }
    }
}
