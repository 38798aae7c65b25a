//! Loads: a snapshot of the file, streamed by a thread of its own.

use std::{sync::Arc, thread};

use futures_util::{StreamExt, stream};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, builder::Columns, errors::Fault, noted, readers::Turn, schema, table::Table, wanted,
    worker::Writer,
};
use crate::{
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    load::{Load, PAGE_RECORDS, Wanted},
    name::MapName,
    record::{Record, Revision},
};

/// How many pages may be read ahead of whoever takes them.
const PAGES_AHEAD: usize = 2;

/// A page of large values ends early.
const PAGE_BYTES: usize = 1024 * 1024;

/// How often a table is read anew because another program wrote to it in the
/// very moment; each time what it wrote is noted.
const MAX_ROUNDS: usize = 16;

/// What is known before the first page.
struct Head {
    horizon: Revision,
    incarnation: Option<Incarnation>,
    total: Option<u64>,
}

/// A page, or the end: a stream that stops short must not look complete.
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
    let place = shared.file.path.clone();
    let shared = shared.clone();
    let thread = thread::Builder::new().name("persistify-sqlite-load".into());
    let started = thread.spawn(move || reading.run(shared, begun));
    started.map_err(|cause| cut_short().with_source(cause))?;
    let head = head.await.map_err(|cause| cut_short().with_source(cause))?;
    let Head {
        horizon,
        incarnation,
        total,
    } = head.map_err(|fault| fault.on_map(map).explained(&place))?;
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

/// What the thread works on.
struct Reading {
    map: MapName,
    wanted: Wanted,
    pages: mpsc::Sender<Message>,
    turn: Option<Turn>,
}

impl Reading {
    fn run(mut self, shared: Arc<Shared>, begun: oneshot::Sender<Result<Head, Fault>>) {
        let snapshot = match self.begin(&shared) {
            Ok(snapshot) => snapshot,
            Err(fault) => return drop(begun.send(Err(fault))),
        };
        let (path, readers) = (shared.file.path.clone(), shared.readers.clone());
        // A load that is not read to its end keeps nothing else open.
        drop(shared);
        let Snapshot {
            connection,
            table,
            head,
        } = snapshot;
        let streamed = match (begun.send(Ok(head)), &table) {
            (Ok(()), Some(table)) => self.stream(&connection, table),
            _ => Ok(()),
        };
        // Before anyone is told that this is the end: whoever closes the file
        // then finds nothing open.
        if connection.execute_batch("ROLLBACK").is_ok() {
            readers.give_back(connection);
        }
        drop(self.turn.take());
        let streamed = streamed.map_err(|fault| fault.on_map(&self.map).explained(&path));
        let last = streamed.err();
        // Whoever does not listen any more does not miss it.
        drop(self.pages.blocking_send(last.map(Err)));
    }

    fn begin(&self, shared: &Shared) -> Result<Snapshot, Fault> {
        let reader = shared.readers.take(&shared.file, &shared.options)?;
        let columns = &shared.options.columns;
        let snapshot = Snapshot::begin(reader, &self.map, &self.wanted, columns)?;
        if !snapshot.is_adopted() {
            return Ok(snapshot);
        }
        let reader = snapshot.end()?;
        let (map, wanted, columns) = (self.map.clone(), self.wanted.clone(), columns.clone());
        Ok(shared
            .worker
            .run_blocking(move |writer| begin_noted(writer, reader, &map, &wanted, &columns))?)
    }

    fn stream(&mut self, connection: &Connection, table: &Table) -> Result<(), Fault> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let wanted = self.wanted.clone();
        let read = wanted::for_each(connection, table, &wanted, |stored| {
            bytes += stored.key.len() + stored.value.len();
            page.push(stored.into_record());
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

    fn send(&mut self, page: Vec<Record>) -> Result<(), Fault> {
        if self.pages.capacity() == 0 {
            // From here on it waits for whoever takes the pages, who may be
            // waiting for another load.
            drop(self.turn.take());
        }
        let sent = self.pages.blocking_send(Some(Ok(page)));
        // Nobody listens: the error ends the reading, and reaches no one.
        sent.map_err(|_| Fault::Ours(cut_short()))
    }
}

/// One state of the file, which nobody changes while it is read.
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
    ) -> Result<Self, Fault> {
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

    fn is_adopted(&self) -> bool {
        self.table.as_ref().is_some_and(|t| t.adopted.is_some())
    }

    fn end(self) -> rusqlite::Result<Connection> {
        self.connection.execute_batch("ROLLBACK")?;
        Ok(self.connection)
    }
}

/// A snapshot in which everything that another program wrote has its revision.
///
/// The right to write is held while the snapshot begins: nothing slips in
/// between.
fn begin_noted(
    writer: &mut Writer,
    reader: Connection,
    map: &MapName,
    wanted: &Wanted,
    columns: &Columns,
) -> Result<Snapshot, Fault> {
    let mut noted_at = None;
    for _ in 0..MAX_ROUNDS {
        let transaction = schema::begin(&mut writer.connection)?;
        let version = version(&transaction)?;
        if noted_at == Some(version) || !note(&transaction, map, wanted, columns)? {
            let snapshot = Snapshot::begin(reader, map, wanted, columns);
            transaction.rollback()?;
            return snapshot;
        }
        transaction.commit()?;
        noted_at = Some(version);
    }
    Err(too_busy(map).into())
}

fn note(
    connection: &Connection,
    map: &MapName,
    wanted: &Wanted,
    columns: &Columns,
) -> Result<bool, Fault> {
    match Table::find(connection, map, columns)? {
        Some(table) => noted::note_all(connection, &table, wanted),
        None => Ok(false),
    }
}

fn too_busy(map: &MapName) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "another program writes to the table faster than it can be read; it may be tried again",
    )
    .on_map(map)
    .nothing_applied()
}

/// Changes with each commit of any other connection.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}
