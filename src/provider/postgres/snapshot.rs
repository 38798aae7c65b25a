//! One state of the database, in which a load reads all it reads.

use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::{join, join3, join4};
use tokio_postgres::{Client, error::SqlState, types::Type};

use super::{
    Shared, adopted,
    connections::{Connections, Lease},
    errors::Fault,
    incarnations,
    options::Options,
    page,
    pipeline::Statement,
    place::{self, PLACE, PLACE_COLUMNS, Place},
    quoting::literal,
    table::Table,
    transaction,
    values::{revision_now, revision_to},
};
use crate::{
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    load::Wanted,
    name::MapName,
    record::Revision,
};

/// How often it is noted what another program wrote, before its rows are taken
/// as they are: one that writes all the time does not keep a map from opening.
/// And how often a table may be altered under a load.
pub(super) const MAX_ROUNDS: usize = 4;

/// One state of the database, which nobody changes while it is read.
pub(super) struct Snapshot {
    pub(super) lease: Lease,
    pub(super) table: Option<Table>,
    pub(super) horizon: Revision,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) total: Option<u64>,
}

/// A snapshot in which everything that another program wrote has its revision.
pub(super) async fn fresh(
    shared: &Shared,
    map: &MapName,
    wanted: &Wanted,
) -> Result<Snapshot, Fault> {
    let Shared {
        connections,
        options,
        ..
    } = shared;
    let mut rounds = 0;
    loop {
        let snapshot = snapshot(shared, map, wanted).await?;
        let Some(table) = snapshot.table.as_ref().filter(|t| t.adopted.is_some()) else {
            return Ok(snapshot);
        };
        let stale = match among(&snapshot.lease, table, wanted).await {
            Ok(among) => adopted::is_stale(&snapshot.lease, table, among.as_deref()).await,
            Err(fault) => Err(fault),
        };
        match stale {
            Ok(true) if rounds < MAX_ROUNDS => {}
            Ok(_) => return Ok(snapshot),
            Err(fault) => return Err(snapshot.lease.abandon(fault).await),
        }
        snapshot.lease.end().await?;
        note(connections, options, map, wanted).await?;
        rounds += 1;
    }
}

/// The rows in which changes of another program matter; `None` are all.
async fn among(
    lease: &Lease,
    table: &Table,
    wanted: &Wanted,
) -> Result<Option<Vec<String>>, Fault> {
    match wanted {
        Wanted::Keys(keys) => Ok(Some(table.keys(keys.iter().map(|key| &**key)))),
        Wanted::Page { after, limit } => {
            let rows = page::page(lease, table, after.as_deref(), *limit, Revision::ZERO).await?;
            Ok(Some(
                rows.iter().map(|record| record.key.to_string()).collect(),
            ))
        }
        // All of them, if the wanted ones are those that turn out to have
        // changed.
        Wanted::All | Wanted::Changed { .. } => Ok(None),
    }
}

/// Notes what another program wrote or deleted, under the lock of the counter:
/// so its revision is above all earlier ones of the map.
async fn note(
    connections: &Connections,
    options: &Options,
    map: &MapName,
    wanted: &Wanted,
) -> Result<(), Fault> {
    let lease = connections.lease().await?;
    match note_locked(&lease, options, map, wanted).await {
        Ok(()) => {
            lease.give_back();
            Ok(())
        }
        Err(fault) => Err(lease.abandon(fault).await),
    }
}

async fn note_locked(
    lease: &Lease,
    options: &Options,
    map: &MapName,
    wanted: &Wanted,
) -> Result<(), Fault> {
    let client = lease.client()?;
    lease
        .answer(client.batch_execute(&transaction::begin(options)))
        .await?;
    let maps = options.qualified("persistify_maps");
    let sql = format!("SELECT {PLACE} FROM {maps} WHERE name = $1 FOR NO KEY UPDATE");
    let asked = Statement::new(sql).with(map.as_str(), Type::TEXT);
    let Some(row) = lease.answer(asked.row(client)).await? else {
        return Err(place::no_longer_listed(map).into());
    };
    let place = Place::read(&row)?;
    let table = place.table(options);
    let among = among(lease, &table, wanted).await?;
    let revision = revision_to(revision_now(place.revision))?;
    let noted = adopted::note(lease, &table, among.as_deref(), revision).await?;
    let end = if noted {
        format!(
            "UPDATE {maps} SET revision = {revision} WHERE id = {}; COMMIT",
            place.id
        )
    } else {
        "ROLLBACK".to_owned()
    };
    lease.answer(client.batch_execute(&end)).await
}

/// Begins a snapshot; a connection that was lost meanwhile is no one's trouble.
async fn snapshot(shared: &Shared, map: &MapName, wanted: &Wanted) -> Result<Snapshot, Fault> {
    loop {
        let lease = shared.connections.lease().await?;
        match look(&lease, shared, map, wanted).await {
            Ok((place, total, incarnation)) => {
                let horizon = place
                    .as_ref()
                    .map_or(Revision::ZERO, |place| place.revision);
                return Ok(Snapshot {
                    lease,
                    table: place.map(|place| place.table(&shared.options)),
                    horizon,
                    incarnation,
                    total,
                });
            }
            Err(fault) if lease.was_stale(&fault) => {}
            Err(fault) => return Err(lease.abandon(fault).await),
        }
    }
}

