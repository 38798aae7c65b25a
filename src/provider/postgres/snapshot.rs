//! Snapshots of the database for loads.

use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::{join, join3, join5};
use tokio_postgres::Client;

use super::{
    Shared,
    adopted::Rows,
    catalog::{self, ENTRY, ENTRY_COLUMNS, Entry},
    changed,
    errors::Failure,
    incarnations,
    options::{Options, literal},
    sessions::Session,
    statement::Statement,
    table::{Adopted, Table},
    tombstones::Tombstones,
    transaction,
    watermarks::{self, Watermarks},
};
use crate::{
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    load::Wanted,
    name::MapName,
    provider::sql::numbers::{from_revision, revision_now},
    record::Revision,
    trace::PROVIDER,
};

/// A snapshot of the database, and the state of a map that is read before its rows.
pub(super) struct ReadSnapshot {
    pub(super) session: Session,
    pub(super) table: Option<Table>,
    /// The tombstones of a table that this provider created.
    pub(super) tombstones: Option<Tombstones>,
    pub(super) watermarks: Watermarks,
    /// Whether the table has an index of the revisions.
    is_indexed: bool,
    pub(super) horizon: Revision,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) total: Option<u64>,
}

impl ReadSnapshot {
    fn adopted(&self) -> Option<(&Table, &Adopted)> {
        let table = self.table.as_ref()?;
        Some((table, table.adopted.as_ref()?))
    }
}

/// Begins a snapshot in which all earlier writes of other programs have revisions, and
/// changes are found by an index.
pub(super) async fn begin(
    shared: &Shared,
    map: &MapName,
    wanted: &Wanted,
) -> Result<ReadSnapshot, Failure> {
    let snapshot = snapshot(shared, map, wanted).await?;
    let is_changed = matches!(wanted, Wanted::Changed { .. });
    let Some((table, adopted)) = snapshot.adopted() else {
        if is_changed && !snapshot.is_indexed && !shared.only_reads.load(Relaxed) {
            snapshot.session.end("ROLLBACK").await?;
            index(shared, map).await;
            return self::snapshot(shared, map, wanted).await;
        }
        return Ok(snapshot);
    };
    if is_changed {
        let failure = changed::not_told(map).into();
        return Err(snapshot.session.abandon(failure).await);
    }
    let rows = Rows::of(table, adopted, wanted);
    match adopted.any_new(&snapshot.session, &rows).await {
        Ok(false) => return Ok(snapshot),
        Ok(true) => snapshot.session.end("ROLLBACK").await?,
        Err(failure) => return Err(snapshot.session.abandon(failure).await),
    }
    note(shared, map, wanted).await?;
    // Writes of the other program between the two are loaded too, with the revision of
    // the snapshot, and noted by a later load.
    self::snapshot(shared, map, wanted).await
}

/// Tries to create the index of the revisions; without it, loads of changes are only
/// slower.
async fn index(shared: &Shared, map: &MapName) {
    if let Err(failure) = changed::make_index(shared, map).await {
        if failure.is_read_only() {
            shared.only_reads.store(true, Relaxed);
        }
        let error = failure.explained(&shared.options.database);
        tracing::warn!(target: PROVIDER, %map, %error, "the index of the revisions could not be made; loads of changes read the whole table");
    }
}

/// Notes the writes of other programs to an adopted table. It holds the lock of the
/// counter, so the new revision exceeds all earlier ones of the map.
async fn note(shared: &Shared, map: &MapName, wanted: &Wanted) -> Result<(), Failure> {
    let session = shared.connections.session().await?;
    match note_locked(&session, &shared.options, map, wanted).await {
        Ok(()) => session.end("COMMIT").await,
        Err(failure) => Err(session.abandon(failure).await),
    }
}

