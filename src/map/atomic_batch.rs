//! Several changes of one map, as one.

use std::{fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::Handle;

use super::{Map, joint::Joint, lifetime::Lifetime, map_share::MapShare, share::Share};
use crate::{batch::Expect, error::Result, record::Revision};

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
    ///     .remove("12a").expect("12a", Expect::At(revision))
    ///     .insert("14f", who).expect("14f", Expect::Absent)
    ///     .commit()
    ///     .await?;
    /// assert_eq!((seats.get("12a"), seats.get("14f")), (None, Some("alice".to_owned())));
    /// # seats.close().await
    /// # }
    /// ```
    pub fn batch(&self) -> AtomicBatch<V, L> {
        AtomicBatch {
            share: MapShare::new(self.core.clone()),
            runtime: self.runtime.clone(),
        }
    }
}

/// Changes of one map that are committed together: all of them or none.
///
/// They are in nobody's sight until [`commit`](Self::commit), and dropped without
/// it they change nothing. Of several changes of one key the last one counts.
#[must_use = "a batch does nothing until `commit` is awaited"]
pub struct AtomicBatch<V, L: Lifetime<V>> {
    share: MapShare<V, L>,
    runtime: Handle,
}

impl<V, L> AtomicBatch<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// The key holds this value from then on.
    pub fn insert(self, key: impl AsRef<str>, value: V) -> Self {
        self.put(key.as_ref(), value, None)
    }

    pub(crate) fn put(mut self, key: &str, value: V, ttl: Option<Duration>) -> Self {
        self.share.insert(key, value, ttl);
        self
    }

    /// The key holds nothing from then on.
    pub fn remove(mut self, key: impl AsRef<str>) -> Self {
        self.share.remove(key.as_ref());
        self
    }

    /// All of it takes place only if the store holds this at that key, whether
    /// the batch changes it or not.
    ///
    /// An entry that is expected to be there, and that the batch does not
    /// change, is given the revision of the commit all the same; in a caching map
    /// it has to be in memory as well.
    pub fn expect(mut self, key: impl AsRef<str>, expect: Expect) -> Self {
        self.share.expect(key.as_ref(), expect);
        self
    }

    /// Commits it; the revision of everything in it. `None` if there was nothing
    /// to commit, or from a layer that accepts commits ahead of its store.
    ///
    /// What is pending of these keys is committed first. Nothing happens before
    /// the first poll; after it, dropping the future loses the answer only.
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves), for all of it:
    /// `Conflict` names the key that was in the way. Without expectations there
    /// is no `Conflict`, and every provider can do it. `Invalid` if two different
    /// things are expected of one key.
    pub async fn commit(self) -> Result<Option<Revision>> {
        let joint = Joint {
            line: self.share.line(),
            shares: vec![Box::new(self.share)],
            prove: false,
        };
        joint.commit(&self.runtime).await
    }
}

impl<V, L: Lifetime<V>> fmt::Debug for AtomicBatch<V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicBatch").finish_non_exhaustive()
    }
}