/// The first query fixes the state; all else is read in it. So the counter and
/// the rows belong together.
async fn look(
    lease: &Lease,
    shared: &Shared,
    map: &MapName,
    wanted: &Wanted,
) -> Result<(Option<Place>, Option<u64>, Option<Incarnation>), Fault> {
    let (client, options) = (lease.client()?, &shared.options);
    let begin = begin_reading(options, wanted);
    let sql = format!(
        "SELECT {PLACE}, {} FROM {} WHERE name = $1",
        place::about_rows(options),
        options.qualified("persistify_maps")
    );
    let asked = Statement::new(sql).with(map.as_str(), Type::TEXT);
    let answers = join4(
        wait_out(client, shared, map, wanted),
        client.batch_execute(&begin),
        asked.row(client),
        incarnations::ask(client, options),
    );
    let ((), started, found, incarnation) = lease.in_time(6, answers).await?;
    started?;
    let found = found?;
    let incarnation = incarnations::read(&incarnation?)?;
    let Some(row) = found else {
        check_unlisted(lease, options, map).await?;
        return Ok((None, None, incarnation));
    };
    let total = row
        .try_get::<_, Option<i64>>(PLACE_COLUMNS)?
        .filter(|rows| *rows > 0);
    Ok((
        Some(Place::read(&row)?),
        total.and_then(|rows| u64::try_from(rows).ok()),
        incarnation,
    ))
}

/// Waits until what is just being committed to the map has landed, or is rolled
/// back: it may come from a program that was killed and is started again here,
/// and what lands after its load would be there unknown to it.
///
/// It is sent along with what follows, so it costs no round trip. Who may not
/// lock the counter, or waits in vain, loads what there is.
async fn wait_out(client: &Client, shared: &Shared, map: &MapName, wanted: &Wanted) {
    if *wanted != Wanted::All || shared.only_reads.load(Relaxed) {
        return;
    }
    let options = &shared.options;
    let begin = transaction::begin(options);
    let sql = format!(
        "SELECT 1 FROM {} WHERE name = $1 FOR SHARE",
        options.qualified("persistify_maps")
    );
    let locked = Statement::new(sql).with(map.as_str(), Type::TEXT);
    let answers = join3(
        client.batch_execute(&begin),
        locked.row(client),
        client.batch_execute("ROLLBACK"),
    );
    // Whatever else went wrong, what follows on the connection tells.
    if let (_, Err(cause), _) = answers.await {
        let denied = [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        if cause.code().is_some_and(|code| denied.contains(code)) {
            shared.only_reads.store(true, Relaxed);
        }
    }
}

/// A map that is not listed is an empty one, unless its table is there.
async fn check_unlisted(lease: &Lease, options: &Options, map: &MapName) -> Result<(), Fault> {
    if options.adopted.contains_key(map) {
        return Err(place::no_longer_listed(map).into());
    }
    // In the same snapshot: somebody may be making it just now.
    let sql = "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2";
    let table = place::table_of(map);
    let asked = Statement::new(sql.to_owned())
        .with(options.schema.as_str(), Type::TEXT)
        .with(table.as_str(), Type::TEXT);
    match lease.answer(asked.row(lease.client()?)).await? {
        Some(_) => Err(place::in_the_way(map, &table).into()),
        None => Ok(()),
    }
}

/// A statement that streams takes as long as whoever reads it; that someone is
/// still there is seen by each row, and not by a limit on the whole.
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

/// What is read in the snapshot, unless its rows are not there any more.
///
/// A table that someone alters is written anew, and then shows none of its rows
/// to those who look at an older state. So it is locked, and then compared with
/// what the catalogue of the snapshot says; all of that goes along with the
/// reading.
pub(super) async fn with<T>(
    lease: &Lease,
    table: &Table,
    reading: impl Future<Output = Result<T, Fault>>,
) -> Result<Option<T>, Fault> {
    let (is_there, read) = join(is_there(lease, table), reading).await;
    Ok(if is_there? { Some(read?) } else { None })
}

async fn is_there(lease: &Lease, table: &Table) -> Result<bool, Fault> {
    let companion = table.adopted.as_ref().map(|adopted| &adopted.companion);
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
    let client = lease.client()?;
    let answers = join(
        client.batch_execute(&lock),
        client.query_typed_one(&count, &[]),
    );
    let (locked, counted) = lease.in_time(2, answers).await?;
    locked?;
    let counted: i64 = counted?.try_get(0)?;
    Ok(usize::try_from(counted) == Ok(names.len()))
}

/// Each time that it was to be read, the table was written anew.
pub(super) fn never_still() -> Error {
    let message = "the table of the map is being altered again and again; it may be tried again";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}
