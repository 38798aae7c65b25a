//! A map with the entries of a copy of its store, because the store is down.
//!
//! Until the map has reloaded itself from the store, it behaves as if the store were down: it
//! probes, and waiting callers get an attempt at once. Its changes are committed to the store only,
//! never to the copy.

use std::time::SystemTime;

use super::{Committer, writer::Writer};
use crate::{
    error::{Error, ErrorKind},
    event::Health,
    trace::LOAD,
};

/// The error if only a copy of the store answers.
pub(crate) fn store_is_down() -> Error {
    let message = "the store is down, and only a copy of it answers";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

impl Writer {
    /// Whether the store has answered since the entries were loaded from a copy.
    pub(crate) fn must_leave_copy(&self) -> bool {
        self.copied_at.is_some() && !self.down
    }
}

impl Committer<'_> {
    /// Records that the entries were loaded: from a copy that is complete up to this time, or from
    /// the store itself.
    pub(crate) fn loaded_from(&mut self, copied_at: Option<SystemTime>) {
        let was_degraded = self.writer.copied_at.is_some();
        self.writer.copied_at = copied_at;
        let Some(copied_at) = copied_at else {
            if was_degraded && !self.writer.down {
                tracing::info!(target: LOAD, map = %self.shared.name, "the map has the entries of its store again");
                self.shared.health.send_replace(Health::Healthy);
            }
            return;
        };
        tracing::warn!(target: LOAD, map = %self.shared.name, ?copied_at, "the store is down; the map has the entries of a copy");
        self.writer.down = true;
        let error = self.shared.health.borrow().error().cloned();
        self.shared.health.send_replace(Health::Degraded {
            since: self.shared.clock.now(),
            copied_at,
            error: error.unwrap_or_else(|| store_is_down().on_map(&self.shared.name)),
        });
    }

    /// Records that the entries could not be loaded from the store. No caller waits for that.
    pub(crate) fn stay_degraded(&mut self, error: &Error) {
        self.start_attempts();
        self.writer.down = true;
        self.tell_health(error);
    }
}
