//! Maps that are dropped.

use std::collections::HashMap;

use tokio_postgres::{Row, types::Type};

use super::{
    Shared,
    catalog::{Entry, list},
    errors::Failure,
    options::Options,
    sessions::Session,
    statement::Statement,
    transaction,
};
use crate::{
    error::Result,
    name::MapName,
    provider::{
        ledger,
        sql::numbers::{from_revision, to_revision},
    },
    record::Revision,
};

/// The revisions at which maps were last dropped.
pub(super) type Drops = HashMap<MapName, Revision>;

/// Drops a map, in one transaction; its writers are fenced by the revision of the
/// drop. A table of another program stays, and only its companion goes.
pub(super) async fn drop_map(shared: &Shared, map: &MapName) -> Result<(), Failure> {
    let session = shared.connections.session().await?;
    match drop_locked(&session, &shared.options, map).await {
        Ok(()) => session.end("COMMIT").await.map_err(Failure::committing),
        Err(failure) => Err(session.abandon(failure.on_map(map)).await),
    }
}

/// A map that is not listed is listed first, so that there is a row to lock. A
/// commit that makes the map at the same time waits for that row; then it finds the
/// map missing, lists it anew, and reads the revision of the drop.
async fn drop_locked(session: &Session, options: &Options, map: &MapName) -> Result<(), Failure> {
    session.begin(&transaction::begin(options)).await?;
    list(session, options, map).await?;
    let entry = Entry::find(session, options, map, "FOR UPDATE").await?;
    let before = session.rows(&query(options, [map].into_iter())).await?;
    let before = read(&before)?.get(map).copied();
    let counter = entry.as_ref().map(|entry| entry.revision);
    let revision = ledger::clearing(map).revision_after(counter.max(before).unwrap_or_default());
    let fence = format!(
        "INSERT INTO {} (name, value) VALUES ($1, {}) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        options.qualified("persistify_meta"),
        from_revision(revision)?
    );
    let name = fence_of(map);
    session.execute(&Statement::new(fence).text(&name)).await?;
    let Some(entry) = entry else {
        return Ok(());
    };
    let table = options.qualified(entry.companion.as_ref().unwrap_or(&entry.table));
    let maps = options.qualified("persistify_maps");
    let id = entry.id;
    let gone = format!("DROP TABLE IF EXISTS {table}; DELETE FROM {maps} WHERE id = {id}");
    session.batch(&gone).await
}

/// The name under which the revision of a drop is kept.
fn fence_of(map: &MapName) -> String {
    format!("dropped {map}")
}

/// A query for the revisions at which these maps were dropped.
pub(super) fn query<'m>(
    options: &Options,
    maps: impl Iterator<Item = &'m MapName>,
) -> Statement<'static> {
    let sql = format!(
        "SELECT convert_to(name, 'UTF8'), value FROM {} WHERE name = ANY($1)",
        options.qualified("persistify_meta")
    );
    Statement::new(sql).array(maps.map(fence_of), Type::TEXT_ARRAY)
}

/// What [`query`] has found.
pub(super) fn read(rows: &[Row]) -> Result<Drops, Failure> {
    let drops = rows.iter().map(|row| {
        let name: &[u8] = row.try_get(0)?;
        let name = String::from_utf8_lossy(name);
        let map = MapName::parse(name.strip_prefix("dropped ").unwrap_or(&name))?;
        Ok((map, to_revision(row.try_get(1)?)))
    });
    drops.collect()
}
