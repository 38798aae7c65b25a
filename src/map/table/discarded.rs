//! Values to be dropped once no lock is held.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::shards::Tables;
use crate::{
    map::{core::Core, lifetime::Lifetime},
    trace::MAP,
};

/// A replaced or removed value, and its key.
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

/// A value to be dropped outside the locks, because its `Drop` is foreign code.
pub(crate) enum Discarded<V, L: Lifetime<V>> {
    /// The value was in memory.
    Entry(RemovedEntry<V, L>),
    /// The value never was in memory: another value stayed, or took its place.
    Value(V),
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Drops a value; calls the expiry listener if it had expired. Called without a
    /// lock: the listener, or the value's `Drop`, may call a map.
    pub(crate) fn discard_entry(&self, removed: Option<RemovedEntry<V, L>>) {
        let Some(RemovedEntry { key, value, lease }) = removed else {
            return;
        };
        if self.lifetime.is_live(&lease) {
            self.drop_value(value);
        } else {
            self.lifetime.expired(&key, value);
        }
    }

    /// Like [`discard_entry`](Self::discard_entry), for a value that may never have
    /// been in memory.
    pub(crate) fn discard(&self, replaced: Option<Discarded<V, L>>) {
        match replaced {
            Some(Discarded::Entry(removed)) => self.discard_entry(Some(removed)),
            Some(Discarded::Value(value)) => self.drop_value(value),
            None => {}
        }
    }

    /// Drops a value, or something that holds one. A panic in its `Drop` must not
    /// end the background task.
    pub(crate) fn drop_value<T>(&self, value: T) {
        if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
            tracing::error!(target: MAP, map = %self.name, "a value panicked when it was dropped");
        }
    }

    /// Discards all entries of a cleared map.
    pub(crate) fn discard_all(&self, all: Tables<V, L::Lease>) {
        if !L::EXPIRES {
            return;
        }
        for (key, slot) in all.into_iter().flatten() {
            let removed = slot.into_inner().into_value();
            self.discard_entry(removed.map(|(value, lease)| RemovedEntry::new(&key, value, lease)));
        }
    }
}
