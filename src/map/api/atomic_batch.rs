//! Atomic changes of one map.

use std::{fmt, mem, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    batch::Expect,
    error::Result,
    map::{Map, lifetime::Lifetime, write_behind::proposal::map_share::MapShare},
    record::Revision,
};

impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Starts a batch of changes that are committed together: all or none, in the
    /// store and in memory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// use persistify::{Expect, Memory, PersistentMap};
    ///
    /// let seats: PersistentMap<String> = PersistentMap::builder(Memory::new(), "seats").open().await?;
    /// seats.save_if("12a", "alice".to_owned(), Expect::Absent).await?;
    /// let (who, revision) = seats.get_with_revision("12a").unwrap();
    ///
    /// seats.batch()
    ///     .remove("12a").require("12a", Expect::At(revision))
    ///     .insert("14f", who).require("14f", Expect::Absent)
    ///     .commit()
    ///     .await?;
    /// assert_eq!((seats.get("12a"), seats.get("14f")), (None, Some("alice".to_owned())));
    /// # seats.close().await
    /// # }
    /// ```
    pub fn batch(&self) -> AtomicBatch<V, L> {
        AtomicBatch {
            map: self.clone(),
            share: MapShare::new(self.core.clone()),
        }
    }
}

/// Changes of one map that are committed together: all or none.
///
/// They are invisible until [`commit`](Self::commit); dropping the batch without it
/// changes nothing. Of several changes of one key, the last one counts. Calls can
/// be chained or made one by one, as with a [`Transaction`](crate::Transaction).
#[must_use = "a batch does nothing until `commit` is awaited"]
pub struct AtomicBatch<V, L: Lifetime<V>> {
    map: Map<V, L>,
    share: MapShare<V, L>,
}

impl<V, L> AtomicBatch<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Sets the key to this value.
    pub fn insert(&mut self, key: impl AsRef<str>, value: V) -> &mut Self {
        self.put(key.as_ref(), value, None)
    }

    pub(crate) fn put(&mut self, key: &str, value: V, ttl: Option<Duration>) -> &mut Self {
        self.share.insert(key, value, ttl);
        self
    }

    /// Removes the key.
    pub fn remove(&mut self, key: impl AsRef<str>) -> &mut Self {
        self.share.remove(key.as_ref());
        self
    }

    /// Commits the batch only if the store holds the expected state at this key,
    /// whether the batch changes the key or not.
    ///
    /// An entry that is required to exist, and that the batch does not change,
    /// still gets the revision of the commit. In a caching map it must also be in
    /// memory; otherwise the commit fails as `Conflict`.
    pub fn require(&mut self, key: impl AsRef<str>, expect: Expect) -> &mut Self {
        self.share.require(key.as_ref(), expect);
        self
    }

    /// Commits the changes; returns their common revision. `None` if there was
    /// nothing to commit, or if a layer acknowledged the commit before its store
    /// did.
    ///
    /// Pending changes of these keys are committed first. The batch is empty
    /// afterwards, even if the commit failed. Nothing is written before the first
    /// poll. Once polled, dropping the future cancels the wait, not the commit.
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves), for the batch as a
    /// whole: `Conflict` names the key that did not match. A batch without
    /// requirements never conflicts, and every provider supports it. `Invalid` if
    /// two different states are required of one key.
    pub fn commit(&mut self) -> impl Future<Output = Result<Option<Revision>>> + Send + use<V, L> {
        let empty = MapShare::new(self.map.core.clone());
        let share = mem::replace(&mut self.share, empty);
        let core = self.map.core.clone();
        async move { core.propose(share).await }
    }
}

impl<V, L: Lifetime<V>> fmt::Debug for AtomicBatch<V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicBatch").finish_non_exhaustive()
    }
}
