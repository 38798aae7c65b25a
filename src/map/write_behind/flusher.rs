//! The flusher: the background task of a map, which commits dirty entries in
//! batches.

mod assembly;
mod closing;
mod degraded;
mod dirty_batch;
mod draft;
mod isolating;
mod merging;
mod resolving;
mod rewinding;
mod serving;
mod settling;
pub(crate) mod taking;

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};

use self::{dirty_batch::DirtyBatch, draft::Draft, rewinding::MAX_REWINDS};
use super::dirty_queue::Watermark;
use super::{
    committer::{
        Committer,
        claims::Claims,
        delivery::Outcome,
        probing::{wait_to_probe, wait_to_retry},
        unacknowledged::Unacknowledged,
        writer::Writer,
    },
    requests::{Asked, ended},
    waiters::{Waiter, Waiters, answer_all},
};
use crate::{
    batch::Batch,
    error::{Error, Result},
    event::{Health, Operation},
    map::{core::Core, lifetime::Lifetime, load::loading::Loaded, phase},
};

/// Called with the error each time the attempts are used up.
type OnExhausted<'a> = &'a mut (dyn FnMut(&Error) + Send);

/// The state of the background task. One commit is in flight at a time, so none of
/// it is shared.
pub(crate) struct Flusher<V, L: Lifetime<V>> {
    core: Arc<Core<V, L>>,
    writer: Writer,
    /// Parts: groups of keys that are committed separately, the last group next.
    /// They are halves of a refused batch, or changes that must precede another
    /// commit.
    parts: Vec<Vec<Arc<str>>>,
    /// The changes taken for the next batch while the current one is committed.
    ahead: Option<Draft>,
    /// The last committed batch, freed once no caller waits.
    spent: Option<Batch>,
    /// The number of [retried](crate::map::shared::Shared::retried) refused changes
    /// when the last round began.
    retried: u64,
    /// When the number of keys may start the next round.
    paced: SystemTime,
}

