//! The part of an open map that does not depend on its value type.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};

use super::{
    api::builder::options::Options,
    phase,
    phase::Phase,
    write_behind::{
        age::Age,
        committer::calls::answer_within,
        dirty_queue::DirtyQueue,
        proposal::Job,
        requests::{Request, Requests, Ticket},
        triggers::CurrentTriggers,
        waiters::{Awaited, Waiters},
    },
};
use crate::{
    clock::MapClock,
    error::{Error, ErrorKind, Result},
    event::{Health, SaveFailure, Stats, UnreadableRecord},
    name::MapName,
    provider::Provider,
};

/// How many failures a receiver may lag behind before it misses the oldest.
const FAILURES_KEPT: usize = 256;

/// The part of an open map that does not depend on its value type: the store, the
/// dirty keys, and the callers that wait for commits.
pub(crate) struct Shared {
    pub(super) name: MapName,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) options: Options,
    pub(super) triggers: CurrentTriggers,
    pub(super) clock: Arc<MapClock>,
    pub(super) queue: DirtyQueue,
    pub(super) age: Age,
    /// The number of the last clear in memory, and of the last one in the store.
    /// The first changes only while all shards are locked.
    pub(super) generation: AtomicU64,
    pub(super) stored_generation: AtomicU64,
    pub(super) refused: Mutex<BTreeMap<Arc<str>, Error>>,
    /// How many refused changes became pending again. Incremented before the change
    /// leaves the list, so a reader that misses it in the list sees it here.
    pub(super) retried: AtomicU64,
    pub(super) unreadable: Mutex<BTreeMap<Arc<str>, UnreadableRecord>>,
    pub(super) requests: Mutex<Requests>,
    pub(super) wake: Notify,
    pub(super) stop: Notify,
    pub(super) phase: Phase,
    pub(super) failures: broadcast::Sender<SaveFailure>,
    pub(super) health: watch::Sender<Health>,
    /// The error of the last failed attempt, until an attempt succeeds.
    pub(super) trouble: Mutex<Option<Error>>,
    pub(super) tally: Tally,
}

/// Counters since the map was opened.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) commits: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) failed_attempts: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) last_commit: Mutex<Option<SystemTime>>,
    /// What the metrics have of commits, changes, failed attempts and conflicts.
    #[cfg(feature = "metrics")]
    recorded: [AtomicU64; 4],
}

impl Tally {
    /// Counts a commit of `changes` changes.
    pub(super) fn count(&self, changes: usize, at: SystemTime) {
        self.commits.fetch_add(1, Relaxed);
        self.changes.fetch_add(changes as u64, Relaxed);
        *self.last_commit.lock() = Some(at);
    }

    /// How much of these totals is new since the last call. A metric is increased by it,
    /// rather than set, because it outlives the map, and the next one starts at 0.
    #[cfg(feature = "metrics")]
    pub(super) fn unrecorded(&self, totals: [u64; 4]) -> [u64; 4] {
        let mut recorded = self.recorded.iter();
        // The maximum, because two threads may record different totals in any order.
        totals.map(|total| {
            let before = recorded
                .next()
                .map_or(total, |it| it.fetch_max(total, Relaxed));
            total.saturating_sub(before)
        })
    }
}

impl Shared {
    pub(super) fn new(
        name: MapName,
        provider: Arc<dyn Provider>,
        options: Options,
        clock: Arc<MapClock>,
    ) -> Self {
        Self {
            name,
            provider,
            triggers: CurrentTriggers::new(options.triggers),
            age: Age::since(clock.now()),
            options,
            clock,
            queue: DirtyQueue::new(),
            generation: AtomicU64::new(0),
            stored_generation: AtomicU64::new(0),
            refused: Mutex::default(),
            retried: AtomicU64::new(0),
            unreadable: Mutex::default(),
            requests: Mutex::default(),
            wake: Notify::new(),
            stop: Notify::new(),
            phase: Phase::open(),
            failures: broadcast::Sender::new(FAILURES_KEPT),
            health: watch::Sender::new(Health::Healthy),
            trouble: Mutex::default(),
            tally: Tally::default(),
        }
    }

    /// Calls the provider on behalf of this map, with a time limit.
    pub(super) async fn call<T, F>(&self, call: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let limit = self.options.commit_timeout;
        let answer = answer_within(limit, &self.clock, call).await;
        answer.map_err(|error| error.on_map(&self.name))
    }

