//! Loads: a snapshot of a table, streamed.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio_postgres::{CopyOutStream, types::Type};

use super::{
    Shared,
    changed::Changed,
    copy::CopiedRows,
    errors::Failure,
    page,
    rows::{Reading, rows},
    schema,
    sessions::Session,
    snapshot::{self, ReadSnapshot},
    statement::Statement,
    table::Table,
    watermarks::Watermarks,
};
use crate::{
    error::Result,
    load::{Load, PAGE_RECORDS, Wanted},
    name::MapName,
    record::{Record, Revision},
};

/// The number of times that a table may be rewritten during a load.
const MAX_ROUNDS: usize = 4;

/// A page of large values ends at this size.
const PAGE_BYTES: usize = 1024 * 1024;

/// Loads the wanted records of a map.
pub(super) async fn load(
    shared: &Arc<Shared>,
    map: &MapName,
    wanted: Wanted,
) -> Result<Load<'static>> {
    let Shared {
        connections,
        options,
        ..
    } = &**shared;
    let begin = || begin(shared, map, &wanted);
    let loaded = schema::on_tables(connections, options, begin).await;
    loaded.map_err(|failure| failure.on_map(map).explained(&shared.options.database))
}

async fn begin(
    shared: &Arc<Shared>,
    map: &MapName,
    wanted: &Wanted,
) -> Result<Load<'static>, Failure> {
    for _ in 0..MAX_ROUNDS {
        let snapshot = snapshot::begin(shared, map, wanted).await?;
        if let Some(load) = read(shared, snapshot, wanted).await? {
            return Ok(load);
        }
    }
    Err(snapshot::never_still().into())
}

/// `None` if the rows of the snapshot are invisible.
async fn read(
    shared: &Arc<Shared>,
    mut snapshot: ReadSnapshot,
    wanted: &Wanted,
) -> Result<Option<Load<'static>>, Failure> {
    let known = match wanted {
        Wanted::Changed { after, .. } => Some(*after),
        _ => None,
    };
    let is_new = |revision: &Revision| known.is_some_and(|known| *revision > known);
    let Watermarks {
        dropped,
        cleared,
        pruned,
    } = snapshot.watermarks;
    // To a reader that follows the map, a drop is a clear.
    let cleared = cleared.max(dropped).filter(is_new);
    let (pruned, incarnation) = (pruned.filter(is_new), snapshot.incarnation);
    let table = snapshot.table.take();
    let load = match (table.filter(|_| pruned.is_none()), wanted) {
        (None, _) => {
            snapshot.session.end("ROLLBACK").await?;
            Some(Load::of(snapshot.horizon, Vec::new()))
        }
        (Some(table), Wanted::Keys(_) | Wanted::Page { .. }) => {
            collected(snapshot, &table, wanted).await?
        }
        (Some(table), Wanted::All | Wanted::Changed { .. }) => {
            streamed(shared, snapshot, table, wanted).await?
        }
    };
    Ok(load.map(|load| {
        load.with_incarnation(incarnation)
            .with_cleared(cleared)
            .with_pruned_to(pruned)
    }))
}

/// A load that is read as a whole.
async fn collected(
    snapshot: ReadSnapshot,
    table: &Table,
    wanted: &Wanted,
) -> Result<Option<Load<'static>>, Failure> {
    let ReadSnapshot {
        session, horizon, ..
    } = snapshot;
    let records = some(&session, table, wanted, horizon);
    match snapshot::read(&session, table, records).await {
        Ok(records) => {
            session.end("ROLLBACK").await?;
            let load = |records| Load::of(horizon, records).with_total_hint(None);
            Ok(records.map(load))
        }
        Err(failure) => Err(session.abandon(failure).await),
    }
}

async fn some(
    session: &Session,
    table: &Table,
    wanted: &Wanted,
    horizon: Revision,
) -> Result<Vec<Record>, Failure> {
    match wanted {
        Wanted::Page { after, limit } => {
            page::page(session, table, after.as_deref(), *limit, horizon).await
        }
        Wanted::Keys(keys) => {
            let keys = table.keys(keys.iter().map(|key| &**key));
            some_keys(session, table, keys, horizon).await
        }
        Wanted::All | Wanted::Changed { .. } => Ok(Vec::new()),
    }
}

