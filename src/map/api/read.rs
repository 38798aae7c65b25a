//! Reads, from memory only; they never wait for the store.

use std::collections::HashMap;

use crate::{
    map::{Map, lifetime::Lifetime},
    name::MapName,
};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// The name of the map.
    pub fn name(&self) -> &MapName {
        &self.core.name
    }

    /// Returns a copy of the value at this key.
    pub fn get(&self, key: impl AsRef<str>) -> Option<V>
    where
        V: Clone,
    {
        self.core.look(key.as_ref(), V::clone)
    }

    /// Calls `look` with the value at this key, without copying it, and returns its
    /// result. `None` if there is no entry.
    ///
    /// # Panics
    ///
    /// If `look` calls a map.
    pub fn read<R>(&self, key: impl AsRef<str>, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.core.look(key.as_ref(), look)
    }

    pub(crate) fn look_aside<R>(&self, key: &str, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.core.look_aside(key, look)
    }

    /// Whether there is an entry at this key. In a caching map this counts as a
    /// read.
    pub fn contains_key(&self, key: impl AsRef<str>) -> bool {
        self.core.look(key.as_ref(), |_| ()).is_some()
    }

    /// The number of entries.
    ///
    /// Shards are counted one after the other, so with concurrent writers the
    /// result may be a number that the map never had. O(shards); in a caching map
    /// O(n), because expired entries do not count.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether there are no entries. As exact as [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.core.len() == 0
    }

    /// Returns a copy of all entries. Weakly consistent, like [`iter`](Self::iter):
    /// an entry that changes during the call appears with its old value or with its
    /// new value.
    pub fn snapshot(&self) -> HashMap<String, V>
    where
        V: Clone,
    {
        self.iter()
            .map(|(key, value)| (key.to_string(), value))
            .collect()
    }
}
