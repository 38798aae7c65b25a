//! Loads: a snapshot of a table, streamed.

use std::sync::Arc;

use futures_util::{StreamExt, future::join, stream};
use tokio_postgres::{CopyOutStream, types::Type};

use super::{
    Shared, adopted,
    connections::{Connections, Lease},
    copy::CopiedRows,
    errors::Fault,
    options::Options,
    page,
    pipeline::Statement,
    place::{self, PLACE, PLACE_COLUMNS, Place},
    rows::{Reading, rows},
    table::{Adopted, Table},
    transaction,
    values::{revision_now, revision_to},
};
use crate::{
    error::Result,
    load::{Load, PAGE_RECORDS, Wanted},
    name::MapName,
    record::{Record, Revision},
};

/// A page of large values ends early.
const PAGE_BYTES: usize = 1024 * 1024;

/// How often it is noted what another program wrote, before its rows are taken
/// as they are: one that writes all the time does not keep a map from opening.
const MAX_ROUNDS: usize = 4;

/// One state of the database, which nobody changes while it is read.
struct Snapshot {
    lease: Lease,
    table: Option<Table>,
    horizon: Revision,
    total: Option<u64>,
}

/// Loads the wanted records of a map.
pub(super) async fn load(
    shared: &Arc<Shared>,
    map: &MapName,
    wanted: Wanted,
) -> Result<Load<'static>> {
    let loaded = begin(shared, map, wanted).await;
    loaded.map_err(|fault| fault.on_map(map).explained(&shared.options.place))
}

async fn begin(
    shared: &Arc<Shared>,
    map: &MapName,
    wanted: Wanted,
) -> Result<Load<'static>, Fault> {
    let snapshot = fresh(&shared.connections, &shared.options, map, &wanted).await?;
    let Snapshot {
        lease,
        table,
        horizon,
        total,
    } = snapshot;
    let Some(table) = table else {
        lease.end().await?;
        return Ok(Load::of(horizon, Vec::new()));
    };
    let rest = match wanted {
        Wanted::All => String::new(),
        Wanted::Changed { after } => changed(&table, after),
        Wanted::Keys(_) | Wanted::Page { .. } => {
            let records = some(&lease, &table, &wanted, horizon).await;
            let records = match records {
                Ok(records) => records,
                Err(fault) => return Err(lease.abandon(fault).await),
            };
            lease.end().await?;
            return Ok(Load::of(horizon, records).with_total_hint(None));
        }
    };
    let copy = format!("COPY ({}) TO STDOUT (FORMAT binary)", table.select(&rest));
    let started = match lease.client() {
        Ok(client) => lease.answer(client.copy_out(&copy)).await,
        Err(fault) => Err(fault),
    };
    let rows = match started {
        Ok(rows) => rows,
        Err(fault) => return Err(lease.abandon(fault).await),
    };
    let total = total.filter(|_| rest.is_empty());
    let streaming = Streaming {
        lease,
        table,
        horizon,
        rows: Box::pin(rows),
        copied: CopiedRows::default(),
        place: shared.options.place.clone(),
    };
    Ok(Load::new(horizon, streaming.pages().boxed()).with_total_hint(total))
}

/// Rows that another program writes in this very moment are taken as changed.
fn changed(table: &Table, after: Revision) -> String {
    // No revision is higher than Postgres's highest number.
    let after = i64::try_from(after.get()).unwrap_or(i64::MAX);
    match table.adopted {
        None => format!("WHERE t.revision > {after}"),
        Some(_) => Adopted::changed(table, after),
    }
}

