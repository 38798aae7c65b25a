//! The state that a map's handles and its background task share.

use std::{
    any::Any,
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use super::{
    api::{builder::verify::Verifier, load_missing::loaders::Loaders},
    lifetime::Lifetime,
    shared::Shared,
    table::{
        observer::Observer,
        reentrancy::ReentrancyGuard,
        shards::{EntryRef, Shards},
    },
    write_behind::{conflicts::Conflicts, dirty_queue::Lane},
};
use crate::error::{Error, Result};

/// The state that a map's handles and its background task share: the table of
/// entries, and the part that does not depend on the value type.
pub(crate) struct Core<V, L: Lifetime<V>> {
    pub(super) shared: Arc<Shared>,
    pub(super) shards: Shards<V, L::Lease>,
    pub(crate) lifetime: L,
    pub(super) conflicts: Conflicts<V>,
    pub(super) loaders: Loaders,
    pub(super) verifier: Verifier,
    observer: Option<Box<dyn Observer<V>>>,
}

impl<V, L: Lifetime<V>> Deref for Core<V, L> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The state that a clear discards. Dropping it is slow and may run foreign code
/// (the drop of a refusal's source), so it is dropped outside the locks.
struct Forgotten {
    _queued: Vec<Lane>,
    _refused: BTreeMap<Arc<str>, Error>,
    _deadlines: Box<dyn Any + Send>,
}

impl<V, L: Lifetime<V>> Core<V, L> {
    pub(super) fn new(shared: Shared, lifetime: L, conflicts: Conflicts<V>) -> Self {
        Self {
            verifier: Verifier::new(shared.options.verify),
            shared: Arc::new(shared),
            shards: Shards::new(),
            lifetime,
            conflicts,
            loaders: Loaders::default(),
            observer: None,
        }
    }

    /// Registers an observer; it sees every change from now on.
    #[cfg(test)]
    pub(super) fn observed_by(self, observer: impl Observer<V> + 'static) -> Self {
        let observer: Option<Box<dyn Observer<V>>> = Some(Box::new(observer));
        Self { observer, ..self }
    }

    pub(super) fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Reports that the entry now holds this value, or is gone. Its shard is
    /// locked.
    #[inline]
    pub(super) fn observe(&self, key: &Arc<str>, value: Option<&V>) {
        if let Some(observer) = &self.observer {
            observer.changed(key, value);
        }
    }

    /// Removes all entries at one point in time; the store follows with the next
    /// commit.
    ///
    /// # Errors
    ///
    /// `Closed`; nothing was done.
    pub(super) fn clear(&self, also: impl FnOnce()) -> Result<()> {
        let (mut forgotten, all);
        {
            let _guard = ReentrancyGuard::enter();
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
        self.discard_all(all);
        Ok(())
    }

    /// Called with all shards locked, so that no mark can change.
    fn forget_all(&self) -> Forgotten {
        // Before emptying the queue: a thread that finds the queue empty then sees
        // this clear.
        self.generation.fetch_add(1, SeqCst);
        let queued = self.queue.take_all();
        self.queue.counts.forget_saving();
        if !self.refused.lock().is_empty() {
            self.retried.fetch_add(1, SeqCst);
        }
        let refused = std::mem::take(&mut *self.refused.lock());
        let deadlines = self.lifetime.cleared();
        if let Some(observer) = &self.observer {
            observer.cleared();
        }
        self.age.queued_now(self.clock.now());
        Forgotten {
            _queued: queued,
            _refused: refused,
            _deadlines: deadlines,
        }
    }

    /// The number of live entries. Locks one shard after the other.
    pub(super) fn len(&self) -> usize {
        if !L::EXPIRES {
            return self.held();
        }
        let _guard = ReentrancyGuard::enter();
        let mut live = 0;
        self.shards.for_each(|EntryRef { slot, .. }| {
            live += usize::from(slot.live(&self.lifetime).is_some());
        });
        live
    }

    /// The number of entries in memory, expired ones included. O(shards).
    pub(super) fn held(&self) -> usize {
        let _guard = ReentrancyGuard::enter();
        self.shards.len()
    }

    /// The keys whose entries differ between memory and the store.
    pub(super) fn unsaved(&self) -> Vec<Arc<str>> {
        let _guard = ReentrancyGuard::enter();
        let mut keys = self.shards.keys(|entry| !entry.slot.is_clean());
        keys.sort_unstable();
        keys
    }
}
