//! The options of a map and their bounds.

use std::{sync::Arc, time::Duration};

use super::{rewind::Rewind, verify::Verify};
use crate::{
    error::{Error, ErrorKind, Result},
    map::{load::migrations::Migrations, write_behind::committer::retry::RetryPolicy},
};

/// Called while a map loads: the number of records so far, and their approximate
/// total.
pub(crate) type Progress = Arc<dyn Fn(u64, Option<u64>) + Send + Sync>;

/// All options of a map.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) triggers: Triggers,
    pub(crate) max_batch: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) max_pending: Option<usize>,
    pub(crate) retry: RetryPolicy,
    pub(crate) retry_conflicts: RetryPolicy,
    pub(crate) commit_timeout: Duration,
    pub(crate) open_timeout: Duration,
    pub(crate) allow_unreadable: bool,
    pub(crate) verify: Verify,
    pub(crate) on_rewind: Rewind,
    pub(crate) migrations: Migrations,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            triggers: Triggers {
                size: 1_000,
                interval: Duration::from_secs(1),
            },
            max_batch: 32_768,
            max_batch_bytes: 16 << 20,
            max_pending: None,
            retry: RetryPolicy::default(),
            // A lost race means that the store is busy, not that it fails. Each
            // round one of the writers of the key wins, so with few writers a
            // hundred attempts fail only if something else is wrong.
            retry_conflicts: RetryPolicy::default()
                .max_attempts(100)
                .base_delay(Duration::from_millis(5))
                .max_delay(Duration::from_millis(250)),
            commit_timeout: Duration::from_secs(30),
            open_timeout: Duration::ZERO,
            allow_unreadable: false,
            verify: Verify::Always,
            on_rewind: Rewind::Stop,
            migrations: Migrations::default(),
        }
    }
}

/// When a flush starts without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Triggers {
    pub(crate) size: usize,
    pub(crate) interval: Duration,
}

impl Options {
    /// # Errors
    ///
    /// `Invalid`, naming the option and its bounds.
    pub(crate) fn check(&self) -> Result<()> {
        check_triggers(self.triggers)?;
        self.migrations.check()?;
        let problem = if self.max_batch == 0 {
            "max_batch is 0; it must be at least 1 key"
        } else if self.max_batch_bytes == 0 {
            "max_batch_bytes is 0; it must be at least 1 byte"
        } else if self.max_pending == Some(0) {
            "max_pending is 0; it must be at least 1 key"
        } else if self.commit_timeout < Duration::from_millis(1) {
            "commit_timeout must be at least 1 ms"
        } else {
            self.retry_conflicts.check("retry_conflicts")?;
            return self.retry.check("retry");
        };
        Err(Error::new(ErrorKind::Invalid, problem))
    }
}

/// # Errors
///
/// `Invalid`, naming the option and its bounds.
pub(crate) fn check_triggers(triggers: Triggers) -> Result<()> {
    let problem = if triggers.size == 0 {
        "batch: the size is 0; it must be at least 1 key"
    } else if triggers.interval < Duration::from_millis(1) {
        "batch: the interval must be at least 1 ms"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, problem))
}
