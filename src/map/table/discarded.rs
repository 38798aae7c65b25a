//! Values that are to be let go of once no lock is held.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::shards::Tables;
use crate::{
    map::{core::Core, lifetime::Lifetime},
    trace::MAP,
};

/// A value that something else took the place of, and its key.
pub(crate) struct RemovedEntry<V, L: Lifetime<V>> {
    key: Arc<str>,
    value: V,
    lease: L::Lease,
}

impl<V, L: Lifetime<V>> RemovedEntry<V, L> {
    pub(crate) fn new(key: &Arc<str>, value: V, lease: L::Lease) -> Self {
        let key = key.clone();
        Self { key, value, lease }
    }
}

/// A value that may go once nothing is locked: foreign code runs when it is
/// dropped.
pub(crate) enum Discarded<V, L: Lifetime<V>> {
    /// It was in memory.
    Entry(RemovedEntry<V, L>),
    /// It never was: another one stays, or stands in its place.
    Value(V),
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Lets go of a value, and tells of its end if it had expired. No lock is
    /// held: the listener, or the value's `Drop`, may call a map.
    pub(crate) fn discard_entry(&self, old: Option<RemovedEntry<V, L>>) {
        let Some(RemovedEntry { key, value, lease }) = old else {
            return;
        };
        if self.lifetime.is_live(&lease) {
            self.drop_value(value);
        } else {
            self.lifetime.expired(&key, value);
        }
    }

    /// The same, of one that may never have been in memory.
    pub(crate) fn discard(&self, replaced: Option<Discarded<V, L>>) {
        match replaced {
            Some(Discarded::Entry(old)) => self.discard_entry(Some(old)),
            Some(Discarded::Value(value)) => self.drop_value(value),
            None => {}
        }
    }

    /// Drops a value, or what holds one. A panic of its `Drop` is its own: it
    /// must not end the task that saves.
    pub(crate) fn drop_value<T>(&self, value: T) {
        if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
            tracing::error!(target: MAP, map = %self.name, "a value panicked when it was dropped");
        }
    }

    /// The same for all that a map held.
    pub(crate) fn discard_all(&self, all: Tables<V, L::Lease>) {
        if !L::EXPIRES {
            return;
        }
        for (key, slot) in all.into_iter().flatten() {
            let old = slot.into_inner().into_value();
            self.discard_entry(old.map(|(value, lease)| RemovedEntry::new(&key, value, lease)));
        }
    }
}
