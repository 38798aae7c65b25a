//! Several reads and changes of one entry as one atomic step.

pub(crate) mod occupied;

use std::fmt;

use crate::map::{Map, lifetime::Lifetime, table::locked_entry::LockedEntry};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Runs a closure on the entry of this key, present or not, and returns its
    /// result. Other calls see the entry as it was before the closure or as it is
    /// after it, never a state in between.
    ///
    /// The entry's shard is locked while the closure runs, so keep it short.
    /// However many changes the closure makes, one change is pending. Costs as much
    /// as [`update`](Self::update).
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
    /// // Removes the cart if it is full; adds to it otherwise.
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
        self.alter(key.as_ref(), |locked| change(&mut Entry { locked }))
    }
}

/// The entry of one key, locked while the closure of [`Map::entry`] runs.
pub struct Entry<'a, 'm, V, L: Lifetime<V>> {
    locked: &'a mut LockedEntry<'m, V, L>,
}

impl<V, L: Lifetime<V>> Entry<'_, '_, V, L> {
    /// The key.
    pub fn key(&self) -> &str {
        self.locked.key()
    }

    /// The value, if there is one. In a caching map this does not count as a read:
    /// it does not extend the entry.
    pub fn get(&self) -> Option<&V> {
        self.locked.value()
    }

    /// Inserts a value; returns the previous one.
    pub fn insert(&mut self, value: V) -> Option<V> {
        self.locked.put(value, None)
    }

    /// Inserts `value` if there is none, and returns the value for changing it in
    /// place. The entry counts as changed either way.
    pub fn or_insert(&mut self, value: V) -> &mut V {
        self.or_insert_with(|| value)
    }

    /// Like [`or_insert`](Self::or_insert), with a value that is computed only if
    /// needed.
    pub fn or_insert_with(&mut self, make: impl FnOnce() -> V) -> &mut V {
        self.locked.get_or_put_mut(make)
    }

    /// Changes the value in place, if there is one.
    pub fn and_modify(&mut self, change: impl FnOnce(&mut V)) -> &mut Self {
        self.locked.update(change);
        self
    }

    /// Removes the value and returns it.
    pub fn remove(&mut self) -> Option<V> {
        self.locked.remove()
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
