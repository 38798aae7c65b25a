//! Connections to read from, kept for the next load.

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{builder::Options, errors::Fault, file::DbFile};

/// How many are kept that nobody reads with.
const MAX_IDLE: usize = 2;

/// Connections that nobody reads with just now.
///
/// A new one reads the schema first, which is as long as there are maps: to open
/// many maps of a file would take a time that follows their number's square.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Idle>);

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Connection>,
    is_closed: bool,
}

impl Readers {
    /// One that nobody reads with, or a new one.
    pub(super) fn take(&self, file: &DbFile, options: &Options) -> Result<Connection, Fault> {
        let idle = self.0.lock().connections.pop();
        match idle {
            Some(connection) => {
                file.check()?;
                Ok(connection)
            }
            None => file.reader(options),
        }
    }

    /// Nobody reads with it any more. What it has read in has ended before, or
    /// it would keep SQLite's log from being moved.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = self.0.lock();
        let is_of_use = connection.is_autocommit() && !idle.is_closed;
        if is_of_use && idle.connections.len() < MAX_IDLE {
            idle.connections.push(connection);
        }
    }

    /// None is kept from now on: it is for the connection that writes to be the
    /// last one, and to fold the log.
    pub(super) fn close(&self) {
        let mut idle = self.0.lock();
        idle.is_closed = true;
        idle.connections.clear();
    }

    #[cfg(test)]
    fn idle(&self) -> usize {
        self.0.lock().connections.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Batch, BatchId, Change, MapBatch, MapName, Payload, Provider, Revision, Sqlite, Wanted,
        WriterId,
    };

    /// Each load had a connection of its own, which read the schema of the whole
    /// file: of a thousand maps in a file each took as long to open as a thousand
    /// tables take to be listed.
    #[tokio::test]
    async fn loads_one_after_the_other_share_a_connection_and_none_is_left_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(folder.path().join("a.db")).await.unwrap();
        let maps = ["a", "b", "c", "d"].map(|name| MapName::new(name).unwrap());
        for (sequence, map) in (1..).zip(&maps) {
            let change = Change::put("k", Payload::json("1"), None);
            let part = MapBatch::new(map.clone(), vec![change]);
            let id = BatchId::new(WriterId::new(1), sequence);
            let now = std::time::SystemTime::now();
            let batch = Batch::new(id, Revision::ZERO, now, [part]);
            sqlite.commit(&batch).await.unwrap();
            let load = sqlite.load(map, Wanted::All).await.unwrap();
            assert_eq!(load.into_records().await.unwrap().len(), 1);
            assert_eq!(sqlite.shared.readers.idle(), 1);
        }
        sqlite.close().await.unwrap();
        assert_eq!(sqlite.shared.readers.idle(), 0);
        let left = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(left.count(), 1, "the log is folded");
    }
}