async fn note_locked(
    session: &Session,
    options: &Options,
    map: &MapName,
    wanted: &Wanted,
) -> Result<(), Failure> {
    session.begin(&transaction::begin(options)).await?;
    let Some(entry) = Entry::find(session, options, map, "FOR NO KEY UPDATE").await? else {
        return Err(catalog::no_longer_listed(map).into());
    };
    let table = entry.table(options);
    let Some(adopted) = &table.adopted else {
        return Ok(());
    };
    let revision = from_revision(revision_now(entry.revision))?;
    let rows = Rows::of(&table, adopted, wanted);
    if adopted.note_new(session, &rows, revision).await? {
        let catalog = options.qualified("persistify_maps");
        let id = entry.id;
        let raise = format!("UPDATE {catalog} SET revision = {revision} WHERE id = {id}");
        session.batch(&raise).await?;
    }
    Ok(())
}

/// Begins a snapshot, on another connection if the first one is broken.
async fn snapshot(
    shared: &Shared,
    map: &MapName,
    wanted: &Wanted,
) -> Result<ReadSnapshot, Failure> {
    let look = async |session: Session| {
        let found = look(&session, shared, map, wanted).await;
        (session, found)
    };
    let (session, found) = shared.connections.begin(look).await?;
    let MapState {
        entry,
        total,
        incarnation,
        is_indexed,
        watermarks,
    } = found;
    let counter = entry.as_ref().map(|entry| entry.revision);
    let horizon = counter.max(watermarks.dropped);
    let tombstones = entry
        .as_ref()
        .and_then(|entry| entry.tombstones(&shared.options));
    Ok(ReadSnapshot {
        session,
        tombstones,
        watermarks,
        is_indexed,
        table: entry.map(|entry| entry.table(&shared.options)),
        horizon: horizon.unwrap_or_default(),
        incarnation,
        total,
    })
}

/// The state of a map that is read before its rows.
struct MapState {
    entry: Option<Entry>,
    total: Option<u64>,
    incarnation: Option<Incarnation>,
    is_indexed: bool,
    watermarks: Watermarks,
}

/// The first query takes the snapshot, and all others read in it. So the counter and the
/// rows belong together.
async fn look(
    session: &Session,
    shared: &Shared,
    map: &MapName,
    wanted: &Wanted,
) -> Result<MapState, Failure> {
    let (client, options) = (session.client()?, &shared.options);
    let begin = begin_reading(options, wanted);
    let sql = format!(
        "SELECT {ENTRY}, {}, {} FROM {} WHERE name = $1",
        catalog::about_rows(options),
        catalog::is_indexed(options),
        options.qualified("persistify_maps")
    );
    let entry = Statement::new(sql).text(map.as_str());
    let incarnation = incarnations::query(options);
    let watermarks = watermarks::query(options, [map].into_iter());
    session.begins();
    let answers = join5(
        wait_for_commit(client, shared, map, wanted),
        client.batch_execute(&begin),
        entry.rows(client),
        incarnation.rows(client),
        watermarks.rows(client),
    );
    let ((), started, entry, incarnation, watermarks) = session.in_time(7, answers).await?;
    started?;
    let (entry, incarnation) = (entry?, incarnations::read(&incarnation?)?);
    let watermarks = watermarks::read(&watermarks?)?;
    let watermarks = watermarks.get(map).copied().unwrap_or_default();
    let Some(row) = entry.first() else {
        check_unlisted(session, options, map).await?;
        return Ok(MapState {
            entry: None,
            total: None,
            incarnation,
            is_indexed: true,
            watermarks,
        });
    };
    let total = row.try_get::<_, Option<i64>>(ENTRY_COLUMNS)?;
    let total = total.filter(|rows| *rows > 0);
    Ok(MapState {
        entry: Some(Entry::read(row)?),
        total: total.and_then(|rows| u64::try_from(rows).ok()),
        incarnation,
        is_indexed: row.try_get(ENTRY_COLUMNS + 1)?,
        watermarks,
    })
}

