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
}
