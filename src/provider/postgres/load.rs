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
    snapshot::{self, Snapshot},
    statement::Statement,
    table::Table,
};
use crate::{
    error::Result,
    load::{Load, PAGE_RECORDS, Wanted},
    name::MapName,
    record::{Record, Revision},
};

/// How often a table may be altered under a load.
const MAX_ROUNDS: usize = 4;

/// A page of large values ends early.
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

/// `None` if the rows of the snapshot are gone.
async fn read(
    shared: &Arc<Shared>,
    snapshot: Snapshot,
    wanted: &Wanted,
) -> Result<Option<Load<'static>>, Failure> {
    let Snapshot {
        session,
        table,
        tombstones,
        watermarks,
        horizon,
        incarnation,
        total,
        ..
    } = snapshot;
    let after = match wanted {
        Wanted::Changed { after, .. } => Some(*after),
        _ => None,
    };
    let since = |revision: Option<Revision>| revision.filter(|r| after.is_some_and(|a| *r > a));
    let pruned = since(watermarks.pruned);
    let loaded = |load: Load<'static>| {
        load.with_incarnation(incarnation)
            .with_cleared(since(watermarks.cleared.max(watermarks.dropped)))
            .with_pruned_to(pruned)
    };
    let Some(table) = table.filter(|_| pruned.is_none()) else {
        session.end("ROLLBACK").await?;
        return Ok(Some(loaded(Load::of(horizon, Vec::new()))));
    };
    if let Wanted::Keys(_) | Wanted::Page { .. } = wanted {
        let records = some(&session, &table, wanted, horizon);
        return match snapshot::read(&session, &table, records).await {
            Ok(records) => {
                session.end("ROLLBACK").await?;
                let load = |records| Load::of(horizon, records).with_total_hint(None);
                Ok(records.map(|records| loaded(load(records))))
            }
            Err(failure) => Err(session.abandon(failure).await),
        };
    }
    let rows = async {
        let (select, end) = match (wanted, &tombstones) {
            (Wanted::Changed { after, limit }, Some(tombstones)) => {
                let (table, after) = (&table, *after);
                let changed = Changed {
                    table,
                    tombstones,
                    after,
                };
                let end = changed.end(&session, *limit).await?;
                (changed.select(end), end)
            }
            _ => (table.select(""), None),
        };
        let copy = format!("COPY ({select}) TO STDOUT (FORMAT binary)");
        let rows = session.answer(session.client()?.copy_out(&copy)).await?;
        Ok((rows, end))
    };
    let (rows, end) = match snapshot::read(&session, &table, rows).await {
        Ok(Some(rows)) => rows,
        Ok(None) => return Ok(None),
        Err(failure) => return Err(session.abandon(failure).await),
    };
    let total = total.filter(|_| *wanted == Wanted::All);
    let horizon = end.unwrap_or(horizon);
    let streaming = Streaming {
        session,
        table,
        horizon,
        rows: Box::pin(rows),
        copied: CopiedRows::default(),
        database: shared.options.database.clone(),
    };
    let load = Load::new(horizon, streaming.pages().boxed()).with_total_hint(total);
    Ok(Some(loaded(load)))
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

/// The records of keys as their rows have them.
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

/// A load that is under way. It takes rows as fast as it is asked for them.
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
            // All rows are here: a connection that does not end well is cut, and
            // the load is complete.
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
