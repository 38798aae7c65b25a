//! Iteration that holds no lock between two items.

use std::sync::Arc;

use super::{Map, core::Core, inside::Inside, lifetime::Lifetime, shards::EntryRef};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Iterates over copies of all pairs.
    ///
    /// The call collects the keys (a reference count each); every step then
    /// looks up one of them. Weakly consistent: an entry that exists all the
    /// time is returned once, as it is when the iterator reaches it; one that is
    /// inserted or removed meanwhile may or may not be. No lock is held between
    /// two items, so the loop may write to the map and `.await`.
    pub fn iter(&self) -> impl Iterator<Item = (Arc<str>, V)> + use<V, L>
    where
        V: Clone,
    {
        self.walk(|key, value| (key.clone(), value.clone()))
    }

    /// Iterates over all keys, like [`iter`](Self::iter), without copying values.
    pub fn keys(&self) -> impl Iterator<Item = Arc<str>> + use<V, L> {
        self.walk(|key, _| key.clone())
    }

    /// Calls `each` for every pair, without copying values, one shard locked for
    /// reading at a time.
    ///
    /// # Panics
    ///
    /// If `each` calls a map.
    pub fn for_each(&self, mut each: impl FnMut(&str, &V)) {
        let _inside = Inside::enter();
        self.core.shards.for_each(|EntryRef { key, slot }| {
            if let Some((value, _)) = slot.live(&self.core.lifetime) {
                each(key, value);
            }
        });
    }

    /// First the keys, then a look at each: no lock is held in between.
    fn walk<T>(&self, copy: fn(&Arc<str>, &V) -> T) -> impl Iterator<Item = T> + use<V, L, T> {
        let core = self.core.clone();
        let live = move |key: Arc<str>| {
            let copied = core.peek(&key, |slot| {
                let (value, _) = slot.live(&core.lifetime)?;
                Some(copy(&key, value))
            });
            copied?
        };
        self.core.keys().into_iter().filter_map(live)
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// The keys of all entries, tombstones and expired ones among them.
    pub(super) fn keys(&self) -> Vec<Arc<str>> {
        let _inside = Inside::enter();
        self.shards.keys(|_| true)
    }
}
