//! The one background task of a map: it writes what changed, in batches.

mod assembled;
mod assembly;
mod closing;
mod doubts;
mod failing;
mod merging;
mod parts;
mod probing;
mod resolving;
mod rewinding;
mod serving;
mod settling;
mod waiting;

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::SystemTime,
};

use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use self::{
    assembled::Assembled, doubts::Doubts, parts::Part, probing::News, rewinding::MAX_REWINDS,
};
use super::{
    claims::Claims,
    core::Core,
    lifetime::Lifetime,
    loading::Loaded,
    pending::Until,
    phase,
    requests::{Answer, Asked, ended, send},
    retry::Attempts,
    spans,
};
use crate::{
    batch::{Batch, BatchId, Committed, MapBatch, WriterId},
    error::{Error, Result},
    event::{Health, Operation},
    name::MapName,
    record::{Record, Revision},
    trace::FLUSH,
};

/// The task's own state. There is one commit in flight at a time, so nothing
/// here is shared.
pub(super) struct Flusher<V, L: Lifetime<V>> {
    core: Arc<Core<V, L>>,
    writer: WriterId,
    sequence: u64,
    /// The highest revision seen.
    horizon: Revision,
    /// A batch whose fate is not known: it is sent again as it is.
    unresolved: Option<Assembled>,
    doubts: Doubts,
    /// What is to go by itself: the last of them next.
    parts: Vec<Part>,
    /// The last batch that was committed, to be freed once nobody waits.
    spent: Option<Batch>,
    attempts: Attempts,
    down: bool,
    /// What other maps find out about the store.
    news: News,
    /// What had been [retried](Core::retried) when the last round began.
    retried: u64,
    /// What the store has to know of this map.
    claims: Claims,
    /// The store has gone back in time, and nothing was decided yet.
    rewound: bool,
}

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    pub(super) fn new(core: Arc<Core<V, L>>, loaded: Loaded) -> Self {
        Self {
            writer: WriterId::random(),
            sequence: 0,
            horizon: loaded.horizon,
            unresolved: None,
            doubts: Doubts::default(),
            parts: Vec::new(),
            spent: None,
            attempts: Attempts::new(&core.options.retry),
            down: false,
            news: News::of(core.provider.heartbeat()),
            retried: 0,
            claims: Claims::of(loaded.incarnation),
            rewound: false,
            core,
        }
    }

    /// Works until the map is closed or its last handle is dropped.
    pub(super) async fn run(mut self) {
        let core = self.core.clone();
        let closing = tokio::select! {
            () = core.stop.notified() => Vec::new(),
            closing = self.work() => closing,
        };
        // Before anybody is told: whoever closed the last map of a folder may
        // open it again at once, and must not find it held by this task.
        drop((self, core));
        send(closing, &Ok(()));
    }

    async fn work(&mut self) -> Vec<Answer> {
        loop {
            self.idle().await;
            let was_down = self.down;
            // While the store is down, the round finds out when it is up again.
            let mut done = if was_down { Ok(()) } else { self.serve().await };
            if done.is_ok() && !self.is_round_due() {
                continue;
            }
            let mut asked = std::mem::take(&mut self.core.requests.lock().asked);
            let resolutions = std::mem::take(&mut asked.resolutions);
            if !resolutions.is_empty() {
                done = self.resolve_asked(resolutions).await;
            } else if done.is_ok() {
                done = self.round().await;
            }
            if let ControlFlow::Break(closing) = self.answer(asked, done, was_down).await {
                return closing;
            }
            self.spent = None;
        }
    }

    /// Waits until there is something to do.
    async fn idle(&mut self) {
        if self.down {
            return self.wait_to_probe().await;
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
        self.rewound
            || self.core.pending.len() >= self.core.triggers.load().size
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
        let is_much = || self.core.pending.len() >= self.core.triggers.load().size;
        self.down || self.rewound || is_wanted || is_much() || is_late()
    }

    /// When the oldest change has waited long enough.
    fn deadline(&self) -> Option<SystemTime> {
        let waits = self.core.pending.len() > 0 || self.core.must_clear();
        let interval = self.core.triggers.load().interval;
        // A deadline beyond the end of time never comes.
        waits.then(|| self.core.age.queued_since().checked_add(interval))?
    }

    /// Commits all that is pending now. If the store turns out to have gone back
    /// in time, and the map goes on by itself then, it begins anew.
    ///
    /// # Errors
    ///
    /// What the last attempt failed with. By then everything is queued again
    /// (or kept as unresolved), and everybody who waits was told.
    async fn round(&mut self) -> Result<()> {
        let mut rewinds = 0;
        loop {
            self.go_on_by_itself().await?;
            let done = self.commit_all().await;
            let Some(error) = done.as_ref().err().filter(|_| self.is_going_on()) else {
                return done;
            };
            rewinds += 1;
            if rewinds == MAX_REWINDS {
                self.give_up(error);
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
        let mut until = self.core.pending.until_now();
        if self.core.pending() > 0 {
            self.core.age.round_begins();
        }
        if self.down && self.unresolved.is_none() && self.core.pending() == 0 {
            self.ping().await?;
        }
        self.commit_until(&mut until, true).await?;
        self.core.age.round_ends(began);
        Ok(())
    }

    /// Commits what was queued before then; the `first` batch may hold nothing
    /// but what somebody waits for.
    ///
    /// # Errors
    ///
    /// As [`round`](Self::round).
    async fn commit_until(&mut self, until: &mut Until, mut first: bool) -> Result<()> {
        loop {
            let unresolved = self.unresolved.take();
            let next = unresolved.or_else(|| self.assemble(until, first));
            let Some(assembled) = next else {
                break;
            };
            first = false;
            // Two at once are enough.
            self.spent = None;
            match self.commit(&assembled).await {
                Ok(committed) => {
                    let (id, incarnation) = (assembled.batch.id, committed.incarnation);
                    // What met another's change goes again at once: what was
                    // found is known afresh, and a pause would only make it
                    // older. Whoever loses to others time and again does not
                    // stop them: each time one of them has got on.
                    if self.settle(assembled, committed) {
                        until.rewind();
                    }
                    self.acknowledge(id, incarnation)?;
                }
                Err((operation, error)) => {
                    self.fail(assembled, operation, error).await?;
                    until.rewind();
                }
            }
            let_others_go_on().await;
        }
        if self.attempts.made > 0 {
            // What failed was taken back before it was tried again.
            self.start_attempts();
        }
        Ok(())
    }

    /// A batch of this writer under a number of its own.
    fn batch(&mut self, part: MapBatch) -> Batch {
        self.sequence += 1;
        let id = BatchId::new(self.writer, self.sequence);
        let now = self.core.clock.now();
        let part = self.claims.on(part, now);
        Batch::new(id, self.horizon, now, vec![part])
    }

    /// An id for a batch of its own kind; the sequence after it stays free, to
    /// fence that batch with.
    fn fenced_id(&mut self) -> BatchId {
        self.sequence += 2;
        BatchId::new(self.writer, self.sequence - 1)
    }

    async fn commit(&mut self, assembled: &Assembled) -> Result<Committed, (Operation, Error)> {
        self.begin_attempt();
        // What cannot be decoded is copied away before its key is overwritten:
        // committed first, so that a crash between the two leaves both.
        let (clears, changes) = (assembled.clears(), assembled.changes());
        self.set_aside(self.core.unreadable_under(clears, changes))
            .await
            .map_err(|error| (Operation::SetAside, error))?;
        let provider = self.core.provider.clone();
        let span = spans::commit(&assembled.batch, &*provider, self.attempts.made + 1);
        let commit = self.core.call(|| provider.commit(&assembled.batch));
        let committed = commit.instrument(span).await;
        let operation = if self.down {
            Operation::Probe
        } else {
            Operation::Commit
        };
        committed.map_err(|error| (operation, error))
    }

    async fn set_aside(&mut self, records: Vec<Record>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let map: MapName = self.core.name.nested(super::unreadable::ASIDE)?;
        let changes = records.iter().map(super::unreadable::copy_of).collect();
        // A writer of its own each time: a number of ours must stay free for
        // the batch that waits, which may be older than this one. And no claims:
        // what the store knows of the map says nothing of that one.
        let id = BatchId::new(WriterId::random(), 1);
        let part = MapBatch::new(map, changes);
        let batch = Batch::new(id, self.horizon, self.core.clock.now(), vec![part]);
        let span = spans::commit(&batch, &*self.core.provider, self.attempts.made + 1);
        let commit = self.core.call(|| self.core.provider.commit(&batch));
        commit.instrument(span).await?;
        self.core.was_set_aside(&records);
        Ok(())
    }

    /// Says whether some of it waits again.
    fn settle(&mut self, mut assembled: Assembled, committed: Committed) -> bool {
        // Before the waiters hear: a caller whose save succeeded finds the map
        // healthy.
        self.is_well();
        self.horizon = self.horizon.max(committed.revision.unwrap_or_default());
        let changes = assembled.changes();
        self.settle_doubts(changes, &committed.skipped, committed.revision);
        let skipped = self.core.settle_all(&assembled, committed);
        let again = self.resolve(&mut assembled, skipped);
        self.spent = Some(assembled.answer(&Ok(())));
        again
    }

    fn is_well(&mut self) {
        self.start_attempts();
        *self.core.trouble.lock() = None;
        let was_rewound = std::mem::take(&mut self.rewound);
        if std::mem::take(&mut self.down) || was_rewound {
            tracing::info!(target: FLUSH, map = %self.core.name, "the store is well again");
            self.core.health.send_replace(Health::Healthy);
        }
        self.news.tell();
    }

    fn start_attempts(&mut self) {
        self.attempts = Attempts::new(&self.core.options.retry);
    }
}

/// A provider that never waits must not keep the thread to itself. And whoever
/// was just answered may have more to save, in the next batch: those whom
/// another thread has taken over to run have come that far by the second time.
/// Measured: of 64 tasks that save one thing after the other, a batch holds all
/// 64, where it would hold 53.
async fn let_others_go_on() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

impl<V, L: Lifetime<V>> Drop for Flusher<V, L> {
    /// However the task ends (a runtime that shuts down included), nobody is
    /// left waiting for it.
    fn drop(&mut self) {
        // Whoever was closing the map cannot any more.
        self.core.phase.turn(phase::CLOSING, phase::OPEN);
        let mut requests = self.core.requests.lock();
        requests.unserved = true;
        requests.saves.clear();
        requests.asked = Asked::default();
        let errands = std::mem::take(&mut requests.errands);
        drop(requests);
        // They hold values, and foreign code runs when those are dropped.
        drop(errands);
        let error = if self.core.phase.is(phase::CLOSED) {
            self.core.closed()
        } else {
            ended().on_map(&self.core.name)
        };
        // Whoever closes the map is answered after this: what is told then is
        // known here.
        self.core.health.send_replace(Health::Ended { error });
    }
}
