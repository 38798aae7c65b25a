//! The one background task of a map: it writes what changed, in batches.

mod assembly;
mod closing;
mod dirty_batch;
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
    time::SystemTime,
};

use serde::{Serialize, de::DeserializeOwned};

use self::{dirty_batch::DirtyBatch, rewinding::MAX_REWINDS};
use super::dirty_queue::Watermark;
use super::{
    committer::{
        Committer,
        claims::Claims,
        delivery::Outcome,
        doubts::Doubts,
        probing::{wait_to_probe, wait_to_retry},
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

/// The task's own state. There is one commit in flight at a time, so nothing here is
/// shared.
pub(crate) struct Flusher<V, L: Lifetime<V>> {
    core: Arc<Core<V, L>>,
    writer: Writer,
    /// Keys that go to the store by themselves, the last of these parts next: halves of a
    /// batch that was refused, or changes that have to go before another commit.
    parts: Vec<Vec<Arc<str>>>,
    /// The last batch that was committed, to be freed once no caller waits.
    spent: Option<Batch>,
    /// How many refused changes had been [retried](crate::map::shared::Shared::retried) when
    /// the last round began.
    retried: u64,
}

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    pub(crate) fn new(core: Arc<Core<V, L>>, loaded: Loaded) -> Self {
        let doubts = Doubts::new(core.asks_conditions(), core.conflicts.are_looked_for());
        let heartbeat = core.provider.heartbeat();
        let claims = Claims::of(loaded.incarnation);
        let retry = &core.options.retry;
        Self {
            writer: Writer::new(loaded.horizon, claims, doubts, retry, heartbeat),
            parts: Vec::new(),
            spent: None,
            retried: 0,
            core,
        }
    }

    /// Works until the map is closed or its last handle is dropped.
    pub(crate) async fn run(mut self) {
        let core = self.core.clone();
        let closing = tokio::select! {
            () = core.stop.notified() => Vec::new(),
            closing = self.work() => closing,
        };
        // Before any caller is told: one that closed the last map of a folder may open it
        // again at once, and must not find it held by this task.
        drop((self, core));
        answer_all(closing, &Ok(()));
    }

    async fn work(&mut self) -> Vec<Waiter> {
        loop {
            self.idle().await;
            // While the store is down, the round finds out when it is up again.
            if !self.writer.down {
                self.serve().await;
                if self.writer.down || !self.is_round_due() {
                    continue;
                }
            }
            self.core.requests.lock().begin_round();
            let done = self.requested_round().await;
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

    /// Waits until there is something to do.
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
        self.writer.rewound
            || self.core.queue.len() >= self.core.triggers.load().size
            || !self.core.requests.lock().is_empty()
    }

    /// Whether what is pending is to be saved now. Errands alone are no reason.
    fn is_round_due(&self) -> bool {
        let is_wanted = {
            let requests = self.core.requests.lock();
            !requests.saves.is_empty() || !requests.asked.is_empty()
        };
        let is_late = || {
            self.deadline()
                .is_some_and(|at| at <= self.core.clock.now())
        };
        let is_much = || self.core.queue.len() >= self.core.triggers.load().size;
        self.writer.rewound || is_wanted || is_much() || is_late()
    }

    /// When the oldest change has waited long enough.
    fn deadline(&self) -> Option<SystemTime> {
        let waits = self.core.queue.len() > 0 || self.core.must_clear();
        let interval = self.core.triggers.load().interval;
        // A deadline beyond the end of time never comes.
        waits.then(|| self.core.age.queued_since().checked_add(interval))?
    }

    /// Commits everything that is pending now. If the store turns out to have gone back in
    /// time, and the map goes on by itself then, it begins anew.
    ///
    /// # Errors
    ///
    /// What the last attempt failed with. By then everything is queued again, and every
    /// caller that waits was told.
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

    /// In as many batches as it takes.
    ///
    /// # Errors
    ///
    /// As [`round`](Self::round).
    async fn commit_all(&mut self) -> Result<()> {
        let began = self.core.clock.now();
        self.retried = self.core.retried.load(SeqCst);
        let mut until = self.core.queue.watermark();
        if self.core.pending() > 0 {
            self.core.age.round_begins();
        } else if self.writer.down {
            self.ping().await?;
        }
        self.commit_until(&mut until, true).await?;
        self.core.age.round_ends(began);
        Ok(())
    }

    /// Commits what was queued before then; the `first` batch may hold only keys that a
    /// caller waits for.
    ///
    /// # Errors
    ///
    /// As [`round`](Self::round).
    async fn commit_until(&mut self, until: &mut Watermark, mut first: bool) -> Result<()> {
        while let Some(dirty) = self.assemble(until, first) {
            first = false;
            // Two at once are enough.
            self.spent = None;
            if self.commit(dirty).await? {
                until.rewind();
            }
            let_others_go_on().await;
        }
        // The rest of a batch that failed may be gone by the time it was to be sent again.
        self.committer().start_attempts();
        Ok(())
    }

    /// Commits a batch; says whether some of it waits again.
    ///
    /// # Errors
    ///
    /// As [`round`](Self::round).
    async fn commit(&mut self, mut dirty: DirtyBatch) -> Result<bool> {
        let unreadable = self.core.unreadable_under(dirty.clears(), dirty.changes());
        let mut waiters = std::mem::take(&mut dirty.waiters);
        let mut told = |error: &Error| {
            let waiters: Waiters = std::mem::take(&mut waiters);
            waiters.answer(&Err(error.clone()));
        };
        let set_aside = self.committer().set_aside(&unreadable, &mut told).await;
        let (operation, outcome) = match set_aside {
            Ok(()) => {
                let sent = self.committer().deliver(&dirty.batch, &mut told).await;
                (Operation::Commit, sent)
            }
            Err(outcome) => (Operation::SetAside, outcome),
        };
        dirty.waiters = waiters;
        match outcome {
            Outcome::Committed(committed) => {
                let incarnation = committed.incarnation;
                // What met another's change goes again at once: the found value is known
                // afresh, and a pause would only make it older. Losing to others again and
                // again does not stop them: each time one of them has got on.
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
}

/// A provider that never waits must not keep the thread to itself. And callers that were
/// just answered may have more to save, in the next batch: those that another thread has
/// taken over to run have come that far by the second time. Measured: of 64 tasks that save
/// one thing after the other, a batch holds all 64, where it would hold 53.
async fn let_others_go_on() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

impl<V, L: Lifetime<V>> Drop for Flusher<V, L> {
    /// However the task ends (a runtime that shuts down included), no caller is left
    /// waiting for it.
    fn drop(&mut self) {
        // A caller that was closing the map cannot any more.
        self.core.phase.turn(phase::CLOSING, phase::OPEN);
        let mut requests = self.core.requests.lock();
        requests.unserved = true;
        requests.saves = Waiters::default();
        requests.asked = Asked::default();
        requests.round = Asked::default();
        let errands = std::mem::take(&mut requests.errands);
        drop(requests);
        // They hold values, and foreign code runs when those are dropped.
        drop(errands);
        let error = if self.core.phase.is(phase::CLOSED) {
            self.core.closed()
        } else {
            ended().on_map(&self.core.name)
        };
        // Callers that close the map are answered after this, and find it so.
        self.core.health.send_replace(Health::Ended { error });
    }
}