/// Waits until the commit to the map that is in flight has landed or is rolled back: a
/// program that was killed during a commit and started again must not load the map
/// before that commit lands.
///
/// It is pipelined with the statements that follow, so it costs no round trip. If the
/// user may not lock the counter, or the lock times out, the load proceeds without.
async fn wait_for_commit(client: &Client, shared: &Shared, map: &MapName, wanted: &Wanted) {
    if *wanted != Wanted::All || shared.only_reads.load(Relaxed) {
        return;
    }
    let options = &shared.options;
    let begin = transaction::begin(options);
    let sql = format!(
        "SELECT 1 FROM {} WHERE name = $1 FOR SHARE",
        options.qualified("persistify_maps")
    );
    let locked = Statement::new(sql).text(map.as_str());
    let answers = join3(
        client.batch_execute(&begin),
        locked.rows(client),
        client.batch_execute("ROLLBACK"),
    );
    // The statements that follow report any other error.
    if let (_, Err(cause), _) = answers.await {
        if Failure::from(cause).is_read_only() {
            shared.only_reads.store(true, Relaxed);
        }
    }
}

/// A map that is not in the catalog is empty, unless its table exists.
async fn check_unlisted(
    session: &Session,
    options: &Options,
    map: &MapName,
) -> Result<(), Failure> {
    if options.adopted.contains_key(map) {
        return Err(catalog::no_longer_listed(map).into());
    }
    // In the same snapshot, because another process may be creating it now.
    let sql = "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2";
    let table = catalog::table_of(map);
    let asked = Statement::new(sql).text(&options.schema).text(&table);
    match session.row(&asked).await? {
        Some(_) => Err(catalog::in_the_way(map, &table).into()),
        None => Ok(()),
    }
}

/// A statement that streams takes as long as its consumer, so it has no time limit; each
/// row shows that the server is alive.
fn begin_reading(options: &Options, wanted: &Wanted) -> String {
    let limit = match wanted {
        Wanted::All | Wanted::Changed { .. } => 0,
        _ => options.statement_timeout.as_millis(),
    };
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
         SET LOCAL client_encoding = 'UTF8';
         SET LOCAL lock_timeout = {};
         SET LOCAL statement_timeout = {limit};
         SET LOCAL idle_in_transaction_session_timeout = {}",
        options.lock_timeout.as_millis(),
        transaction::MAX_STANDSTILL.as_millis(),
    )
}

/// Reads in the snapshot, unless its rows are invisible.
///
/// `ALTER TABLE` may rewrite a table, and an older snapshot then sees none of its rows.
/// So the table is locked and compared with the catalog of the snapshot; both statements
/// are sent together with the query.
pub(super) async fn read<T>(
    session: &Session,
    table: &Table,
    reading: impl Future<Output = Result<T, Failure>>,
) -> Result<Option<T>, Failure> {
    let (is_there, read) = join(is_there(session, table), reading).await;
    Ok(if is_there? { Some(read?) } else { None })
}

async fn is_there(session: &Session, table: &Table) -> Result<bool, Failure> {
    let companion = table
        .adopted
        .as_ref()
        .map(|adopted| &adopted.companion.name);
    let names: Vec<_> = [Some(&table.name), companion]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
    let oids: Vec<_> = names
        .iter()
        .map(|name| format!("{}::regclass", literal(name)))
        .collect();
    let count = format!(
        "SELECT count(*) FROM pg_class AS c WHERE c.oid IN ({})
         AND c.relfilenode = coalesce(pg_relation_filenode(c.oid), 0)",
        oids.join(", ")
    );
    let client = session.client()?;
    let answers = join(
        client.batch_execute(&lock),
        client.query_typed_one(&count, &[]),
    );
    let (locked, counted) = session.in_time(2, answers).await?;
    locked?;
    let counted: i64 = counted?.try_get(0)?;
    Ok(usize::try_from(counted) == Ok(names.len()))
}

/// The error if the table was rewritten before each attempt to read it.
pub(super) fn never_still() -> Error {
    let message = "the table of the map was altered during each attempt to load it; try again";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}