    #[inline]
    pub(super) fn check_open(&self) -> Result<()> {
        if self.phase.is(phase::OPEN) {
            return Ok(());
        }
        Err(self.closed())
    }

    pub(super) fn check_not_closed(&self) -> Result<()> {
        if self.phase.is(phase::CLOSED) {
            return Err(self.closed());
        }
        Ok(())
    }

    #[cold]
    pub(super) fn closed(&self) -> Error {
        let message = "the map is closed: open it again to write to it";
        Error::new(ErrorKind::Closed, message).on_map(&self.name)
    }

    /// Whether a clear is not committed yet.
    pub(super) fn must_clear(&self) -> bool {
        self.stored_generation.load(SeqCst) != self.generation.load(SeqCst)
    }

    /// The number of uncommitted changes; a clear counts as one.
    pub(super) fn pending(&self) -> usize {
        self.queue.counts.pending() + usize::from(self.must_clear())
    }

    pub(super) fn stats(&self) -> Stats {
        let pending = self.pending();
        let is_queued = self.queue.len() > 0 || self.must_clear();
        // A round that has committed everything, but not ended, still has an age.
        let oldest = self.age.oldest(is_queued, self.clock.now());
        Stats {
            pending,
            refused: self.refused.lock().len(),
            unreadable: self.unreadable.lock().len(),
            oldest_pending: oldest.filter(|_| pending > 0),
            commits: self.tally.commits.load(Relaxed),
            changes: self.tally.changes.load(Relaxed),
            failed_attempts: self.tally.failed_attempts.load(Relaxed),
            conflicts: self.tally.conflicts.load(Relaxed),
            last_commit: *self.tally.last_commit.lock(),
        }
    }

    /// # Errors
    ///
    /// `Refused`, naming the keys, if there are refused changes.
    pub(super) fn check_refused(&self) -> Result<()> {
        let refused = self.refused.lock();
        let Some(first) = refused.values().next() else {
            return Ok(());
        };
        let message = "changes are refused, and are in memory only: see `refused()`; \
                       write to these keys again, or call `retry_refused()`";
        Err(Error::new(ErrorKind::Refused, message)
            .on_map(&self.name)
            .on_keys(refused.keys().cloned())
            .with_source(first.clone()))
    }

    /// Waits for the next commit of this key, or of the last clear.
    pub(super) fn await_save(&self, what: Awaited) -> Ticket {
        self.leave(|requests, answer| requests.await_save(what, answer))
    }

    /// Sends a request to the flusher.
    pub(super) fn ask(&self, request: Request) -> Ticket {
        self.leave(|requests, answer| requests.ask(request, answer))
    }

    fn leave(
        &self,
        leave: impl FnOnce(&mut Requests, super::write_behind::waiters::Answer),
    ) -> Ticket {
        let (answer, ticket) = Ticket::new();
        let mut requests = self.requests.lock();
        // Under the lock that the flusher takes when it ends: a request is either
        // refused here, or seen by the flusher, or dropped when the flusher ends.
        if !requests.unserved {
            leave(&mut requests, answer);
        } else if self.phase.is(phase::CLOSED) {
            // This cannot fail: the receiver is `ticket`.
            let _ = answer.send(Err(self.closed()));
        }
        drop(requests);
        self.wake.notify_one();
        ticket
    }

    /// Queues a job for the flusher and wakes it. If the flusher has ended, the
    /// job is refused, or dropped; either way its caller gets an error.
    pub(super) fn submit_job(&self, job: Job) {
        let mut requests = self.requests.lock();
        if !requests.unserved {
            requests.jobs.push_back(job);
        } else if self.phase.is(phase::CLOSED) {
            job.refuse(&self.closed());
        }
        drop(requests);
        self.wake.notify_one();
    }

    /// Refuses the jobs that `which` accepts.
    pub(super) fn refuse_jobs(&self, error: &Error, which: impl Fn(&Job) -> bool) {
        let refused = {
            let mut requests = self.requests.lock();
            let all = std::mem::take(&mut requests.jobs);
            let (refused, left): (VecDeque<_>, _) = all.into_iter().partition(which);
            requests.jobs = left;
            refused
        };
        for job in refused {
            job.refuse(error);
        }
    }

    /// Puts these callers back, ahead of those that have arrived since.
    pub(super) fn give_back(&self, saves: Waiters) {
        self.requests.lock().saves.put_back(saves);
    }
}
