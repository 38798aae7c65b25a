//! Writes: to memory now, to the store with the next flush.

use std::time::Duration;

use super::entry::occupied::Occupied;
use crate::map::{Map, lifetime::Lifetime, table::locked_entry::LockedEntry};

/// All of these change memory and return; none waits for the store.
///
/// # Panics
///
/// Each panics if the map is closed, or if it is called from inside a map's
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
        self.alter(key, |spot| spot.put(value, ttl))
    }

    pub(crate) fn update_keeping_expiry<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        self.alter(key, |spot| spot.update_keeping_expiry(change))
    }

    pub(crate) fn upsert_keeping_expiry(
        &self,
        key: &str,
        value: V,
        ttl: Option<Duration>,
        change: impl FnOnce(&mut V),
    ) {
        self.alter(key, |spot| {
            // One look: an entry may expire between two.
            if spot.update_keeping_expiry(change).is_none() {
                spot.put(value, ttl);
            }
        });
    }

    /// Puts a value at this key; returns the one that was there.
    pub fn insert(&self, key: impl AsRef<str>, value: V) -> Option<V> {
        self.put(key.as_ref(), value, None)
    }

    /// Puts a value at this key if nothing is there.
    ///
    /// # Errors
    ///
    /// [`Occupied`], with the value, if something is.
    pub fn try_insert(&self, key: impl AsRef<str>, value: V) -> Result<(), Occupied<V>> {
        self.alter(key.as_ref(), |spot| spot.put_if_absent(value))
    }

    /// Puts a value in the place of another; returns that. If there is none,
    /// nothing happens and the new value is dropped.
    pub fn replace(&self, key: impl AsRef<str>, value: V) -> Option<V> {
        self.alter(key.as_ref(), |spot| spot.replace(value))
    }

    /// Takes the value at this key away and returns it.
    pub fn remove(&self, key: impl AsRef<str>) -> Option<V> {
        self.alter(key.as_ref(), |spot| spot.remove())
    }

    /// Takes the value at this key away if the closure says so.
    pub fn remove_if(&self, key: impl AsRef<str>, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        self.alter(key.as_ref(), |spot| {
            spot.value().is_some_and(condition).then(|| spot.remove())?
        })
    }

    /// Changes the value at this key in place; `None` if there is none.
    pub fn update<R>(&self, key: impl AsRef<str>, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.alter(key.as_ref(), |spot| spot.update(change))
    }

    /// Changes the value at this key in place, or puts this one there if there
    /// is none.
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
        self.alter(key.as_ref(), |spot| {
            // One look: an entry may expire between two.
            if spot.update(change).is_none() {
                spot.put(value, None);
            }
        });
    }

    /// A copy of the value at this key; if there is none, of the one that the
    /// closure makes, which is then put there.
    pub fn get_or_insert_with(&self, key: impl AsRef<str>, make: impl FnOnce() -> V) -> V
    where
        V: Clone,
    {
        let key = key.as_ref();
        if let Some(value) = self.core.look(key, V::clone) {
            return value;
        }
        self.alter(key, |spot| spot.get_or_put(make))
    }

    /// Keeps the entries for which the closure says so, and removes the others.
    /// Entries that come meanwhile may be asked about or not.
    pub fn retain(&self, mut keep: impl FnMut(&str, &V) -> bool) {
        // Two looks at each entry: one shard is locked at a time for the keys
        // to ask about, one entry at a time to ask and remove.
        for key in self.core.keys() {
            self.alter(&key, |spot| {
                let unwanted = spot.value().is_some_and(|value| !keep(&key, value));
                unwanted.then(|| spot.remove())
            });
        }
    }

    /// Removes everything that is there at one point in time. With the next
    /// commit it is gone from the store too; what comes after stays.
    pub fn clear(&self) {
        if let Err(error) = self.core.clear(|| {}) {
            panic!("{error}");
        }
    }

    /// Inserts all of these, one by one.
    pub fn extend<K: AsRef<str>>(&self, pairs: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}