/// The shortest time between the beginnings of two rounds that are started by the number
/// of keys. Without it, keys that change all the time would be committed continuously;
/// with it, once in that time.
const PACE: Duration = Duration::from_millis(10);

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    pub(crate) fn new(core: Arc<Core<V, L>>, loaded: Loaded) -> Self {
        let unacknowledged =
            Unacknowledged::new(core.asks_conditions(), core.conflicts.are_detected());
        let heartbeat = core.provider.heartbeat();
        let claims = Claims::of(loaded.incarnation);
        let retry = &core.options.retry;
        let mut flusher = Self {
            writer: Writer::new(loaded.horizon, claims, unacknowledged, retry, heartbeat),
            parts: Vec::new(),
            ahead: None,
            spent: None,
            retried: 0,
            paced: core.clock.now(),
            core,
        };
        flusher.committer().loaded_from(loaded.copied_at);
        flusher
    }

    /// Runs until the map is closed or its last handle is dropped.
    pub(crate) async fn run(mut self) {
        let core = self.core.clone();
        let closing = tokio::select! {
            () = core.stop.notified() => Vec::new(),
            closing = self.work() => closing,
        };
        // Before the callers are answered: a caller that closed the last map of a
        // folder may open it again at once, and must not find it held by this task.
        drop((self, core));
        answer_all(closing, &Ok(()));
    }

    async fn work(&mut self) -> Vec<Waiter> {
        loop {
            self.idle().await;
            // While the store is down, the round finds out when it is back.
            if !self.writer.down {
                self.serve().await;
                if self.writer.down || !self.is_round_due() {
                    continue;
                }
            }
            self.core.requests.lock().begin_round();
            let done = self.requested_round().await;
            if done.is_ok() {
                self.leave_copy().await;
            }
            if let ControlFlow::Break(closing) = self.answer(done).await {
                return closing;
            }
            self.spent = None;
        }
    }

    fn committer(&mut self) -> Committer<'_> {
        Committer {
            shared: &self.core.shared,
            writer: &mut self.writer,
        }
    }

    /// Waits until there is work.
    async fn idle(&mut self) {
        if self.writer.down {
            return wait_to_probe(&mut [self.committer()]).await;
        }
        while !self.is_due() {
            let woken = self.core.wake.notified();
            match self.deadline() {
                None => woken.await,
                Some(deadline) => tokio::select! {
                    () = woken => {}
                    () = self.core.clock.sleep_until(deadline) => return,
                },
            }
        }
    }

    fn is_due(&self) -> bool {
        let is_needed = self.writer.rewound || self.writer.must_leave_copy();
        is_needed || self.is_late() || !self.core.requests.lock().is_empty()
    }

    /// Whether pending changes are to be saved now. Jobs alone are no reason.
    fn is_round_due(&self) -> bool {
        let is_wanted = {
            let requests = self.core.requests.lock();
            !requests.saves.is_empty() || !requests.asked.is_empty()
        };
        let is_needed = self.writer.rewound || self.writer.must_leave_copy();
        is_needed || is_wanted || self.is_late()
    }

    fn is_late(&self) -> bool {
        self.deadline()
            .is_some_and(|at| at <= self.core.clock.now())
    }

    /// When the next round begins by itself: when the oldest change will have waited
    /// for the batch interval, or before that, if there are enough keys.
    fn deadline(&self) -> Option<SystemTime> {
        let queued = self.core.queue.len();
        if queued == 0 && !self.core.must_clear() {
            return None;
        }
        let triggers = &self.core.triggers;
        // A deadline beyond the range of `SystemTime` never comes.
        let by_age = self
            .core
            .age
            .queued_since()
            .checked_add(triggers.interval());
        let by_size = (queued >= triggers.size()).then_some(self.paced);
        by_age.into_iter().chain(by_size).min()
    }

    /// Commits everything that is pending now. If the store turns out to have gone
    /// back in time and the map resolves that by itself, the round starts over.
    ///
    /// # Errors
    ///
    /// The error of the last attempt. By then everything is queued again, and every
    /// waiting caller has the error.
    async fn round(&mut self) -> Result<()> {
        let mut rewinds = 0;
        loop {
            self.go_on_by_itself().await?;
            let done = self.commit_all().await;
            let Some(error) = done
                .as_ref()
                .err()
                .filter(|_| self.committer().is_going_on())
            else {
                return done;
            };
            rewinds += 1;
            if rewinds == MAX_REWINDS {
                self.committer().give_up(error, false);
                return done;
            }
        }
    }

    /// Commits everything in as many batches as needed.
    ///
    /// # Errors
    ///
    /// As [`round`](Self::round).
    async fn commit_all(&mut self) -> Result<()> {
        let began = self.core.clock.now();
        self.paced = began.checked_add(PACE).unwrap_or(began);
        self.retried = self.core.retried.load(SeqCst);
        let mut until = self.core.queue.watermark();
        if self.core.pending() > 0 {
            self.core.age.round_begins();
        } else if self.writer.down {
            self.ping().await?;
        }
        self.commit_until(&mut until, true, &mut |_| {}).await?;
        self.core.age.round_ends(began);
        Ok(())
    }

    /// Commits keys queued before the watermark; the `first` batch may hold only
    /// keys that a caller waits for. `on_exhausted` is called each time the attempts
    /// are used up while an outcome is unknown, for callers whose request waits behind
    /// these keys.
    ///
    /// # Errors
    ///
    /// As [`round`](Self::round).
    async fn commit_until(
        &mut self,
        until: &mut Watermark,
        mut first: bool,
        on_exhausted: OnExhausted<'_>,
    ) -> Result<()> {
        while let Some(dirty) = self.assemble(until, first) {
            first = false;
            // Freed before the commit, so that at most two batches are in memory
            // at a time.
            self.spent = None;
            let committed = self.commit(dirty, until, on_exhausted).await;
            if committed.is_err() {
                // The batch may have been committed, by a store that has gone back in time.
                self.put_back_ahead(until);
            }
            if committed? {
                until.rewind();
            }
            let_others_go_on().await;
        }
        // The keys of a failed batch may be gone before its retry; the next
        // batch must not inherit its attempts.
        self.committer().start_attempts();
        Ok(())
    }

    /// Commits a batch; returns whether some of it is queued again.
    ///
    /// # Errors
    ///
    /// As [`round`](Self::round).
    async fn commit(
        &mut self,
        mut dirty: DirtyBatch,
        until: &mut Watermark,
        others: OnExhausted<'_>,
    ) -> Result<bool> {
        let unreadable = self.core.unreadable_under(dirty.clears(), dirty.changes());
        let mut waiters = std::mem::take(&mut dirty.waiters);
        let mut on_exhausted = |error: &Error| {
            let waiters: Waiters = std::mem::take(&mut waiters);
            waiters.answer(&Err(error.clone()));
            others(error);
        };
        let set_aside = self
            .committer()
            .set_aside(&unreadable, &mut on_exhausted)
            .await;
        let (operation, outcome) = match set_aside {
            Ok(()) => {
                let sent = self.deliver(&dirty, until, &mut on_exhausted).await;
                (Operation::Commit, sent)
            }
            Err(outcome) => (Operation::SetAside, outcome),
        };
        dirty.waiters = waiters;
        if !matches!(outcome, Outcome::Committed(_)) {
            // Before the batch itself, which goes in front of them again.
            self.put_back_ahead(until);
        }
        match outcome {
            Outcome::Committed(committed) => {
                let incarnation = committed.incarnation;
                // Changes that conflicted are committed again at once: the found
                // value is fresh, and a pause would only make it older. Repeated
                // conflicts cannot livelock: each time, one of the other writers
                // has made progress.
                let again = self.settle(dirty, committed);
                self.committer().check_incarnation(incarnation)?;
                Ok(again)
            }
            Outcome::Rejected { error, uncertain } => {
                let rejected = self.rejected(dirty, operation, error, uncertain);
                rejected.map(|()| true)
            }
            Outcome::Abandoned {
                error,
                uncertain,
                retry_in,
            } => {
                self.put_back(dirty, uncertain);
                let Some(delay) = retry_in else {
                    return Err(error);
                };
                wait_to_retry(&mut [self.committer()], delay).await;
                Ok(true)
            }
        }
    }

    /// Sends a batch until its outcome is known. Meanwhile, takes changes for the next one,
    /// unless that one is a part of a refused batch.
    async fn deliver(
        &mut self,
        dirty: &DirtyBatch,
        until: &mut Watermark,
        on_exhausted: impl FnMut(&Error),
    ) -> Outcome {
        let is_last_part = self.parts.is_empty();
        let core = self.core.clone();
        let mut ahead = None;
        let mut committer = self.committer();
        let outcome = tokio::select! {
            // The store is asked first.
            biased;
            outcome = committer.deliver(&dirty.batch, on_exhausted) => outcome,
            never = core.draft_ahead(until, &mut ahead), if is_last_part => match never {},
        };
        self.ahead = ahead;
        outcome
    }
}

