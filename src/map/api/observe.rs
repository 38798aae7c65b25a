//! Looking at the saving of a map, and tuning it while it runs.

use std::{sync::Arc, time::Duration};

use tokio::sync::{broadcast, watch};

use super::builder::options::{Triggers, check_triggers};
use crate::{
    error::Result,
    event::{Conflict, Health, RefusedChange, SaveFailure, Stats, UnreadableRecord},
    map::{Map, lifetime::Lifetime},
};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Every failed attempt to save, from now on. A receiver that lags more than
    /// 256 events behind misses the oldest.
    ///
    /// An outage is told of as attempts of a [commit](crate::Operation::Commit), of
    /// which the last one is [final](SaveFailure::is_final), and then as
    /// [probes](crate::Operation::Probe), which are not.
    pub fn failures(&self) -> broadcast::Receiver<SaveFailure> {
        self.core.failures.subscribe()
    }

    /// Every change that met what another process had stored meanwhile, from now
    /// on, if the map [looks for them](crate::Builder::conflicts). A
    /// receiver that lags more than 256 events behind misses the oldest.
    pub fn conflicts(&self) -> broadcast::Receiver<Conflict> {
        self.core.conflicts.subscribe()
    }

    /// Whether changes reach the store, now and whenever that changes: once
    /// when the store goes down, once when the remedy is another, once when it is
    /// well, and once when the map is closed or its runtime has ended.
    ///
    /// What the receiver [borrows](watch::Receiver::borrow) holds a lock that the
    /// saving waits for: let go of it before anything else is done, an `.await`
    /// above all.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.core.health.subscribe()
    }

    /// Figures: what is pending, since when, and what was done so far.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// How many keys were changed in memory and are not committed yet; a clear
    /// counts as one. Refused changes are not among them.
    pub fn pending(&self) -> usize {
        self.core.pending()
    }

    /// The changes that the store (or the codec) will not take, by key. They
    /// are in memory only; a new write to such a key takes it off the list.
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

    /// Tries a store that is failing again at once, as for somebody who waits for
    /// a save: instead of at the next probe, or after the delay between two
    /// attempts. No sooner than [`base_delay`](crate::RetryPolicy::base_delay)
    /// after the last attempt, however often it is called.
    ///
    /// It returns without waiting: [`health`](Self::health) tells what came of it.
    /// While the store is well it does nothing.
    pub fn retry_now(&self) {
        self.core.requests.lock().retry = true;
        self.core.wake.notify_one();
    }

    /// The stored records that did not decode when they were last loaded, by key;
    /// only if the map was opened so as to
    /// [allow](crate::Builder::allow_unreadable) them.
    pub fn unreadable(&self) -> Vec<UnreadableRecord> {
        self.core.unreadable.lock().values().cloned().collect()
    }

    /// Changes when a flush starts by itself; see
    /// [`batch`](crate::Builder::batch). It holds from now on, also
    /// for what is pending.
    ///
    /// # Errors
    ///
    /// `Invalid` if one of them is out of its bounds; nothing is changed.
    pub fn set_batch(&self, size: usize, interval: Duration) -> Result<()> {
        let triggers = Triggers { size, interval };
        check_triggers(triggers).map_err(|error| error.on_map(&self.core.name))?;
        self.core.triggers.store(Arc::new(triggers));
        self.core.wake.notify_one();
        Ok(())
    }
}
