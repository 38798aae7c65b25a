//! What the handles of a map and its background task share.

use std::{
    any::Any,
    collections::BTreeMap,
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
    age::Age,
    calls::answer_within,
    conflicts::Conflicts,
    inside::Inside,
    lifetime::Lifetime,
    line::Line,
    loaders::Loaders,
    options::{Options, Triggers},
    pending::{Lane, Pending},
    phase::{self, Phase},
    requests::Requests,
    shards::{EntryRef, Shards},
    verify::Verifier,
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

/// What the handles of a map and its background task share.
pub(crate) struct Core<V, L: Lifetime<V>> {
    pub(super) name: MapName,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) options: Options,
    pub(super) triggers: ArcSwap<Triggers>,
    pub(super) clock: Arc<MapClock>,
    pub(crate) lifetime: L,
    pub(super) shards: Shards<V, L::Lease>,
    pub(super) pending: Pending,
    /// How many entries are marked `Saving`.
    pub(super) saving: AtomicUsize,
    pub(super) age: Age,
    /// Which clear the entries in memory come after, and which one the store
    /// has seen. The first changes only while all shards are locked.
    pub(super) epoch: AtomicU64,
    pub(super) cleared: AtomicU64,
    pub(super) refused: Mutex<BTreeMap<Arc<str>, Error>>,
    /// How often something refused came to wait again. Counted before it leaves
    /// the list: whoever does not find it there finds it here.
    pub(super) retried: AtomicU64,
    pub(super) unreadable: Mutex<BTreeMap<Arc<str>, UnreadableRecord>>,
    pub(super) requests: Mutex<Requests>,
    pub(super) wake: Notify,
    pub(super) stop: Notify,
    pub(super) phase: Phase,
    pub(super) failures: broadcast::Sender<SaveFailure>,
    pub(super) health: watch::Sender<Health>,
    /// What the last attempt failed with, until one goes through.
    pub(super) trouble: Mutex<Option<Error>>,
    pub(super) conflicts: Conflicts<V>,
    pub(super) tally: Tally,
    pub(super) loaders: Loaders,
    pub(super) verifier: Verifier,
}

/// What a clear has made void. To drop it takes its time, and foreign code may
/// run: that of what refused the changes. So no lock is held then.
struct Forgotten {
    _queued: Vec<Lane>,
    _refused: BTreeMap<Arc<str>, Error>,
    _deadlines: Box<dyn Any + Send>,
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

impl<V, L: Lifetime<V>> Core<V, L> {
    pub(super) fn new(
        name: MapName,
        provider: Arc<dyn Provider>,
        options: Options,
        clock: Arc<MapClock>,
        lifetime: L,
    ) -> Self {
        Self {
            name,
            provider,
            triggers: ArcSwap::from_pointee(options.triggers),
            age: Age::since(clock.now()),
            verifier: Verifier::new(options.verify),
            options,
            clock,
            lifetime,
            shards: Shards::new(),
            pending: Pending::new(),
            saving: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
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
            conflicts: Conflicts::default(),
            tally: Tally::default(),
            loaders: Loaders::default(),
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

    pub(super) fn line(&self) -> Line {
        Line {
            provider: self.provider.clone(),
            clock: self.clock.clone(),
            retry: self.options.retry.clone(),
            limit: self.options.commit_timeout,
        }
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

    /// Forgets all entries at one point in time; the store follows with the
    /// next commit.
    ///
    /// # Errors
    ///
    /// `Closed`; then nothing was done.
    pub(super) fn clear(&self, also: impl FnOnce()) -> Result<()> {
        let (mut forgotten, all);
        {
            let _inside = Inside::enter();
            forgotten = None;
            all = self.shards.take_all(|| {
                self.check_open()?;
                forgotten = Some(self.forget_all());
                also();
                Ok(())
            })?;
        }
        self.wake.notify_one();
        self.drop_value(forgotten);
        self.let_go_of_all(all);
        Ok(())
    }

    /// With all shards locked, so that no mark can change.
    fn forget_all(&self) -> Forgotten {
        // Before the queue: whoever finds that empty then knows of this clear.
        self.epoch.fetch_add(1, SeqCst);
        let queued = self.pending.take_all();
        self.saving.store(0, Relaxed);
        if !self.refused.lock().is_empty() {
            self.retried.fetch_add(1, SeqCst);
        }
        let refused = std::mem::take(&mut *self.refused.lock());
        let deadlines = self.lifetime.cleared();
        self.age.queued_now(self.clock.now());
        Forgotten {
            _queued: queued,
            _refused: refused,
            _deadlines: deadlines,
        }
    }

    /// Whether the store has yet to hear of a clear.
    pub(super) fn must_clear(&self) -> bool {
        self.cleared.load(SeqCst) != self.epoch.load(SeqCst)
    }

    /// How many changes are not committed; a clear counts as one.
    pub(super) fn pending(&self) -> usize {
        self.pending.len() + self.saving.load(Relaxed) + usize::from(self.must_clear())
    }

    /// How many entries live. Locks one shard after the other.
    pub(super) fn len(&self) -> usize {
        let _inside = Inside::enter();
        if !L::EXPIRES {
            return self.shards.len();
        }
        let mut live = 0;
        self.shards.for_each(|EntryRef { slot, .. }| {
            live += usize::from(slot.live(&self.lifetime).is_some());
        });
        live
    }

    pub(super) fn stats(&self) -> Stats {
        let pending = self.pending();
        let is_queued = self.pending.len() > 0 || self.must_clear();
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

    /// The keys that the store does not have as memory has them.
    pub(super) fn unsaved(&self) -> Vec<Arc<str>> {
        let _inside = Inside::enter();
        let mut keys = self.shards.keys(|entry| !entry.slot.is_clean());
        keys.sort_unstable();
        keys
    }
}
