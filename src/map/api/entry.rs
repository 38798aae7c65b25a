//! Several looks at one entry, and changes of it, as one.

pub(crate) mod occupied;

use std::fmt;

use crate::map::{Map, lifetime::Lifetime, table::locked_entry::LockedEntry};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Runs a closure on the entry of this key, whether there is one or not, and
    /// returns its result. Other calls see the entry as it was before or as it is
    /// after, and nothing in between.
    ///
    /// The entry is locked for the time of the closure; so is the part of the map
    /// that it is in, so the closure should be short. Whatever it does, one change
    /// is pending. It costs as much as [`update`](Self::update).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # use persistify::{Memory, PersistentMap};
    /// let carts: PersistentMap<Vec<u32>> = PersistentMap::builder(Memory::new(), "carts").open().await?;
    /// let count = carts.entry("alice", |cart| {
    ///     let articles = cart.or_insert_with(Vec::new);
    ///     articles.push(7);
    ///     articles.len()
    /// });
    /// assert_eq!(count, 1);
    ///
    /// // Takes the entry away if it is full, or else adds to it.
    /// let full = carts.entry("alice", |cart| match cart.get() {
    ///     Some(articles) if articles.len() > 9 => cart.remove(),
    ///     _ => {
    ///         cart.and_modify(|articles| articles.push(8)).or_insert(vec![8]);
    ///         None
    ///     }
    /// });
    /// assert_eq!((full, carts.get("alice")), (None, Some(vec![7, 8])));
    /// # carts.close().await
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the map is closed, or the closure calls a map. If the closure panics,
    /// the entry stays as the closure left it.
    pub fn entry<R>(
        &self,
        key: impl AsRef<str>,
        change: impl FnOnce(&mut Entry<'_, '_, V, L>) -> R,
    ) -> R {
        self.alter(key.as_ref(), |spot| change(&mut Entry { spot }))
    }
}

/// The entry of one key, locked while the closure of [`Map::entry`] runs.
pub struct Entry<'a, 'm, V, L: Lifetime<V>> {
    spot: &'a mut LockedEntry<'m, V, L>,
}

impl<V, L: Lifetime<V>> Entry<'_, '_, V, L> {
    /// The key.
    pub fn key(&self) -> &str {
        self.spot.key()
    }

    /// The value, if there is one. In a caching map this is not a read: it does
    /// not prolong the entry.
    pub fn get(&self) -> Option<&V> {
        self.spot.value()
    }

    /// Puts a value here; returns the one that was here.
    pub fn insert(&mut self, value: V) -> Option<V> {
        self.spot.put(value, None)
    }

    /// The value, to be changed in place; if there is none, this one is put here
    /// first. The entry counts as changed either way.
    pub fn or_insert(&mut self, value: V) -> &mut V {
        self.or_insert_with(|| value)
    }

    /// As [`or_insert`](Self::or_insert), with a value that is made only if there
    /// is none.
    pub fn or_insert_with(&mut self, make: impl FnOnce() -> V) -> &mut V {
        self.spot.get_or_put_mut(make)
    }

    /// Changes the value in place, if there is one.
    pub fn and_modify(&mut self, change: impl FnOnce(&mut V)) -> &mut Self {
        self.spot.update(change);
        self
    }

    /// Takes the value away and returns it.
    pub fn remove(&mut self) -> Option<V> {
        self.spot.remove()
    }
}

impl<V: fmt::Debug, L: Lifetime<V>> fmt::Debug for Entry<'_, '_, V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key())
            .field("value", &self.get())
            .finish()
    }
}
