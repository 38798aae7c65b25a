//! Forgetting what is old: writers that have been idle for long, and tombstones.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{errors::Failure, schema, tombstones, writers};

/// In the time for which tombstones are kept, commits forget old ones so many times.
const PER_TIME_KEPT: u32 = 24;

/// When it was done last, in this process.
#[derive(Debug)]
pub(super) struct Tidying {
    tombstones_kept: Duration,
    last: Option<Instant>,
}

impl Tidying {
    pub(super) fn new(tombstones_kept: Duration) -> Self {
        Self {
            tombstones_kept,
            last: None,
        }
    }

    /// In a transaction of its own, unless there is nothing to forget: that waits for no
    /// other writer.
    pub(super) fn run(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        let any = writers::any_old(connection)?
            || tombstones::last_old(connection, self.tombstones_kept)?.is_some();
        if !any {
            return Ok(());
        }
        let transaction = schema::begin(connection)?;
        self.run_within(&transaction)?;
        transaction.commit().map_err(Failure::on_commit)
    }

    /// As a part of a commit, the first one and then once in a while.
    pub(super) fn run_if_due(&mut self, transaction: &Connection) -> Result<(), Failure> {
        let every = self.tombstones_kept / PER_TIME_KEPT;
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return Ok(());
        }
        self.run_within(transaction)
    }

    fn run_within(&mut self, transaction: &Connection) -> Result<(), Failure> {
        writers::forget_old(transaction)?;
        tombstones::prune(transaction, self.tombstones_kept)?;
        self.last = Some(Instant::now());
        Ok(())
    }
}
