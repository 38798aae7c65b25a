//! Tombstones: records of deletions, for readers that follow the changes of a map.
//!
//! One table holds the tombstones of all maps. The statement of a deletion also writes its
//! tombstone. A key that is put again keeps its tombstone, and loads skip it while the key
//! has a row, so puts have no extra cost. A clear is one [watermark](super::watermarks) of
//! the map, and deletes its tombstones.
//!
//! Pruning deletes the tombstones of whole commits, oldest first, and stores the last
//! pruned revision in the same statement. A load is one snapshot, so a reader sees both or
//! neither. Some commits prune, and so does closing a map.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{
    changes::{Delete, Stamp},
    options::{Options, literal},
    statement::Statement,
    table::Table,
    values::Moment,
    watermarks::Watermark,
};
use crate::{name::MapName, record::Cause};

/// About how many tombstones one pruning deletes. A commit waits for it.
const MAX_PRUNED: usize = 10_000;

/// Above this time, tombstones are kept for ever.
const MAX_KEPT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The tombstones of a map whose table this provider created.
#[derive(Debug)]
pub(super) struct Tombstones {
    /// The table of all tombstones, as it is written in SQL.
    table: String,
    map: i32,
}

impl Tombstones {
    pub(super) fn new(options: &Options, map: i32) -> Self {
        Self {
            table: table(options),
            map,
        }
    }

    /// Deletes rows and writes their tombstones. If the revision is `NULL`, nothing is
    /// deleted.
    pub(super) fn delete<'a>(
        &self,
        of: &Table,
        deletes: &'a [Delete<'a>],
        stamp: Stamp<'_>,
    ) -> Statement<'a> {
        let Table { name, key, .. } = of;
        let Self { table, map } = self;
        let Stamp {
            revision, writer, ..
        } = stamp;
        let sql = format!(
            "WITH gone AS (
                DELETE FROM {name} AS t USING unnest($1::text[], $2::int8[]) AS u (k, cause)
                WHERE t.{key} = u.k AND {revision} IS NOT NULL
                RETURNING t.{key} AS key, t.long_key, u.cause)
             INSERT INTO {table} (map, key, long_key, revision, cause, writer, at)
             SELECT {map}, key, long_key, {revision}, cause, '{writer}', $3 FROM gone
             ON CONFLICT (map, key) DO UPDATE SET
                revision = excluded.revision, cause = excluded.cause,
                writer = excluded.writer, at = excluded.at"
        );
        Statement::new(sql)
            .array(deletes.iter().map(|d| &*d.key.key), Type::TEXT_ARRAY)
            .array(deletes.iter().map(|d| number_of(d.cause)), Type::INT8_ARRAY)
            .with(Moment::new(stamp.at), Type::TIMESTAMPTZ)
    }

    /// Deletes all tombstones of a cleared map.
    pub(super) fn clear<'a>(&self, revision: &str) -> Statement<'a> {
        let Self { table, map } = self;
        Statement::new(format!(
            "DELETE FROM {table} WHERE map = {map} AND {revision} IS NOT NULL"
        ))
    }

    /// The tombstones `d` of keys without a row that meet a condition.
    pub(super) fn of_missing_rows(&self, of: &Table, condition: &str) -> String {
        let Table { name, key, .. } = of;
        let Self { table, map } = self;
        format!(
            "{table} AS d WHERE d.map = {map} AND {condition}
                AND NOT EXISTS (SELECT 1 FROM {name} AS t WHERE t.{key} = d.key)"
        )
    }
}

/// Columns shared with a map's table have the same types.
pub(super) fn create(options: &Options) -> String {
    let table = table(options);
    format!(
        "CREATE TABLE {table} (
            map integer NOT NULL,
            key text COLLATE \"C\" NOT NULL,
            long_key text COLLATE \"C\",
            revision bigint NOT NULL,
            cause bigint NOT NULL,
            writer uuid NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (map, key)
        );
        CREATE INDEX ON {table} (map, revision)"
    )
}

/// Deletes all tombstones of a dropped map.
pub(super) fn drop_all(options: &Options, map: i32) -> String {
    format!("DELETE FROM {} WHERE map = {map}", table(options))
}

/// A query that returns a row if a map has tombstones that are old enough to prune.
pub(super) fn any_to_prune(options: &Options, map: &MapName) -> String {
    format!(
        "SELECT 1 FROM {} AS d JOIN {} AS m ON m.id = d.map WHERE m.name = {} AND {} LIMIT 1",
        table(options),
        options.qualified("persistify_maps"),
        literal(map.as_str()),
        is_old(options),
    )
}

/// Prunes the oldest tombstones of a map; returns a row if there were any.
///
/// It holds the lock of the map's counter, like a commit, so no commit to the map writes
/// tombstones at the same time. If a commit is in flight, pruning is left to that commit
/// or the next one. A tombstone that was rewritten between the snapshot of this statement
/// and the lock stays: its revision is checked again before it is deleted.
pub(super) fn prune(options: &Options, map: &MapName) -> String {
    let (table, is_old) = (table(options), is_old(options));
    let [maps, meta] =
        ["maps", "meta"].map(|name| options.qualified(&format!("persistify_{name}")));
    format!(
        "WITH counter AS (
            SELECT id FROM {maps} WHERE name = {} FOR NO KEY UPDATE SKIP LOCKED),
         oldest AS (
            SELECT d.revision, d.at FROM {table} AS d JOIN counter ON d.map = counter.id
            ORDER BY d.revision LIMIT {MAX_PRUNED}),
         last AS (SELECT max(revision) AS revision FROM oldest AS d WHERE {is_old}),
         gone AS (
            DELETE FROM {table} AS d USING counter, last
            WHERE d.map = counter.id AND d.revision <= last.revision)
         INSERT INTO {meta} AS m (name, value)
            SELECT {}, revision FROM last WHERE revision IS NOT NULL
            ON CONFLICT (name) DO UPDATE SET value = greatest(m.value, excluded.value)
            RETURNING 1",
        literal(map.as_str()),
        literal(&Watermark::Pruned.name(map)),
    )
}

/// The deletion is compared with the server's clock, like the last batch of a writer.
fn is_old(options: &Options) -> String {
    let kept = options.tombstones_kept.min(MAX_KEPT).as_micros();
    format!("d.at <= now() - {kept} * interval '1 microsecond'")
}

fn table(options: &Options) -> String {
    options.qualified("persistify_tombstones")
}

fn number_of(cause: Cause) -> i64 {
    match cause {
        Cause::Removed => 0,
        Cause::Expired => 1,
    }
}

/// The cause that is stored as this number.
pub(super) fn cause_of(number: i64) -> Cause {
    match number {
        1 => Cause::Expired,
        _ => Cause::Removed,
    }
}

/// Whether a commit should prune: after about every thousandth deletion. So a map never
/// has many more tombstones than were written within the retention time.
pub(super) fn is_time_to_prune(deleted_before: usize, deletes: usize) -> bool {
    const EVERY: usize = 1_000;
    deleted_before / EVERY != deleted_before.wrapping_add(deletes) / EVERY
}
