//! Plain writes: they change memory; the store follows with the next flush.

use std::time::Duration;

use super::entry::occupied::Occupied;
use crate::map::{Map, lifetime::Lifetime, table::locked_entry::LockedEntry};

/// These methods change memory and return. They never wait for the store.
///
/// # Panics
///
/// All of them panic if the map is closed, or if called from inside a map's
/// closure.
impl<V, L: Lifetime<V>> Map<V, L> {
    pub(crate) fn alter<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut LockedEntry<'_, V, L>) -> R,
    ) -> R {
        match self.core.alter(key, change) {
            Ok(done) => done,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn put(&self, key: &str, value: V, ttl: Option<Duration>) -> Option<V> {
        self.alter(key, |entry| entry.put(value, ttl))
    }

    pub(crate) fn update_keeping_expiry<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        self.alter(key, |entry| entry.update_keeping_expiry(change))
    }

    pub(crate) fn upsert_keeping_expiry(
        &self,
        key: &str,
        value: V,
        ttl: Option<Duration>,
        change: impl FnOnce(&mut V),
    ) {
        self.alter(key, |entry| {
            // One lookup: between two, the entry could expire.
            if entry.update_keeping_expiry(change).is_none() {
                entry.put(value, ttl);
            }
        });
    }

    /// Inserts a value; returns the previous one.
    pub fn insert(&self, key: impl AsRef<str>, value: V) -> Option<V> {
        self.put(key.as_ref(), value, None)
    }

    /// Inserts a value if the key has no entry.
    ///
    /// # Errors
    ///
    /// [`Occupied`], with the value, if the key has an entry.
    pub fn try_insert(&self, key: impl AsRef<str>, value: V) -> Result<(), Occupied<V>> {
        self.alter(key.as_ref(), |entry| entry.put_if_absent(value))
    }

    /// Replaces the value at this key and returns the previous one. If there is no
    /// entry, nothing changes and the new value is dropped.
    pub fn replace(&self, key: impl AsRef<str>, value: V) -> Option<V> {
        self.alter(key.as_ref(), |entry| entry.replace(value))
    }

    /// Removes the value at this key and returns it.
    pub fn remove(&self, key: impl AsRef<str>) -> Option<V> {
        self.alter(key.as_ref(), |entry| entry.remove())
    }

    /// Removes the value at this key and returns it, if `condition` returns `true`.
    pub fn remove_if(&self, key: impl AsRef<str>, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        self.alter(key.as_ref(), |entry| {
            entry
                .value()
                .is_some_and(condition)
                .then(|| entry.remove())?
        })
    }

    /// Changes the value at this key in place and returns the closure's result.
    /// `None` if there is no entry.
    pub fn update<R>(&self, key: impl AsRef<str>, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.alter(key.as_ref(), |entry| entry.update(change))
    }

    /// Changes the value at this key in place, or inserts `value` if there is no
    /// entry.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # use persistify::{Memory, PersistentMap};
    /// # let hits: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "hits").open().await?;
    /// hits.upsert("/index", 1, |n| *n += 1);
    /// hits.upsert("/index", 1, |n| *n += 1);
    /// assert_eq!(hits.get("/index"), Some(2));
    /// # hits.close().await
    /// # }
    /// ```
    pub fn upsert(&self, key: impl AsRef<str>, value: V, change: impl FnOnce(&mut V)) {
        self.alter(key.as_ref(), |entry| {
            // One lookup: between two, the entry could expire.
            if entry.update(change).is_none() {
                entry.put(value, None);
            }
        });
    }

    /// Returns a copy of the value at this key. If there is no entry, inserts the
    /// value that `make` returns.
    pub fn get_or_insert_with(&self, key: impl AsRef<str>, make: impl FnOnce() -> V) -> V
    where
        V: Clone,
    {
        let key = key.as_ref();
        if let Some(value) = self.core.look(key, V::clone) {
            return value;
        }
        self.alter(key, |entry| entry.get_or_put(make))
    }

    /// Removes the entries for which `keep` returns `false`. Entries inserted
    /// during the call may or may not be visited.
    pub fn retain(&self, mut keep: impl FnMut(&str, &V) -> bool) {
        // Two passes: collecting the keys locks one shard at a time, checking and
        // removing locks one entry at a time.
        for key in self.core.keys() {
            self.alter(&key, |entry| {
                let unwanted = entry.value().is_some_and(|value| !keep(&key, value));
                unwanted.then(|| entry.remove())
            });
        }
    }

    /// Removes all entries, at one point in time. The next commit removes them from
    /// the store. Entries inserted after the clear stay.
    pub fn clear(&self) {
        if let Err(error) = self.core.clear(|| {}) {
            panic!("{error}");
        }
    }

    /// Inserts all pairs, one by one.
    pub fn extend<K: AsRef<str>>(&self, pairs: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}
