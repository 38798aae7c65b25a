//! Values that are to be let go of once no lock is held.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{core::Core, lifetime::Lifetime, shards::Tables};
use crate::trace::MAP;

/// A value that something else took the place of, and its key.
pub(super) struct Old<V, L: Lifetime<V>> {
    key: Arc<str>,
    value: V,
    lease: L::Lease,
}

impl<V, L: Lifetime<V>> Old<V, L> {
    pub(super) fn new(key: &Arc<str>, value: V, lease: L::Lease) -> Self {
        let key = key.clone();
        Self { key, value, lease }
    }
}

/// A value that may go once nothing is locked: foreign code runs when it is
/// dropped.
pub(super) enum Replaced<V, L: Lifetime<V>> {
    /// It was in memory.
    Old(Old<V, L>),
    /// It never was: another one stays, or stands in its place.
    Unused(V),
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Lets go of a value, and tells of its end if it had expired. No lock is
    /// held: the listener, or the value's `Drop`, may call a map.
    pub(super) fn let_go(&self, old: Option<Old<V, L>>) {
        let Some(Old { key, value, lease }) = old else {
            return;
        };
        if self.lifetime.is_live(&lease) {
            self.drop_value(value);
        } else {
            self.lifetime.expired(&key, value);
        }
    }

    /// The same, of one that may never have been in memory.
    pub(super) fn let_go_of(&self, replaced: Option<Replaced<V, L>>) {
        match replaced {
            Some(Replaced::Old(old)) => self.let_go(Some(old)),
            Some(Replaced::Unused(value)) => self.drop_value(value),
            None => {}
        }
    }

    /// Drops a value, or what holds one. A panic of its `Drop` is its own: it
    /// must not end the task that saves.
    pub(super) fn drop_value<T>(&self, value: T) {
        if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
            tracing::error!(target: MAP, map = %self.name, "a value panicked when it was dropped");
        }
    }

    /// The same for all that a map held.
    pub(super) fn let_go_of_all(&self, all: Tables<V, L::Lease>) {
        if !L::EXPIRES {
            return;
        }
        for (key, slot) in all.into_iter().flatten() {
            let old = slot.into_inner().into_value();
            self.let_go(old.map(|(value, lease)| Old::new(&key, value, lease)));
        }
    }
}
