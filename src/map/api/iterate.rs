//! Iteration that holds no lock between two items.

use std::{fmt, sync::Arc, vec};

use crate::map::{
    Map,
    core::Core,
    lifetime::Lifetime,
    table::{reentrancy::ReentrancyGuard, shards::EntryRef},
};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Iterates over copies of all pairs.
    ///
    /// The call collects the keys (a reference count each); every step then
    /// looks up one of them. Weakly consistent: an entry that exists all the
    /// time is returned once, as it is when the iterator reaches it; one that is
    /// inserted or removed meanwhile may or may not be. No lock is held between
    /// two items, so the loop may write to the map and `.await`.
    pub fn iter(&self) -> Iter<V, L, (Arc<str>, V)>
    where
        V: Clone,
    {
        self.walk(|key, value| (key.clone(), value.clone()))
    }

    /// Iterates over all keys, like [`iter`](Self::iter), without copying values.
    pub fn keys(&self) -> Iter<V, L, Arc<str>> {
        self.walk(|key, _| key.clone())
    }

    /// Iterates over copies of all values, like [`iter`](Self::iter).
    pub fn values(&self) -> Iter<V, L, V>
    where
        V: Clone,
    {
        self.walk(|_, value| value.clone())
    }

    /// Calls `each` for every pair, without copying values, one shard locked for
    /// reading at a time.
    ///
    /// # Panics
    ///
    /// If `each` calls a map.
    pub fn for_each(&self, mut each: impl FnMut(&str, &V)) {
        let _guard = ReentrancyGuard::enter();
        self.core.shards.for_each(|EntryRef { key, slot }| {
            if let Some((value, _)) = slot.live(&self.core.lifetime) {
                each(key, value);
            }
        });
    }

    fn walk<T>(&self, copy: fn(&Arc<str>, &V) -> T) -> Iter<V, L, T> {
        Iter {
            core: self.core.clone(),
            keys: self.core.keys().into_iter(),
            copy,
        }
    }
}

impl<V: Clone, L: Lifetime<V>> IntoIterator for &Map<V, L> {
    type Item = (Arc<str>, V);
    type IntoIter = Iter<V, L, Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An iterator over a map; see [`iter`](Map::iter), [`keys`](Map::keys) and
/// [`values`](Map::values).
#[must_use = "an iterator does nothing until its items are taken"]
pub struct Iter<V, L: Lifetime<V>, T> {
    core: Arc<Core<V, L>>,
    keys: vec::IntoIter<Arc<str>>,
    copy: fn(&Arc<str>, &V) -> T,
}

impl<V, L: Lifetime<V>, T> Iterator for Iter<V, L, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        // First the keys, then a look at each: no lock is held in between.
        self.keys.find_map(|key| {
            let copied = self.core.peek(&key, |slot| {
                let (value, _) = slot.live(&self.core.lifetime)?;
                Some((self.copy)(&key, value))
            });
            copied?
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.keys.len()))
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// The keys of all entries, tombstones and expired ones among them.
    pub(crate) fn keys(&self) -> Vec<Arc<str>> {
        let _guard = ReentrancyGuard::enter();
        self.shards.keys(|_| true)
    }
}

impl<V, L: Lifetime<V>, T> fmt::Debug for Iter<V, L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("map", &self.core.name)
            .finish_non_exhaustive()
    }
}
