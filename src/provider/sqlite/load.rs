//! Loads: a snapshot of the file, streamed by a thread of its own.

use std::{sync::Arc, thread};

use futures_util::{StreamExt, stream};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, adopted, drops::detached, errors::Failure, readers::Turn, schema, selection,
    table::Table,
};
use crate::{
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    load::{Load, PAGE_RECORDS, Wanted},
    name::MapName,
    provider::sql::columns::Columns,
    record::{Record, Revision},
};

/// How many pages are read ahead of the consumer.
const PAGES_AHEAD: usize = 2;

/// A page of large values ends early.
const PAGE_BYTES: usize = 1024 * 1024;

/// The part of a load that is known before its first page.
struct Head {
    horizon: Revision,
    incarnation: Option<Incarnation>,
    total: Option<u64>,
}

/// A page, or `None` for the end: a stream that stops short must not look
/// complete.
type Message = Option<Result<Vec<Record>>>;

/// Loads the wanted records of a map.
pub(super) async fn load(
    shared: &Arc<Shared>,
    map: &MapName,
    wanted: Wanted,
) -> Result<Load<'static>> {
    let turn = shared.readers.turn().await?;
    let (begun, head) = oneshot::channel();
    let (pages, received) = mpsc::channel(PAGES_AHEAD);
    let reading = Reading {
        map: map.clone(),
        wanted,
        pages,
        turn: Some(turn),
    };
    let path = shared.file.path.clone();
    let shared = shared.clone();
    let thread = thread::Builder::new().name("persistify-sqlite-load".into());
    let started = thread.spawn(move || reading.run(shared, begun));
    started.map_err(|cause| cut_short().with_source(cause))?;
    let head = head.await.map_err(|cause| cut_short().with_source(cause))?;
    let Head {
        horizon,
        incarnation,
        total,
    } = head.map_err(|failure| failure.on_map(map).explained(&path))?;
    let pages = stream::unfold(Some(received), async |received| {
        let mut received = received?;
        match received.recv().await {
            Some(Some(Ok(page))) => Some((Ok(page), Some(received))),
            Some(Some(Err(error))) => Some((Err(error), None)),
            Some(None) => None,
            None => Some((Err(cut_short()), None)),
        }
    });
    Ok(Load::new(horizon, pages.boxed())
        .with_incarnation(incarnation)
        .with_total_hint(total))
}

fn cut_short() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the thread that reads the SQLite file did not get to the end; load again",
    )
}

/// A load, on its thread.
struct Reading {
    map: MapName,
    wanted: Wanted,
    pages: mpsc::Sender<Message>,
    turn: Option<Turn>,
}

impl Reading {
    fn run(mut self, shared: Arc<Shared>, begun: oneshot::Sender<Result<Head, Failure>>) {
        let snapshot = match self.begin(&shared) {
            Ok(snapshot) => snapshot,
            Err(failure) => return drop(begun.send(Err(failure))),
        };
        let (path, readers) = (shared.file.path.clone(), shared.readers.clone());
        // A load that is not read to its end does not keep the handle open.
        drop(shared);
        let Snapshot {
            connection,
            table,
            head,
        } = snapshot;
        let horizon = head.horizon;
        let streamed = match (begun.send(Ok(head)), &table) {
            (Ok(()), Some(table)) => self.stream(&connection, table, horizon),
            _ => Ok(()),
        };
        // Before the end is announced: a program that closes the file then finds
        // no connection open.
        if connection.execute_batch("ROLLBACK").is_ok() {
            readers.give_back(connection);
        }
        drop(self.turn.take());
        let streamed = streamed.map_err(|failure| failure.on_map(&self.map).explained(&path));
        let last = streamed.err();
        // If the load was dropped, its end is of no interest.
        drop(self.pages.blocking_send(last.map(Err)));
    }

    fn begin(&self, shared: &Shared) -> Result<Snapshot, Failure> {
        let reader = shared.readers.take(&shared.file, &shared.options)?;
        let columns = &shared.options.columns;
        let snapshot = Snapshot::begin(reader, &self.map, &self.wanted, columns)?;
        if snapshot.table.is_none() && shared.options.adopted.contains_key(&self.map) {
            return Err(detached(&self.map).into());
        }
        if !snapshot.any_new(&self.wanted)? {
            return Ok(snapshot);
        }
        // What the other program writes between the two is loaded as well, with
        // the revision of the snapshot, and noted by a later load.
        let reader = snapshot.end()?;
        self.note(shared)?;
        Snapshot::begin(reader, &self.map, &self.wanted, columns)
    }

    /// Notes what the other program wrote to the table.
    fn note(&self, shared: &Shared) -> Result<(), Failure> {
        let (map, wanted) = (self.map.clone(), self.wanted.clone());
        let columns = shared.options.columns.clone();
        let noted = shared.worker.run_blocking(move |writer| {
            let transaction = schema::begin(&mut writer.connection)?;
            let table = Table::find(&transaction, &map, &columns)?;
            if let Some(adopted) = table.and_then(|table| table.adopted) {
                adopted::note_before_load(&transaction, &adopted, &wanted)?;
            }
            Ok(transaction.commit()?)
        });
        Ok(noted?)
    }

    fn stream(
        &mut self,
        connection: &Connection,
        table: &Table,
        horizon: Revision,
    ) -> Result<(), Failure> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let wanted = self.wanted.clone();
        let read = selection::for_each(connection, table, &wanted, horizon, |record| {
            let value = record.value.as_ref().map_or(0, |value| value.bytes.len());
            bytes += record.key.len() + value;
            page.push(record);
            if page.len() < PAGE_RECORDS && bytes < PAGE_BYTES {
                return Ok(());
            }
            bytes = 0;
            self.send(std::mem::take(&mut page))
        });
        read?;
        if page.is_empty() {
            return Ok(());
        }
        self.send(page)
    }

    fn send(&mut self, page: Vec<Record>) -> Result<(), Failure> {
        if self.pages.capacity() == 0 {
            // From here on it waits for the consumer, which may be waiting for
            // another load.
            drop(self.turn.take());
        }
        let sent = self.pages.blocking_send(Some(Ok(page)));
        // The load was dropped: the error ends the reading, and is not seen.
        sent.map_err(|_| Failure::Provider(cut_short()))
    }
}

/// One state of the file, which does not change while it is read.
struct Snapshot {
    connection: Connection,
    table: Option<Table>,
    head: Head,
}

impl Snapshot {
    fn begin(
        connection: Connection,
        map: &MapName,
        wanted: &Wanted,
        columns: &Columns,
    ) -> Result<Self, Failure> {
        // The first read fixes the state; all else is read in it, or a table
        // that is made in between would seem to be empty.
        connection.execute_batch("BEGIN")?;
        let horizon = schema::revision(&connection)?;
        let incarnation = schema::incarnation(&connection)?;
        let table = Table::find(&connection, map, columns)?;
        let total = match (&table, wanted) {
            (Some(table), Wanted::All) => Some(table.count(&connection)?),
            _ => None,
        };
        Ok(Self {
            connection,
            table,
            head: Head {
                horizon,
                incarnation,
                total,
            },
        })
    }

    /// Whether another program wrote to its table since.
    fn any_new(&self, wanted: &Wanted) -> Result<bool, Failure> {
        let adopted = self.table.as_ref().and_then(|table| table.adopted.as_ref());
        adopted.map_or(Ok(false), |adopted| {
            adopted.any_new(&self.connection, wanted)
        })
    }

    fn end(self) -> rusqlite::Result<Connection> {
        self.connection.execute_batch("ROLLBACK")?;
        Ok(self.connection)
    }
}
