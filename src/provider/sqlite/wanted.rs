//! The rows of a table that a load wants.

use std::{collections::BTreeSet, sync::Arc};

use rusqlite::{Connection, ToSql};

use super::{errors::Fault, rows::Stored, table::Table};
use crate::{error::Result, load::Wanted};

/// Each wanted row of a table.
pub(super) fn for_each(
    connection: &Connection,
    table: &Table,
    wanted: &Wanted,
    mut each: impl FnMut(Stored) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match wanted {
        Wanted::All => table.for_each(connection, "", &[], each),
        Wanted::Keys(keys) => {
            // In the order of the keys, which is the order of the index; each once.
            let keys: BTreeSet<_> = keys.iter().collect();
            for key in keys {
                if let Some(stored) = table.row(connection, key)? {
                    each(stored)?;
                }
            }
            Ok(())
        }
        Wanted::Page { after, limit } => {
            let (rest, parameters) = page(table, after.as_ref(), *limit);
            let parameters: Vec<&dyn ToSql> = parameters.iter().map(|p| &**p).collect();
            table.for_each(connection, &rest, &parameters, each)
        }
        Wanted::Changed { after } => {
            let rest = format!("WHERE {} > ?1", table.revision());
            // No revision is higher than SQLite's highest number.
            let after = i64::try_from(after.get()).unwrap_or(i64::MAX);
            table.for_each(connection, &rest, &[&after], &mut each)
        }
    }
}

fn page(table: &Table, after: Option<&Arc<str>>, limit: usize) -> (String, Vec<Box<dyn ToSql>>) {
    let key = table.key_by_bytes();
    let limit = Box::new(i64::try_from(limit).unwrap_or(i64::MAX));
    match after {
        None => (format!("ORDER BY {key} LIMIT ?1"), vec![limit]),
        Some(after) => (
            format!("WHERE {key} > ?2 ORDER BY {key} LIMIT ?1"),
            vec![limit, Box::new(after.clone())],
        ),
    }
}
