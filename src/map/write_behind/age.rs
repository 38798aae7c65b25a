//! How long the oldest pending change has waited.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

/// Since when something is pending, in nanoseconds since the map was opened.
pub(crate) struct Age {
    opened: SystemTime,
    /// No queued key has waited since before this; meaningful while one is queued.
    queued: AtomicU64,
    /// The same for the round of commits in flight, and for what it has left of
    /// an unknown outcome; `NEVER` without either.
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

    /// The queue was empty until now.
    pub(crate) fn queued_now(&self, now: SystemTime) {
        self.queued.store(self.nanos(now), Relaxed);
    }

    /// Since when the oldest queued key may have waited.
    pub(crate) fn queued_since(&self) -> SystemTime {
        let nanos = self.queued.load(Relaxed);
        self.opened + Duration::from_nanos(if nanos == NEVER { 0 } else { nanos })
    }

    /// A round of commits begins with what is queued.
    pub(crate) fn round_begins(&self) {
        self.saving.fetch_min(self.queued.load(Relaxed), Relaxed);
    }

    /// All that was queued when the round began is committed; what is queued
    /// now came later.
    pub(crate) fn round_ends(&self, began: SystemTime) {
        self.saving.store(NEVER, Relaxed);
        // The first key after an empty queue may have stored its own, later time.
        self.queued.fetch_max(self.nanos(began), Relaxed);
    }

    /// What the round had is queued again; but for a batch of an unknown
    /// outcome, if `some_is_kept`, which is in no queue and waits as long.
    pub(crate) fn round_fails(&self, some_is_kept: bool) {
        let saving = self.saving.load(Relaxed);
        self.queued.fetch_min(saving, Relaxed);
        if !some_is_kept {
            self.saving.store(NEVER, Relaxed);
        }
    }

    /// How long ago the oldest pending change was made, or a little more.
    pub(crate) fn oldest(&self, is_queued: bool, now: SystemTime) -> Option<Duration> {
        let (queued, saving) = (self.queued.load(Relaxed), self.saving.load(Relaxed));
        // What was queued after a round began with nothing may go along with it:
        // it is in neither, and has waited since it was queued.
        let oldest = if is_queued || saving == NEVER {
            queued.min(saving)
        } else {
            saving
        };
        (oldest != NEVER).then(|| Duration::from_nanos(self.nanos(now).saturating_sub(oldest)))
    }
}
