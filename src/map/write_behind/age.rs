//! The age of the oldest pending change.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

/// When the oldest pending changes were made, in nanoseconds since the map was
/// opened.
pub(crate) struct Age {
    opened: SystemTime,
    /// A lower bound for the times at which the queued keys were queued;
    /// meaningful while a key is queued.
    queued: AtomicU64,
    /// Likewise for the round of commits in flight and a batch of unknown outcome
    /// that it left; `NEVER` without either.
    saving: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Age {
    pub(crate) fn since(opened: SystemTime) -> Self {
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

    /// Records that a key was queued into an empty queue.
    pub(crate) fn queued_now(&self, now: SystemTime) {
        self.queued.store(self.nanos(now), Relaxed);
    }

    /// The earliest time at which a queued key may have been queued.
    pub(crate) fn queued_since(&self) -> SystemTime {
        let nanos = self.queued.load(Relaxed);
        self.opened + Duration::from_nanos(if nanos == NEVER { 0 } else { nanos })
    }

    /// Starts a round of commits with the queued keys.
    pub(crate) fn round_begins(&self) {
        self.saving.fetch_min(self.queued.load(Relaxed), Relaxed);
    }

    /// Ends a round: everything queued when it began is committed, and keys that
    /// are queued now came later.
    pub(crate) fn round_ends(&self, began: SystemTime) {
        self.saving.store(NEVER, Relaxed);
        // The first key after an empty queue may have stored its own, later time.
        self.queued.fetch_max(self.nanos(began), Relaxed);
    }

    /// Ends a failed round: its keys are queued again. If `some_is_kept`, a
    /// batch of unknown outcome is not queued and has waited as long.
    pub(crate) fn round_fails(&self, some_is_kept: bool) {
        let saving = self.saving.load(Relaxed);
        self.queued.fetch_min(saving, Relaxed);
        if !some_is_kept {
            self.saving.store(NEVER, Relaxed);
        }
    }

    /// The age of the oldest pending change, or slightly more.
    pub(crate) fn oldest(&self, is_queued: bool, now: SystemTime) -> Option<Duration> {
        let (queued, saving) = (self.queued.load(Relaxed), self.saving.load(Relaxed));
        // A round that began with an empty queue may commit a key queued since.
        // The key is then neither queued nor counted in `saving`, and has waited
        // since it was queued.
        let oldest = if is_queued || saving == NEVER {
            queued.min(saving)
        } else {
            saving
        };
        (oldest != NEVER).then(|| Duration::from_nanos(self.nanos(now).saturating_sub(oldest)))
    }
}
