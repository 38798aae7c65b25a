//! Watermarks: revisions of a map beside its counter, kept even if the map is not in the
//! catalog.
//!
//! They are rows of `persistify_meta`. Each is written under the lock of the map's
//! counter.

use std::collections::HashMap;

use tokio_postgres::{Row, types::Type};

use super::{errors::Failure, options::Options, statement::Statement};
use crate::{name::MapName, provider::sql::numbers::to_revision, record::Revision};

/// The kinds of watermarks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Watermark {
    /// The map was dropped.
    Dropped,
    /// The last clear.
    Cleared,
    /// The last commit whose tombstones are pruned.
    Pruned,
}

impl Watermark {
    const ALL: [Self; 3] = [Self::Dropped, Self::Cleared, Self::Pruned];

    fn word(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Cleared => "cleared",
            Self::Pruned => "pruned",
        }
    }

    /// The name of the row.
    pub(super) fn name(self, map: &MapName) -> String {
        format!("{} {map}", self.word())
    }

    /// Sets the watermark to a revision, an SQL expression. If it is `NULL`, nothing is
    /// changed.
    pub(super) fn set<'a>(self, options: &Options, map: &MapName, revision: &str) -> Statement<'a> {
        let sql = format!(
            "INSERT INTO {} (name, value)
             SELECT $1, r FROM (SELECT {revision} AS r) AS new WHERE r IS NOT NULL
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            options.qualified("persistify_meta"),
        );
        Statement::new(sql).with(self.name(map), Type::TEXT)
    }

    pub(super) fn forget(self, options: &Options, map: &MapName) -> Statement<'static> {
        let meta = options.qualified("persistify_meta");
        let sql = format!("DELETE FROM {meta} WHERE name = $1");
        Statement::new(sql).with(self.name(map), Type::TEXT)
    }
}

/// The watermarks of a map.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watermarks {
    pub(super) dropped: Option<Revision>,
    pub(super) cleared: Option<Revision>,
    pub(super) pruned: Option<Revision>,
}

/// The query for the watermarks of these maps.
pub(super) fn query<'m>(
    options: &Options,
    maps: impl Iterator<Item = &'m MapName>,
) -> Statement<'static> {
    let sql = format!(
        "SELECT convert_to(name, 'UTF8'), value FROM {} WHERE name = ANY($1)",
        options.qualified("persistify_meta")
    );
    let names = maps.flat_map(|map| Watermark::ALL.map(|watermark| watermark.name(map)));
    Statement::new(sql).array(names, Type::TEXT_ARRAY)
}

/// The watermarks that [`query`] returned.
pub(super) fn read(rows: &[Row]) -> Result<HashMap<MapName, Watermarks>, Failure> {
    let mut found: HashMap<_, Watermarks> = HashMap::new();
    for row in rows {
        let name: &[u8] = row.try_get(0)?;
        let name = String::from_utf8_lossy(name);
        let (word, map) = name.split_once(' ').unwrap_or_default();
        let of_map = found.entry(MapName::parse(map)?).or_default();
        let revision = Some(to_revision(row.try_get(1)?));
        match word {
            "dropped" => of_map.dropped = revision,
            "cleared" => of_map.cleared = revision,
            _ => of_map.pruned = revision,
        }
    }
    Ok(found)
}
