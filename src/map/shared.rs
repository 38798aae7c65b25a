//! The part of an open map that does not depend on the type of its values.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};

use super::{
    api::builder::options::{Options, Triggers},
    phase,
    phase::Phase,
    write_behind::{
        age::Age,
        committer::calls::answer_within,
        dirty_queue::DirtyQueue,
        proposal::Errand,
        requests::{Request, Requests, Ticket},
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

/// How many failures a slow subscriber may lag behind.
const FAILURES_KEPT: usize = 256;

/// The part of an open map that does not depend on the type of its values: its store, its
/// dirty keys, and the callers that wait for commits.
pub(crate) struct Shared {
    pub(super) name: MapName,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) options: Options,
    pub(super) triggers: ArcSwap<Triggers>,
    pub(super) clock: Arc<MapClock>,
    pub(super) queue: DirtyQueue,
    /// How many entries are marked `Saving`.
    pub(super) saving: AtomicUsize,
    pub(super) age: Age,
    /// The number of the last clear in memory, and of the last one in the store. The first
    /// changes only while all shards are locked.
    pub(super) generation: AtomicU64,
    pub(super) stored_generation: AtomicU64,
    pub(super) refused: Mutex<BTreeMap<Arc<str>, Error>>,
    /// How many refused changes became pending again. Counted before the change leaves the
    /// list: a reader that misses it there finds it here.
    pub(super) retried: AtomicU64,
    pub(super) unreadable: Mutex<BTreeMap<Arc<str>, UnreadableRecord>>,
    pub(super) requests: Mutex<Requests>,
    pub(super) wake: Notify,
    pub(super) stop: Notify,
    pub(super) phase: Phase,
    pub(super) failures: broadcast::Sender<SaveFailure>,
    pub(super) health: watch::Sender<Health>,
    /// The error of the last attempt, until one goes through.
    pub(super) trouble: Mutex<Option<Error>>,
    pub(super) tally: Tally,
}

/// What has been counted since the map was opened.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) commits: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) failed_attempts: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) last_commit: Mutex<Option<SystemTime>>,
}

impl Tally {
    /// One more commit, of so many changes.
    pub(super) fn count(&self, changes: usize, at: SystemTime) {
        self.commits.fetch_add(1, Relaxed);
        self.changes.fetch_add(changes as u64, Relaxed);
        *self.last_commit.lock() = Some(at);
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
            triggers: ArcSwap::from_pointee(options.triggers),
            age: Age::since(clock.now()),
            options,
            clock,
            queue: DirtyQueue::new(),
            saving: AtomicUsize::new(0),
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

    /// Calls the provider, on behalf of this map.
    pub(super) async fn call<T, F>(&self, call: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let limit = self.options.commit_timeout;
        let answer = answer_within(limit, &self.clock, call).await;
        answer.map_err(|error| error.on_map(&self.name))
    }

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

    pub(super) fn closed(&self) -> Error {
        let message = "the map is closed: open it again to write to it";
        Error::new(ErrorKind::Closed, message).on_map(&self.name)
    }

    /// Whether the store has yet to hear of a clear.
    pub(super) fn must_clear(&self) -> bool {
        self.stored_generation.load(SeqCst) != self.generation.load(SeqCst)
    }

    /// How many changes are not committed; a clear counts as one.
    pub(super) fn pending(&self) -> usize {
        self.queue.len() + self.saving.load(Relaxed) + usize::from(self.must_clear())
    }

    pub(super) fn stats(&self) -> Stats {
        let pending = self.pending();
        let is_queued = self.queue.len() > 0 || self.must_clear();
        // A round that has committed all it had may not have ended yet.
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

    /// Asks the flusher.
    pub(super) fn ask(&self, request: Request) -> Ticket {
        self.leave(|requests, answer| requests.ask(request, answer))
    }

    fn leave(
        &self,
        leave: impl FnOnce(&mut Requests, super::write_behind::waiters::Answer),
    ) -> Ticket {
        let (answer, ticket) = Ticket::new();
        let mut requests = self.requests.lock();
        // Under one lock with the end of the flusher: a request is either refused here, or
        // seen by the flusher, or dropped at its end.
        if !requests.unserved {
            leave(&mut requests, answer);
        } else if self.phase.is(phase::CLOSED) {
            // It cannot fail: the ticket is here.
            let _ = answer.send(Err(self.closed()));
        }
        drop(requests);
        self.wake.notify_one();
        ticket
    }

    /// Leaves an errand with the flusher and wakes it. If that is gone, the errand is
    /// refused, or dropped, which tells its caller.
    pub(super) fn leave_errand(&self, errand: Errand) {
        let mut requests = self.requests.lock();
        if !requests.unserved {
            requests.errands.push_back(errand);
        } else if self.phase.is(phase::CLOSED) {
            errand.refuse(&self.closed());
        }
        drop(requests);
        self.wake.notify_one();
    }

    /// Refuses these errands.
    pub(super) fn refuse_errands(&self, error: &Error, which: impl Fn(&Errand) -> bool) {
        let refused = {
            let mut requests = self.requests.lock();
            let all = std::mem::take(&mut requests.errands);
            let (refused, left): (VecDeque<_>, _) = all.into_iter().partition(which);
            requests.errands = left;
            refused
        };
        for errand in refused {
            errand.refuse(error);
        }
    }

    /// These callers wait again, before those that came since.
    pub(super) fn give_back(&self, saves: Waiters) {
        self.requests.lock().saves.put_back(saves);
    }
}
