//! Deletes old data: writers that have been idle for a week, and old tombstones.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{errors::Failure, schema, tombstones, writers};

/// How often commits prune within the time for which tombstones are kept.
const PER_TIME_KEPT: u32 = 24;

/// The schedule for deleting old data.
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

    /// Runs in a transaction of its own. If there is no old data, it does not wait for
    /// other writers.
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

    /// Runs as part of a commit: the first one, and then at intervals.
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
