//! The pool of connections that loads read with.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{builder::Options, errors::Failure, file::DbFile};
use crate::error::{Error, ErrorKind, Result};

/// The maximum number of loads that begin at once, and of idle connections.
const MAX_READERS: usize = 4;

/// The connections that loads read with.
///
/// A new connection reads and caches the schema, which is O(maps). Opening n maps of a
/// file, each with a connection of its own, would be O(n²) in time and memory.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Mutex<Idle>,
    turns: Arc<Semaphore>,
}

/// The permit to read, until it is dropped. A load gives it up before it waits for its
/// consumer.
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
    /// Waits for a permit to read.
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

    /// Takes back a connection. One whose transaction has not ended is closed: it would
    /// keep SQLite's log from being moved.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        let is_usable = connection.is_autocommit() && !idle.is_closed;
        if is_usable && idle.connections.len() < MAX_READERS {
            idle.connections.push(connection);
        }
    }

    /// Closes all connections: idle ones now, the others when they are given back. The connection
    /// that writes must be the last one, because the last one moves the log into the file.
    pub(super) fn close(&self) {
        let mut idle = self.idle.lock();
        idle.is_closed = true;
        idle.connections.clear();
    }
}
