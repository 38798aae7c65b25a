//! Loads: a snapshot of the file, streamed by a thread of its own.

use std::{sync::Arc, thread};

use futures_util::{StreamExt, stream};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, adopted, changes, drops::detached, errors::Failure, meta, readers::Turn, schema,
    selection, table::Table, tombstones,
};
use crate::{
    error::{Error, ErrorKind, Result},
    load::{Load, PAGE_RECORDS, Wanted},
    name::MapName,
    provider::sql::columns::Columns,
    record::{Record, Revision},
};

/// The number of pages read ahead of the consumer.
const PAGES_AHEAD: usize = 2;

/// The size at which a page of large values ends early.
const PAGE_BYTES: usize = 1024 * 1024;

/// A page, or `None` at the end: a stream that is cut short must not look complete.
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
    let head = head.map_err(|failure| failure.on_map(map).explained(&path))?;
    let pages = stream::unfold(Some(received), async |received| {
        let mut received = received?;
        match received.recv().await {
            Some(Some(Ok(page))) => Some((Ok(page), Some(received))),
            Some(Some(Err(error))) => Some((Err(error), None)),
            Some(None) => None,
            None => Some((Err(cut_short()), None)),
        }
    });
    Ok(Load {
        pages: pages.boxed(),
        ..head
    })
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
    fn run(mut self, shared: Arc<Shared>, begun: oneshot::Sender<Result<Load<'static>, Failure>>) {
        let snapshot = match self.begin(&shared) {
            Ok(snapshot) => snapshot,
            Err(failure) => return drop(begun.send(Err(failure))),
        };
        let (path, readers) = (shared.file.path.clone(), shared.readers.clone());
        // A load that is not read to its end must not keep the file open.
        drop(shared);
        let ReadSnapshot {
            connection,
            table,
            head,
            end,
        } = snapshot;
        let horizon = head.horizon;
        let streamed = match (begun.send(Ok(head)), &table) {
            (Ok(()), Some(table)) => self.stream(&connection, table, horizon, end),
            _ => Ok(()),
        };
        // This comes before the end is announced, so that a program that then closes the
        // file finds no connection open.
        if connection.execute_batch("ROLLBACK").is_ok() {
            readers.give_back(connection);
        }
        drop(self.turn.take());
        let streamed = streamed.map_err(|failure| failure.on_map(&self.map).explained(&path));
        let last = streamed.err();
        // If the load was dropped, nothing reads its end.
        drop(self.pages.blocking_send(last.map(Err)));
    }

    fn begin(&self, shared: &Shared) -> Result<ReadSnapshot, Failure> {
        let reader = shared.readers.take(&shared.file, &shared.options)?;
        let columns = &shared.options.columns;
        let snapshot = ReadSnapshot::begin(reader, &self.map, &self.wanted, columns)?;
        if snapshot.table.is_none() && shared.options.adopted.contains_key(&self.map) {
            return Err(detached(&self.map).into());
        }
        if snapshot.is_prepared(&self.wanted)? {
            return Ok(snapshot);
        }
        // Rows that the other program writes between the two snapshots are loaded with
        // the revision of the second one, and noted by a later load.
        let reader = snapshot.end()?;
        self.prepare(shared)?;
        ReadSnapshot::begin(reader, &self.map, &self.wanted, columns)
    }

    /// Notes the writes of the other program to an adopted table, or indexes the changes
    /// of a map.
    fn prepare(&self, shared: &Shared) -> Result<(), Failure> {
        let (map, wanted) = (self.map.clone(), self.wanted.clone());
        let columns = shared.options.columns.clone();
        let prepared = shared.worker.run_blocking(move |writer| {
            let transaction = schema::begin(&mut writer.connection)?;
            if let Some(table) = Table::find(&transaction, &map, &columns)? {
                match &table.adopted {
                    Some(adopted) => adopted::note_before_load(&transaction, adopted, &wanted)?,
                    None => changes::follow(&transaction, &table)?,
                }
            }
            Ok(transaction.commit()?)
        });
        Ok(prepared?)
    }

    fn stream(
        &mut self,
        connection: &Connection,
        table: &Table,
        horizon: Revision,
        end: Option<Revision>,
    ) -> Result<(), Failure> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let wanted = self.wanted.clone();
        let read = selection::for_each(connection, table, &wanted, horizon, end, |record| {
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
            // From here on it waits for the consumer, which may itself wait for another
            // load.
            drop(self.turn.take());
        }
        let sent = self.pages.blocking_send(Some(Ok(page)));
        // If the load was dropped, the error ends the reading, and is not reported.
        sent.map_err(|_| Failure::Provider(cut_short()))
    }
}

/// A snapshot of the file, in a read transaction.
struct ReadSnapshot {
    connection: Connection,
    /// `None` if nothing is to be read.
    table: Option<Table>,
    /// The load, without its pages.
    head: Load<'static>,
    /// The last commit of a load of changes, if it is cut by its limit.
    end: Option<Revision>,
}

impl ReadSnapshot {
    fn begin(
        connection: Connection,
        map: &MapName,
        wanted: &Wanted,
        columns: &Columns,
    ) -> Result<Self, Failure> {
        // The first read starts the snapshot. Everything is read in it: a table that is
        // created in between would seem to be empty.
        connection.execute_batch("BEGIN")?;
        let head = Load::new(meta::last_revision(&connection)?, stream::empty().boxed());
        let head = head.with_incarnation(meta::incarnation(&connection)?);
        let table = Table::find(&connection, map, columns)?;
        let mut snapshot = Self {
            connection,
            table,
            head,
            end: None,
        };
        match wanted {
            Wanted::All => snapshot.count()?,
            Wanted::Changed { after, limit } => snapshot.limit_changes(map, *after, *limit)?,
            Wanted::Keys(_) | Wanted::Page { .. } => {}
        }
        Ok(snapshot)
    }

    fn count(&mut self) -> rusqlite::Result<()> {
        if let Some(table) = &self.table {
            self.head.total_hint = Some(table.count(&self.connection)?);
        }
        Ok(())
    }

    /// Reads the metadata of a load of changes, and finds the commit with which it ends.
    fn limit_changes(
        &mut self,
        map: &MapName,
        after: Revision,
        limit: usize,
    ) -> Result<(), Failure> {
        let (connection, head) = (&self.connection, &mut self.head);
        let later = |revision: &Revision| *revision > after;
        head.cleared = tombstones::cleared(connection, map)?.filter(later);
        head.pruned_to = meta::revision(connection, meta::PRUNED_TO)?.filter(later);
        let Some(table) = &self.table else {
            return Ok(());
        };
        if table.adopted.is_some() {
            return Err(changes::unsupported(map).into());
        }
        if head.pruned_to.is_some() {
            self.table = None;
            return Ok(());
        }
        self.end = changes::end(connection, table, after, limit)?;
        head.horizon = self.end.unwrap_or(head.horizon);
        Ok(())
    }

    /// Whether it can be read without preparation: an adopted table has no new writes
    /// of the other program, and a load of changes has its index.
    fn is_prepared(&self, wanted: &Wanted) -> Result<bool, Failure> {
        let connection = &self.connection;
        match (&self.table, wanted) {
            (
                Some(Table {
                    adopted: Some(adopted),
                    ..
                }),
                _,
            ) => Ok(!adopted.any_new(connection, wanted)?),
            (Some(table), Wanted::Changed { .. }) => Ok(changes::is_followed(connection, table)?),
            _ => Ok(true),
        }
    }

    fn end(self) -> rusqlite::Result<Connection> {
        self.connection.execute_batch("ROLLBACK")?;
        Ok(self.connection)
    }
}
