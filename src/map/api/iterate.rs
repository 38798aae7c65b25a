//! Iteration that holds no lock between items.

use std::{fmt, sync::Arc, vec};

use crate::map::{
    Map,
    core::Core,
    lifetime::Lifetime,
    table::{reentrancy::ReentrancyGuard, shards::EntryRef},
};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Returns an iterator over copies of all entries.
    ///
    /// The call collects the keys (one reference count each); each step then looks
    /// up one key. Weakly consistent: an entry that exists for the whole iteration
    /// is returned once, with its value at that step; an entry inserted or removed
    /// meanwhile may or may not be returned. No lock is held between items, so the
    /// loop may write to the map and `.await`.
    pub fn iter(&self) -> Iter<V, L, (Arc<str>, V)>
    where
        V: Clone,
    {
        self.walk(|key, value| (key.clone(), value.clone()))
    }

    /// Returns an iterator over all keys, like [`iter`](Self::iter), without
    /// copying values.
    pub fn keys(&self) -> Iter<V, L, Arc<str>> {
        self.walk(|key, _| key.clone())
    }

    /// Returns an iterator over copies of all values, like [`iter`](Self::iter).
    pub fn values(&self) -> Iter<V, L, V>
    where
        V: Clone,
    {
        self.walk(|_, value| value.clone())
    }

    /// Calls `each` for every entry, without copying values. One shard at a time is
    /// locked for reading.
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
        // Keys first, then one lookup each: no lock is held in between.
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
    /// The keys of all entries, including tombstones and expired entries.
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
