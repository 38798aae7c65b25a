//! Reads: memory only, never waiting for the store.

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

    /// A copy of the value at this key.
    pub fn get(&self, key: impl AsRef<str>) -> Option<V>
    where
        V: Clone,
    {
        self.core.look(key.as_ref(), V::clone)
    }

    /// What `look` makes of the value at this key, without copying it.
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

    /// How many entries there are. It locks one shard after the other, so with
    /// concurrent writers it may be a number that never was; in a caching map
    /// it looks at every entry.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether there are no entries; as exact as [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.core.len() == 0
    }

    /// A copy of everything, shard by shard: entries that change meanwhile may
    /// be in it as they were or as they are.
    pub fn snapshot(&self) -> HashMap<String, V>
    where
        V: Clone,
    {
        self.iter()
            .map(|(key, value)| (key.to_string(), value))
            .collect()
    }
}
