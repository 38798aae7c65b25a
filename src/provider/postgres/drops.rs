//! Dropping maps.

use super::{
    Shared,
    catalog::{Entry, list},
    errors::Failure,
    options::Options,
    sessions::Session,
    tombstones, transaction,
    watermarks::{self, Watermark},
};
use crate::{
    error::Result,
    name::MapName,
    provider::{ledger, sql::numbers::from_revision},
};

/// Drops a map in one transaction. The revision of the drop fences its writers. An adopted
/// table stays; only its companion is dropped.
pub(super) async fn drop_map(shared: &Shared, map: &MapName) -> Result<(), Failure> {
    let session = shared.connections.session().await?;
    match drop_locked(&session, &shared.options, map).await {
        Ok(()) => session.end("COMMIT").await.map_err(Failure::committing),
        Err(failure) => Err(session.abandon(failure.on_map(map)).await),
    }
}

/// A map that is missing in the catalog is added first, so that there is a row to lock. A
/// commit that creates the map at the same time waits for that row; it then finds the map
/// missing, adds it again, and reads the revision of the drop.
async fn drop_locked(session: &Session, options: &Options, map: &MapName) -> Result<(), Failure> {
    session.begin(&transaction::begin(options)).await?;
    list(session, options, map).await?;
    let entry = Entry::find(session, options, map, "FOR UPDATE").await?;
    let before = watermarks::query(options, [map].into_iter());
    let before = watermarks::read(&session.rows(&before).await?)?;
    let before = before.get(map).and_then(|before| before.dropped);
    let counter = entry.as_ref().map(|entry| entry.revision);
    let revision = ledger::clearing(map).revision_after(counter.max(before).unwrap_or_default());
    let revision = from_revision(revision)?.to_string();
    // To a reader that follows the map, the drop is a clear: it needs no older tombstones.
    let fence = Watermark::Dropped.set(options, map, &revision);
    session.execute(&fence).await?;
    for older in [Watermark::Cleared, Watermark::Pruned] {
        session.execute(&older.forget(options, map)).await?;
    }
    let Some(entry) = entry else {
        return Ok(());
    };
    let table = options.qualified(entry.companion.as_ref().unwrap_or(&entry.table));
    let maps = options.qualified("persistify_maps");
    let id = entry.id;
    let tombstones = tombstones::drop_all(options, id);
    let gone =
        format!("DROP TABLE IF EXISTS {table}; {tombstones}; DELETE FROM {maps} WHERE id = {id}");
    session.batch(&gone).await
}
