//! Failures, health and statistics of a map, and tuning while it runs.

use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::builder::options::{Triggers, check_triggers};
use crate::{
    error::Result,
    event::{Conflict, Health, RefusedChange, SaveFailure, Stats, UnreadableRecord},
    map::{Map, lifetime::Lifetime},
};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Subscribes to failed attempts to save. A receiver that lags more than 256
    /// events behind misses the oldest.
    ///
    /// An outage shows up as failed attempts of a
    /// [commit](crate::Operation::Commit), of which the last is
    /// [final](SaveFailure::is_final), and then as failed
    /// [probes](crate::Operation::Probe), which are never final.
    pub fn failures(&self) -> broadcast::Receiver<SaveFailure> {
        self.core.failures.subscribe()
    }

    /// Subscribes to changes that conflicted with another process's write, if the
    /// map [detects conflicts](crate::Builder::conflicts). A receiver that lags
    /// more than 256 events behind misses the oldest.
    pub fn conflicts(&self) -> broadcast::Receiver<Conflict> {
        self.core.conflicts.subscribe()
    }

    /// Subscribes to the health of the map. The value changes when the store goes
    /// down, when the entries are loaded from a copy of it, when the kind of its error
    /// changes, when the store is healthy again, and when the map is closed or its
    /// runtime has shut down.
    ///
    /// A value [borrowed](watch::Receiver::borrow) from the receiver holds a lock
    /// that the background task needs: drop it before the next `.await` or other
    /// slow work.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.core.health.subscribe()
    }

    /// Statistics: the number and age of pending changes, and counters since the
    /// map was opened.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// The number of keys that were changed in memory and are not committed; a
    /// clear counts as one. Refused changes are not included.
    pub fn pending(&self) -> usize {
        self.core.pending()
    }

    /// The changes that the store (or the codec) refused, by key. They are in
    /// memory only; a new write to the key takes it off the list.
    pub fn refused(&self) -> Vec<RefusedChange> {
        let refused = self.core.refused.lock();
        let listed = refused.iter();
        listed
            .map(|(key, error)| RefusedChange::new(key.clone(), error.clone()))
            .collect()
    }

    /// Makes every refused change pending again; returns how many there were.
    pub fn retry_refused(&self) -> usize {
        self.core.retry_refused()
    }

    /// Retries a failing store now, instead of at the next probe or after the delay
    /// between two attempts. An attempt starts no sooner than
    /// [`base_delay`](crate::RetryPolicy::base_delay) after the last one, however
    /// often this is called.
    ///
    /// Returns without waiting; watch [`health`](Self::health) for the result. Does
    /// nothing while the store is healthy.
    pub fn retry_now(&self) {
        self.core.requests.lock().retry = true;
        self.core.wake.notify_one();
    }

    /// The stored records that did not decode when they were last loaded, by key.
    /// Empty unless the map was opened to [allow](crate::Builder::allow_unreadable)
    /// them.
    pub fn unreadable(&self) -> Vec<UnreadableRecord> {
        self.core.unreadable.lock().values().cloned().collect()
    }

    /// Sets the [batch size and interval](crate::Builder::batch) of the open map.
    /// They take effect at once, also for pending changes.
    ///
    /// # Errors
    ///
    /// `Invalid` if a value is out of bounds; nothing is changed.
    pub fn set_batch(&self, size: usize, interval: Duration) -> Result<()> {
        let triggers = Triggers { size, interval };
        check_triggers(triggers).map_err(|error| error.on_map(&self.core.name))?;
        self.core.triggers.set(triggers);
        self.core.wake.notify_one();
        Ok(())
    }
}
