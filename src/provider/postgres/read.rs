//! Loads: a snapshot of a table, streamed.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio_postgres::{CopyOutStream, types::Type};

use super::{
    Shared,
    connections::Lease,
    copy::CopiedRows,
    errors::Fault,
    page,
    pipeline::Statement,
    rows::{Reading, rows},
    schema,
    snapshot::{self, MAX_ROUNDS, Snapshot},
    table::{Adopted, Table},
};
use crate::{
    error::Result,
    load::{Load, PAGE_RECORDS, Wanted},
    name::MapName,
    record::{Record, Revision},
};

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
    loaded.map_err(|fault| fault.on_map(map).explained(&shared.options.place))
}

async fn begin(
    shared: &Arc<Shared>,
    map: &MapName,
    wanted: &Wanted,
) -> Result<Load<'static>, Fault> {
    for _ in 0..MAX_ROUNDS {
        let snapshot = snapshot::fresh(shared, map, wanted).await?;
        if let Some(load) = read(shared, snapshot, wanted).await? {
            return Ok(load);
        }
    }
    Err(snapshot::never_still().into())
}

/// `None` if the rows that the snapshot is to show are not there any more.
async fn read(
    shared: &Arc<Shared>,
    snapshot: Snapshot,
    wanted: &Wanted,
) -> Result<Option<Load<'static>>, Fault> {
    let Snapshot {
        lease,
        table,
        horizon,
        incarnation,
        total,
    } = snapshot;
    let loaded = |load: Load<'static>| load.with_incarnation(incarnation);
    let Some(table) = table else {
        lease.end().await?;
        return Ok(Some(loaded(Load::of(horizon, Vec::new()))));
    };
    let rest = match wanted {
        Wanted::All => String::new(),
        Wanted::Changed { after } => changed(&table, *after),
        Wanted::Keys(_) | Wanted::Page { .. } => {
            let records = some(&lease, &table, wanted, horizon);
            return match snapshot::with(&lease, &table, records).await {
                Ok(records) => {
                    lease.end().await?;
                    let load = |records| Load::of(horizon, records).with_total_hint(None);
                    Ok(records.map(|records| loaded(load(records))))
                }
                Err(fault) => Err(lease.abandon(fault).await),
            };
        }
    };
    let copy = format!("COPY ({}) TO STDOUT (FORMAT binary)", table.select(&rest));
    let rows = async { lease.answer(lease.client()?.copy_out(&copy)).await };
    let rows = match snapshot::with(&lease, &table, rows).await {
        Ok(Some(rows)) => rows,
        Ok(None) => return Ok(None),
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
    let load = Load::new(horizon, streaming.pages().boxed()).with_total_hint(total);
    Ok(Some(loaded(load)))
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
