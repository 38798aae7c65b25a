//! Several changes of one map, as one.

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
    /// Changes that are committed together: all of them or none, in the store
    /// and in memory.
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

/// Changes of one map that are committed together: all of them or none.
///
/// Nothing can be seen of them until [`commit`](Self::commit); dropped without it,
/// they change nothing. Of several changes of one key the last one counts. Calls
/// can be chained or made one by one, as those of a
/// [`Transaction`](crate::Transaction).
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
    /// The key holds this value from then on.
    pub fn insert(&mut self, key: impl AsRef<str>, value: V) -> &mut Self {
        self.put(key.as_ref(), value, None)
    }

    pub(crate) fn put(&mut self, key: &str, value: V, ttl: Option<Duration>) -> &mut Self {
        self.share.insert(key, value, ttl);
        self
    }

    /// The key holds nothing from then on.
    pub fn remove(&mut self, key: impl AsRef<str>) -> &mut Self {
        self.share.remove(key.as_ref());
        self
    }

    /// The batch is committed only if the store holds this at that key, whether
    /// the batch changes the key or not.
    ///
    /// An entry that is required to be there, and that the batch does not
    /// change, is given the revision of the commit all the same; in a caching map
    /// it has to be in memory as well.
    pub fn require(&mut self, key: impl AsRef<str>, expect: Expect) -> &mut Self {
        self.share.require(key.as_ref(), expect);
        self
    }

    /// Commits the changes; returns the revision that all of them got. `None` if
    /// there was nothing to commit, or from a layer that accepts commits ahead of
    /// its store.
    ///
    /// What is pending of these keys is committed first. The batch is empty
    /// afterwards, also if the commit failed. Nothing is written before the first
    /// poll; after it, dropping the future cancels the wait, not the commit.
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves), for all of it:
    /// `Conflict` names the key that was in the way. Without requirements there
    /// is no `Conflict`, and every provider can do it. `Invalid` if two different
    /// things are required of one key.
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
