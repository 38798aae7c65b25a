//! Loads a page of a map, in byte order of the keys.

use tokio_postgres::types::Type;

use super::{
    adopted::before_nul,
    errors::Failure,
    keys::{self, StoredKey},
    rows::{Stored, rows},
    sessions::Session,
    statement::Statement,
    table::Table,
};
use crate::record::{Record, Revision};

/// The first `limit` records after a key.
///
/// Stand-ins of long keys with the same beginning are in no order, so all those at the
/// start or the end of a page are read and sorted.
pub(super) async fn page(
    session: &Session,
    table: &Table,
    after: Option<&str>,
    limit: usize,
    horizon: Revision,
) -> Result<Vec<Record>, Failure> {
    let reader = Pages {
        session,
        table,
        horizon,
    };
    let mut found = Vec::new();
    let from = match after {
        None => From::Begin,
        Some(after) if table.adopted.is_some() => From::After(before_nul(after).to_owned()),
        Some(after) => {
            let stored = StoredKey::new(after);
            if stored.long.is_none() {
                From::After(stored.key.into_owned())
            } else {
                let beginning = keys::beginning(&stored.key);
                found = reader.alike(beginning).await?;
                From::After(keys::above(beginning))
            }
        }
    };
    found.extend(reader.run(from, limit).await?);
    if let Some(last) = found.last().and_then(|last| last.row_key.clone()) {
        found.extend(reader.alike(keys::beginning(&last)).await?);
    }
    let mut records: Vec<_> = found.into_iter().map(|stored| stored.record).collect();
    records.retain(|record| after.is_none_or(|after| *record.key > *after));
    records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    records.dedup_by(|a, b| a.key == b.key);
    records.truncate(limit);
    Ok(records)
}

/// The start of a run of rows.
enum From {
    Begin,
    After(String),
}

struct Pages<'a> {
    session: &'a Session,
    table: &'a Table,
    horizon: Revision,
}

impl Pages<'_> {
    async fn run(&self, from: From, limit: usize) -> Result<Vec<Stored>, Failure> {
        let key = self.table.key_by_bytes();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let statement = match from {
            From::Begin => {
                let rest = format!("ORDER BY {key} LIMIT {limit}");
                Statement::new(self.table.select(&rest))
            }
            From::After(after) => {
                let rest = format!("WHERE {key} > $1 ORDER BY {key} LIMIT {limit}");
                Statement::new(self.table.select(&rest)).with(after, Type::TEXT)
            }
        };
        rows(self.session, self.table, &statement, self.horizon).await
    }

    /// All long keys with this beginning.
    async fn alike(&self, beginning: &str) -> Result<Vec<Stored>, Failure> {
        let key = self.table.key_by_bytes();
        let rest = format!("WHERE {key} > $1 AND {key} < $2");
        let statement = Statement::new(self.table.select(&rest))
            .with(beginning, Type::TEXT)
            .with(keys::above(beginning), Type::TEXT);
        rows(self.session, self.table, &statement, self.horizon).await
    }
}