/// A load whose rows are streamed at the pace of the reader.
async fn streamed(
    shared: &Arc<Shared>,
    snapshot: ReadSnapshot,
    table: Table,
    wanted: &Wanted,
) -> Result<Option<Load<'static>>, Failure> {
    let copied = copy_out(&snapshot, &table, wanted);
    let (rows, end) = match snapshot::read(&snapshot.session, &table, copied).await {
        Ok(Some(copied)) => copied,
        Ok(None) => return Ok(None),
        Err(failure) => return Err(snapshot.session.abandon(failure).await),
    };
    let horizon = end.unwrap_or(snapshot.horizon);
    let streaming = Streaming {
        session: snapshot.session,
        table,
        horizon,
        rows: Box::pin(rows),
        copied: CopiedRows::default(),
        database: shared.options.database.clone(),
    };
    let total = snapshot.total.filter(|_| *wanted == Wanted::All);
    let load = Load::new(horizon, streaming.pages().boxed());
    Ok(Some(load.with_total_hint(total)))
}

/// The rows, and the commit at which they end if the load is limited.
async fn copy_out(
    snapshot: &ReadSnapshot,
    table: &Table,
    wanted: &Wanted,
) -> Result<(CopyOutStream, Option<Revision>), Failure> {
    let session = &snapshot.session;
    let (select, end) = match (wanted, &snapshot.tombstones) {
        (Wanted::Changed { after, limit }, Some(tombstones)) => {
            let changed = Changed {
                table,
                tombstones,
                after: *after,
            };
            let end = changed.end(session, *limit).await?;
            (changed.select(end), end)
        }
        _ => (table.select(""), None),
    };
    let copy = format!("COPY ({select}) TO STDOUT (FORMAT binary)");
    let rows = session.answer(session.client()?.copy_out(&copy)).await?;
    Ok((rows, end))
}

/// The records of stored keys.
pub(super) async fn some_keys(
    session: &Session,
    table: &Table,
    keys: Vec<String>,
    horizon: Revision,
) -> Result<Vec<Record>, Failure> {
    let rest = format!("WHERE t.{} = ANY($1)", table.key);
    let statement = Statement::new(table.select(&rest)).with(keys, Type::TEXT_ARRAY);
    let rows = rows(session, table, &statement, horizon).await?;
    Ok(rows.into_iter().map(|stored| stored.record).collect())
}

/// The row stream of a load.
struct Streaming {
    session: Session,
    table: Table,
    horizon: Revision,
    rows: std::pin::Pin<Box<CopyOutStream>>,
    copied: CopiedRows,
    database: String,
}

impl Streaming {
    fn pages(self) -> impl stream::Stream<Item = Result<Vec<Record>>> + Send {
        stream::unfold(Some(self), async |streaming| {
            let mut streaming = streaming?;
            let (page, ended) = match streaming.page().await {
                Ok(page) => page,
                Err(failure) => {
                    let map = &streaming.table.map;
                    let error = failure.on_map(map).explained(&streaming.database);
                    return Some((Err(error), None));
                }
            };
            if !ended {
                return Some((Ok(page), Some(streaming)));
            }
            // All rows have arrived, so the load is complete; if the transaction cannot be
            // ended, the connection is closed.
            let _ = streaming.session.end("ROLLBACK").await;
            (!page.is_empty()).then_some((Ok(page), None))
        })
    }

    /// The next page, and whether it is the last one.
    async fn page(&mut self) -> Result<(Vec<Record>, bool), Failure> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let reading = Reading {
            table: &self.table,
            horizon: self.horizon,
        };
        while page.len() < PAGE_RECORDS && bytes < PAGE_BYTES {
            let Some(piece) = self.session.in_time(1, self.rows.next()).await? else {
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