/// A snapshot in which everything that another program wrote has its revision.
async fn fresh(
    connections: &Connections,
    options: &Options,
    map: &MapName,
    wanted: &Wanted,
) -> Result<Snapshot, Fault> {
    let mut rounds = 0;
    loop {
        let snapshot = snapshot(connections, options, map, wanted).await?;
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
    let place = Place::read(&lease.answer(asked.one(client)).await?)?;
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
async fn snapshot(
    connections: &Connections,
    options: &Options,
    map: &MapName,
    wanted: &Wanted,
) -> Result<Snapshot, Fault> {
    loop {
        let lease = connections.lease().await?;
        match look(&lease, options, map, wanted).await {
            Ok((place, total)) => {
                let horizon = place
                    .as_ref()
                    .map_or(Revision::ZERO, |place| place.revision);
                return Ok(Snapshot {
                    lease,
                    table: place.map(|place| place.table(options)),
                    horizon,
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
    options: &Options,
    map: &MapName,
    wanted: &Wanted,
) -> Result<(Option<Place>, Option<u64>), Fault> {
    let client = lease.client()?;
    let begin = begin_reading(options, wanted);
    let sql = format!(
        "SELECT {PLACE}, {} FROM {} WHERE name = $1",
        place::about_rows(options),
        options.qualified("persistify_maps")
    );
    let asked = Statement::new(sql).with(map.as_str(), Type::TEXT);
    let answers = join(client.batch_execute(&begin), asked.row(client));
    let (started, found) = lease.in_time(2, answers).await?;
    started?;
    let Some(row) = found? else {
        return Ok((None, None));
    };
    let total = row
        .try_get::<_, Option<i64>>(PLACE_COLUMNS)?
        .filter(|rows| *rows > 0);
    Ok((
        Some(Place::read(&row)?),
        total.and_then(|rows| u64::try_from(rows).ok()),
    ))
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
         SET LOCAL lock_timeout = {};
         SET LOCAL statement_timeout = {limit};
         SET LOCAL idle_in_transaction_session_timeout = {}",
        options.lock_timeout.as_millis(),
        transaction::MAX_STANDSTILL.as_millis(),
    )
}

async fn some(
    lease: &Lease,
    table: &Table,
    wanted: &Wanted,
    horizon: Revision,
) -> Result<Vec<Record>, Fault> {
    match wanted {
        Wanted::Page { after, limit } => {
            page::page(lease, table, after.as_deref(), *limit, horizon).await
        }
        Wanted::Keys(keys) => {
            let keys = table.keys(keys.iter().map(|key| &**key));
            some_keys(lease, table, keys, horizon).await
        }
        Wanted::All | Wanted::Changed { .. } => Ok(Vec::new()),
    }
}

/// The records of keys as their rows have them.
pub(super) async fn some_keys(
    lease: &Lease,
    table: &Table,
    keys: Vec<String>,
    horizon: Revision,
) -> Result<Vec<Record>, Fault> {
    let rest = format!("WHERE t.{} = ANY($1)", table.key);
    let statement = Statement::new(table.select(&rest)).with(keys, Type::TEXT_ARRAY);
    let rows = rows(lease, table, &statement, horizon).await?;
    Ok(rows.into_iter().map(|stored| stored.record).collect())
}

/// A load that is under way. It takes rows as fast as it is asked for them.
struct Streaming {
    lease: Lease,
    table: Table,
    horizon: Revision,
    rows: std::pin::Pin<Box<CopyOutStream>>,
    copied: CopiedRows,
    place: String,
}

impl Streaming {
    fn pages(self) -> impl stream::Stream<Item = Result<Vec<Record>>> + Send {
        stream::unfold(Some(self), async |streaming| {
            let mut streaming = streaming?;
            let (page, ended) = match streaming.page().await {
                Ok(page) => page,
                Err(fault) => {
                    let map = &streaming.table.map;
                    let error = fault.on_map(map).explained(&streaming.place);
                    return Some((Err(error), None));
                }
            };
            if !ended {
                return Some((Ok(page), Some(streaming)));
            }
            // All rows are here: a connection that does not end well is cut,
            // which is no trouble of who loaded them.
            let _ = streaming.lease.end().await;
            (!page.is_empty()).then_some((Ok(page), None))
        })
    }

    /// The next page, and whether it is the last one.
    async fn page(&mut self) -> Result<(Vec<Record>, bool), Fault> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let reading = Reading {
            table: &self.table,
            horizon: self.horizon,
        };
        while page.len() < PAGE_RECORDS && bytes < PAGE_BYTES {
            let Some(piece) = self.lease.in_time(1, self.rows.next()).await? else {
                return Ok((page, true));
            };
            let piece = piece?;
            bytes += piece.len();
            self.copied.read(&piece, |fields| {
                page.push(reading.record(fields, |value| piece.slice_ref(value))?);
                Ok(())
            })?;
        }
        Ok((page, false))
    }
}
