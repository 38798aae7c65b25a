//! Connections to read from, kept for the next load.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{builder::Options, errors::Failure, file::DbFile};
use crate::error::{Error, ErrorKind, Result};

/// How many loads are begun at once, and how many idle connections are kept.
const MAX_READERS: usize = 4;

/// The connections that loads read with.
///
/// A new one reads the schema first, which is O(maps), and keeps it: opening n
/// maps of a file, each with a connection of its own, would be O(n²) in time and
/// memory.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Mutex<Idle>,
    turns: Arc<Semaphore>,
}

/// The right to read, until it is dropped. Its owner does not wait for others
/// that may want one.
pub(super) type Turn = OwnedSemaphorePermit;

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Connection>,
    is_closed: bool,
    #[cfg(test)]
    opened: usize,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            turns: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }
}

impl Readers {
    /// Waits for the right to read.
    pub(super) async fn turn(&self) -> Result<Turn> {
        let turn = self.turns.clone().acquire_owned().await;
        turn.map_err(|cause| {
            let message = "the SQLite file is being closed; open it again";
            Error::new(ErrorKind::Closed, message).with_source(cause)
        })
    }

    /// An idle connection, or a new one.
    pub(super) fn take(&self, file: &DbFile, options: &Options) -> Result<Connection, Failure> {
        let idle = self.idle.lock().connections.pop();
        if let Some(connection) = idle {
            file.check()?;
            return Ok(connection);
        }
        #[cfg(test)]
        {
            self.idle.lock().opened += 1;
        }
        file.reader(options)
    }

    /// Takes back a connection. Its transaction has ended before, or it would keep
    /// SQLite's log from being moved.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        let is_of_use = connection.is_autocommit() && !idle.is_closed;
        if is_of_use && idle.connections.len() < MAX_READERS {
            idle.connections.push(connection);
        }
    }

    /// Keeps none from now on: the connection that writes is to be the last one,
    /// because the last one folds the log.
    pub(super) fn close(&self) {
        let mut idle = self.idle.lock();
        idle.is_closed = true;
        idle.connections.clear();
    }

    #[cfg(test)]
    fn idle(&self) -> usize {
        self.idle.lock().connections.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::future::join_all;
    use tempfile::TempDir;

    use super::MAX_READERS;
    use crate::{
        Batch, BatchId, Change, MapBatch, MapName, Payload, Provider, Revision, Sqlite, Wanted,
        WriterId,
    };

    /// So many maps of so many entries.
    async fn filled(maps: usize, entries: usize) -> (TempDir, Sqlite, Vec<MapName>) {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(folder.path().join("a.db")).await.unwrap();
        let names = (0..maps).map(|n| MapName::new(n.to_string()).unwrap());
        let names: Vec<_> = names.collect();
        let put = |n: usize| Change::put(n.to_string(), Payload::json("1"), None);
        let part = |name: &MapName| MapBatch::new(name.clone(), (0..entries).map(put).collect());
        let parts: Vec<_> = names.iter().map(part).collect();
        let id = BatchId::new(WriterId::new(1), 1);
        let batch = Batch::new(id, Revision::ZERO, SystemTime::now(), parts);
        sqlite.commit(&batch).await.unwrap();
        (folder, sqlite, names)
    }

    async fn read(sqlite: &Sqlite, map: &MapName) -> usize {
        let load = sqlite.load(map, Wanted::All).await.unwrap();
        load.into_records().await.unwrap().len()
    }

    /// Each load had a connection of its own, which read the schema of the whole
    /// file: of a thousand maps in a file each took as long to open as it takes
    /// to list a thousand tables.
    #[tokio::test]
    async fn loads_one_after_the_other_share_a_connection_and_none_is_left_at_the_end() {
        let (folder, sqlite, maps) = filled(8, 1).await;
        for map in &maps {
            assert_eq!(read(&sqlite, map).await, 1);
            assert_eq!(sqlite.shared.readers.idle(), 1);
        }
        assert_eq!(sqlite.shared.readers.idle.lock().opened, 1);
        sqlite.close().await.unwrap();
        assert_eq!(sqlite.shared.readers.idle(), 0);
        let left = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(left.count(), 1, "the log is folded");
    }

    /// A thousand maps that were opened at once had a thousand threads and
    /// connections, each with the schema of them all.
    #[tokio::test]
    async fn many_loads_at_once_share_a_few_connections() {
        let (_folder, sqlite, maps) = filled(64, 1).await;
        let read = join_all(maps.iter().map(|map| read(&sqlite, map))).await;
        assert_eq!(read, vec![1; 64]);
        assert!(sqlite.shared.readers.idle.lock().opened <= MAX_READERS);
    }

    #[tokio::test]
    async fn loads_that_nobody_reads_keep_no_other_one_waiting() {
        let (_folder, sqlite, maps) = filled(16, 3_500).await;
        let loads = maps.iter().map(|map| sqlite.load(map, Wanted::All));
        let mut loads = join_all(loads).await;
        assert_eq!(read(&sqlite, &maps[0]).await, 3_500);
        for load in loads.drain(..) {
            let records = load.unwrap().into_records().await.unwrap();
            assert_eq!(records.len(), 3_500);
        }
    }
}