/// Yields twice. A provider that is always ready must not starve other tasks, and
/// callers that were just answered may have more to save in the next batch; tasks
/// stolen by another worker thread get that far by the second yield. Measured: of
/// 64 tasks that save one change after another, a batch holds all 64, instead of 53
/// with one yield.
async fn let_others_go_on() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

impl<V, L: Lifetime<V>> Drop for Flusher<V, L> {
    /// Ends the wait of every caller, however the task ends, even if the runtime
    /// shuts down.
    fn drop(&mut self) {
        // Callers that are closing the map cannot close it any more.
        self.core.phase.turn(phase::CLOSING, phase::OPEN);
        let mut requests = self.core.requests.lock();
        requests.unserved = true;
        requests.saves = Waiters::default();
        requests.asked = Asked::default();
        requests.round = Asked::default();
        let jobs = std::mem::take(&mut requests.jobs);
        drop(requests);
        // Dropped without the lock: jobs hold values, and dropping a value runs
        // foreign code.
        drop(jobs);
        let error = if self.core.phase.is(phase::CLOSED) {
            self.core.closed()
        } else {
            ended().on_map(&self.core.name)
        };
        // Callers that close the map are answered after this, so they find this
        // health.
        self.core.health.send_replace(Health::Ended { error });
    }
}
