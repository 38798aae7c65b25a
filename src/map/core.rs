//! What the handles of a map and its background task share.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{
            AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};

use super::{
    builder::Options, inside::Inside, lifetime::Lifetime, pending::Pending, requests::Requests,
    shards::Shards, spot::Spot,
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
pub struct Core<V, L: Lifetime<V>> {
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
    pub(super) unreadable: Mutex<BTreeMap<Arc<str>, UnreadableRecord>>,
    pub(super) requests: Mutex<Requests>,
    pub(super) wake: Notify,
    pub(super) stop: Notify,
    pub(super) phase: AtomicU8,
    pub(super) failures: broadcast::Sender<SaveFailure>,
    pub(super) health: watch::Sender<Health>,
    pub(super) tally: Tally,
    pub(super) loaders: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>,
}

/// When a flush starts without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Triggers {
    pub(super) size: usize,
    pub(super) interval: Duration,
}

/// What has been counted since the map was opened.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) commits: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) failed_attempts: AtomicU64,
    pub(super) last_commit: Mutex<Option<SystemTime>>,
}

/// Since when something is pending, in nanoseconds since the map was opened.
pub(super) struct Age {
    opened: SystemTime,
    /// No queued key has waited since before this; meaningful while one is queued.
    queued: AtomicU64,
    /// The same for the round of commits in flight; `NEVER` without one.
    saving: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// Whether the map takes writes.
pub(super) mod phase {
    pub(crate) const OPEN: u8 = 0;
    pub(crate) const CLOSING: u8 = 1;
    pub(crate) const CLOSED: u8 = 2;
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
            options,
            clock,
            lifetime,
            shards: Shards::new(),
            pending: Pending::new(),
            saving: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            refused: Mutex::default(),
            unreadable: Mutex::default(),
            requests: Mutex::default(),
            wake: Notify::new(),
            stop: Notify::new(),
            phase: AtomicU8::new(phase::OPEN),
            failures: broadcast::Sender::new(FAILURES_KEPT),
            health: watch::Sender::new(Health::Healthy),
            tally: Tally::default(),
            loaders: Mutex::default(),
        }
    }

    /// Runs `look` on the entry, if it lives, with its shard locked for reading.
    pub(super) fn look<R>(&self, key: &str, look: impl FnOnce(&V) -> R) -> Option<R> {
        let (found, touch) = {
            let _inside = Inside::enter();
            let hash = self.shards.hash(key);
            let shard = self.shards.read(hash);
            let (value, lease) = shard.find(hash, key)?.slot.live(&self.lifetime)?;
            let touch = self.lifetime.used(lease);
            (look(value), touch)
        };
        if touch {
            self.touch(key);
        }
        Some(found)
    }

    /// Tells the store of an expiry that a read has moved.
    fn touch(&self, key: &str) {
        // On a closed map nothing moves any more in the store.
        let _ = self.alter(key, |spot| spot.touch());
    }

    /// Takes the entry out of memory, and out of the store, if it has expired.
    ///
    /// While the map closes, this may come too late for the last commit: then
    /// whoever opens the map next finds the entry expired, and removes it.
    ///
    /// # Errors
    ///
    /// `Closed`, once and for all.
    pub(crate) fn expire(&self, key: &str) -> Result<()> {
        let expired = self.alter_if(Self::check_not_closed, key, |spot| spot.expire())?;
        if let Some(value) = expired {
            self.lifetime.expired(key, value);
        }
        Ok(())
    }

    /// When the entry expires; not a read.
    pub(crate) fn expires_at(&self, key: &str) -> Option<SystemTime> {
        let _inside = Inside::enter();
        let hash = self.shards.hash(key);
        let shard = self.shards.read(hash);
        let (_, lease) = shard.find(hash, key)?.slot.live(&self.lifetime)?;
        self.lifetime.expires_at(lease)
    }

    /// Changes what is at a key, with its shard locked for writing.
    ///
    /// # Errors
    ///
    /// `Closed`; then `change` was not called.
    pub(super) fn alter<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut Spot<'_, V, L>) -> R,
    ) -> Result<R> {
        self.alter_if(Self::check_open, key, change)
    }

    fn alter_if<R>(
        &self,
        allowed: impl FnOnce(&Self) -> Result<()>,
        key: &str,
        change: impl FnOnce(&mut Spot<'_, V, L>) -> R,
    ) -> Result<R> {
        let (done, expired) = {
            let _inside = Inside::enter();
            let hash = self.shards.hash(key);
            let mut shard = self.shards.write(hash);
            // Under the lock: `close` first turns the phase and then passes
            // through every lock, after which nobody is left who saw it open.
            allowed(self)?;
            let mut spot = Spot::new(self, &mut shard, hash, key);
            (change(&mut spot), spot.into_expired())
        };
        if let Some(value) = expired {
            self.lifetime.expired(key, value);
        }
        Ok(done)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.is(phase::OPEN) {
            return Ok(());
        }
        Err(self.closed())
    }

    pub(super) fn check_not_closed(&self) -> Result<()> {
        if self.is(phase::CLOSED) {
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
        let _all = {
            let _inside = Inside::enter();
            self.shards.take_all(|| {
                self.check_open()?;
                self.forget_all();
                also();
                Ok(())
            })?
        };
        self.wake.notify_one();
        Ok(())
    }

    /// With all shards locked, so that no mark can change.
    fn forget_all(&self) {
        self.pending.clear();
        self.saving.store(0, Relaxed);
        self.refused.lock().clear();
        self.lifetime.cleared();
        self.age.queued_now(self.clock.now());
        self.epoch.fetch_add(1, SeqCst);
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
        let live = |shard: &super::shards::Shard<V, L::Lease>| {
            if L::EXPIRES {
                let live = |e: &&super::entry::Entry<_, _>| e.slot.live(&self.lifetime).is_some();
                return shard.iter().filter(live).count();
            }
            shard.live()
        };
        let _inside = Inside::enter();
        self.shards.each().map(|shard| live(&shard.read())).sum()
    }

    pub(super) fn stats(&self) -> Stats {
        let is_queued = self.pending.len() > 0 || self.must_clear();
        Stats {
            pending: self.pending(),
            refused: self.refused.lock().len(),
            unreadable: self.unreadable.lock().len(),
            oldest_pending: self.age.oldest(is_queued, self.clock.now()),
            commits: self.tally.commits.load(Relaxed),
            changes: self.tally.changes.load(Relaxed),
            failed_attempts: self.tally.failed_attempts.load(Relaxed),
            last_commit: *self.tally.last_commit.lock(),
        }
    }

    /// The keys that the store does not have as memory has them.
    pub(super) fn unsaved(&self) -> Vec<Arc<str>> {
        let _inside = Inside::enter();
        let mut keys = Vec::new();
        for shard in self.shards.each() {
            let shard = shard.read();
            let unsaved = shard.iter().filter(|entry| !entry.slot.is_clean());
            keys.extend(unsaved.map(|entry| entry.key.clone()));
        }
        keys.sort_unstable();
        keys
    }
}

impl Age {
    fn since(opened: SystemTime) -> Self {
        Self {
            opened,
            queued: AtomicU64::new(NEVER),
            saving: AtomicU64::new(NEVER),
        }
    }

    fn nanos(&self, at: SystemTime) -> u64 {
        let since = at.duration_since(self.opened).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(NEVER - 1)
    }

    /// The queue was empty until now.
    pub(super) fn queued_now(&self, now: SystemTime) {
        self.queued.store(self.nanos(now), Relaxed);
    }

    /// Since when the oldest queued key may have waited.
    pub(super) fn queued_since(&self) -> SystemTime {
        let nanos = self.queued.load(Relaxed);
        self.opened + Duration::from_nanos(if nanos == NEVER { 0 } else { nanos })
    }

    /// A round of commits begins with what is queued.
    pub(super) fn round_begins(&self) {
        self.saving.fetch_min(self.queued.load(Relaxed), Relaxed);
    }

    /// All that was queued when the round began is committed; what is queued
    /// now came later.
    pub(super) fn round_ends(&self, began: SystemTime) {
        self.saving.store(NEVER, Relaxed);
        // The first key after an empty queue may have stored its own, later time.
        self.queued.fetch_max(self.nanos(began), Relaxed);
    }

    /// What the round had is queued again.
    pub(super) fn round_fails(&self) {
        self.queued
            .fetch_min(self.saving.swap(NEVER, Relaxed), Relaxed);
    }

    fn oldest(&self, is_queued: bool, now: SystemTime) -> Option<Duration> {
        let queued = if is_queued {
            self.queued.load(Relaxed)
        } else {
            NEVER
        };
        let oldest = queued.min(self.saving.load(Relaxed));
        (oldest != NEVER).then(|| Duration::from_nanos(self.nanos(now).saturating_sub(oldest)))
    }
}
