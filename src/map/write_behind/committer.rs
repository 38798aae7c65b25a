//! Commits to the store on behalf of one map, and reports the outcome to its
//! callers and subscribers.

pub(crate) mod calls;
pub(crate) mod claims;
pub(crate) mod degraded;
pub(crate) mod delivery;
mod news;
pub(crate) mod probing;
pub(crate) mod retry;
mod sending;
pub(crate) mod unacknowledged;
pub(crate) mod writer;

use std::sync::atomic::Ordering::Relaxed;

use self::{retry::Attempts, writer::Writer};
use super::waiters::answer_all;
use crate::{
    batch::{BatchId, Change, Skipped},
    error::{Error, ErrorKind, Result},
    event::{Health, KeySample, Operation, SaveFailure},
    incarnation::Incarnation,
    map::{api::builder::rewind::Rewind, phase, shared::Shared},
    record::Revision,
    trace::FLUSH,
};

/// The right to commit to the store of a map.
pub(crate) struct Committer<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) writer: &'a mut Writer,
}

impl Committer<'_> {
    /// Records that the store has applied these changes, except for the skipped
    /// ones.
    pub(crate) fn applied(
        &mut self,
        changes: &[Change],
        skipped: &[Skipped],
        revision: Option<Revision>,
    ) {
        self.writer.applied(changes, skipped, revision);
        let count = changes.len().saturating_sub(skipped.len());
        self.shared.tally.count(count, self.shared.clock.now());
    }

    /// Starts an attempt. If it is the last one and fails, every caller that
    /// waits now gets the error; later callers get another attempt.
    pub(crate) fn begin_attempt(&mut self) {
        self.shared.requests.lock().begin_attempt();
        self.writer.news.forget();
    }

    pub(crate) fn start_attempts(&mut self) {
        self.writer.attempts = Attempts::new(&self.shared.options.retry);
    }

    /// Records that the store has answered, and that it is healthy.
    pub(crate) fn store_answered(&mut self) {
        self.start_attempts();
        *self.shared.trouble.lock() = None;
        let was_rewound = std::mem::take(&mut self.writer.rewound);
        let was_down = std::mem::take(&mut self.writer.down);
        // With the entries of a copy, the map is healthy once it has reloaded itself.
        if (was_down || was_rewound) && self.writer.copied_at.is_none() {
            tracing::info!(target: FLUSH, map = %self.shared.name, "the store is healthy again");
            self.shared.health.send_replace(Health::Healthy);
        }
        self.writer.news.tell();
    }

    /// Stops after the last attempt. If the map resolves a rewind by itself, it
    /// does so in its next round, and its callers keep waiting. Otherwise they get
    /// the error. Returns whether they did.
    ///
    /// `is_kept`: a batch of unknown outcome is still in flight.
    pub(crate) fn stop(&mut self, error: &Error, is_kept: bool) -> bool {
        self.writer.rewound |= error.kind() == ErrorKind::Rewound;
        if error.kind() == ErrorKind::Rewound && self.is_going_on() {
            self.start_attempts();
            self.shared.age.round_fails(is_kept);
            self.tell_health(error);
            return false;
        }
        self.give_up(error, is_kept);
        true
    }

    /// Whether the map is about to resolve a rewind by itself.
    pub(crate) fn is_going_on(&self) -> bool {
        self.writer.rewound && self.shared.options.on_rewind != Rewind::Stop
    }

    /// Gives up: all changes stay pending, and every waiting caller gets the
    /// error.
    pub(crate) fn give_up(&mut self, error: &Error, is_kept: bool) {
        self.start_attempts();
        self.shared.age.round_fails(is_kept);
        self.writer.down = true;
        self.writer.rewound |= error.kind() == ErrorKind::Rewound;
        // Before the callers are answered: a caller whose save failed must find the
        // health that explains it.
        self.tell_health(error);
        let is_rewound = error.kind() == ErrorKind::Rewound;
        let (waiting, is_closing) = self.shared.requests.lock().take_early(is_rewound, is_kept);
        if is_closing {
            self.shared.phase.turn(phase::CLOSING, phase::OPEN);
        }
        answer_all(waiting, &Err(error.clone()));
        self.shared.refuse_jobs(error, |_| true);
    }

    fn tell_health(&self, error: &Error) {
        let now = self.shared.clock.now();
        let fail = |health: &mut Health| health.fail(now, error.clone());
        self.shared.health.send_if_modified(fail);
    }

    /// Returns the error of a store that is down.
    pub(crate) fn check_up(&self) -> Result<()> {
        match self.shared.health.borrow().error() {
            Some(error) if self.writer.down => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Adopts the incarnation that the store answered with, if none was known.
    ///
    /// # Errors
    ///
    /// `Rewound` if another one was known. Waiting callers have received the error,
    /// unless the map resolves a rewind by itself.
    pub(crate) fn check_incarnation(&mut self, found: Option<Incarnation>) -> Result<()> {
        let checked = self.writer.claims.check(found);
        checked.map_err(|error| {
            let error = error.on_map(&self.shared.name);
            self.report(Operation::Probe, KeySample::default(), &error, true);
            self.stop(&error, false);
            error
        })
    }

    /// Records that the store has acknowledged that batch, unless another map's
    /// writer sent it.
    pub(crate) fn acknowledge(&mut self, id: BatchId) {
        if id.writer == self.writer.id {
            let now = self.shared.clock.now();
            self.writer.claims.acknowledge(id, now);
        }
    }

    pub(crate) fn report(
        &self,
        operation: Operation,
        keys: KeySample,
        error: &Error,
        is_final: bool,
    ) {
        let shared = self.shared;
        shared.tally.failed_attempts.fetch_add(1, Relaxed);
        let (attempt, max_attempts) = match operation {
            Operation::Probe | Operation::Encode | Operation::Merge => (1, 1),
            Operation::Commit | Operation::SetAside => {
                (self.writer.attempts.made, shared.options.retry.attempts())
            }
        };
        if operation == Operation::Probe {
            // The outage was logged before.
            tracing::debug!(target: FLUSH, map = %shared.name, error = %error.logged(), "the store is still down");
        } else {
            tracing::warn!(target: FLUSH, map = %shared.name, ?operation, attempt, is_final, error = %error.logged(), "a save failed");
            tracing::trace!(target: FLUSH, map = %shared.name, ?error, "the save failed with this");
        }
        if !matches!(operation, Operation::Encode | Operation::Merge) {
            *shared.trouble.lock() = Some(error.clone());
        }
        // Fails if there is no subscriber.
        let _ = shared.failures.send(SaveFailure {
            map: shared.name.clone(),
            operation,
            attempt,
            max_attempts,
            is_final,
            keys,
            error: error.clone(),
        });
    }
}
