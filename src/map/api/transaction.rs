//! Changes of several maps of one provider, as one.

use std::{fmt, mem, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::Handle;

use crate::{
    batch::Expect,
    error::Result,
    map::{
        Map,
        lifetime::Lifetime,
        write_behind::proposal::{
            joint::{Joint, Participant},
            map_share::MapShare,
        },
    },
    provider::Provider,
    record::Revision,
};

/// Changes of several maps of one provider that are committed together: all of
/// them or none, in the store and in memory.
///
/// Nothing can be seen of them until [`commit`](Self::commit); dropped without it,
/// they change nothing. Of several changes of one key the last one counts. Calls
/// can be chained or made one by one, as those of an
/// [`AtomicBatch`](crate::AtomicBatch).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use persistify::{Memory, PersistentMap, Transaction};
///
/// let store = Memory::new();
/// let users: PersistentMap<String> = PersistentMap::builder(store.clone(), "users").open().await?;
/// let sessions: PersistentMap<u32> = PersistentMap::builder(store.clone(), "sessions").open().await?;
/// sessions.insert_and_save("token", 1).await?;
///
/// Transaction::new(&store)
///     .insert(&users, "alice", "gone home".to_owned())
///     .remove(&sessions, "token")
///     .commit()
///     .await?;
/// assert!(sessions.is_empty() && users.contains_key("alice"));
/// # users.close().await?;
/// # sessions.close().await
/// # }
/// ```
///
/// # Which provider
///
/// The maps are of the store behind the provider given to [`new`](Self::new),
/// whichever handles of it they were opened with: clones, or another opening of
/// the same file. Nothing but the store can tell that, so it is asked, by the
/// map's last commit: that costs a refused commit a map each time, which writes
/// nothing.
///
/// # Meanwhile
///
/// The background tasks of the maps stand still while the transaction is on its
/// way, so saves and flushes of these maps wait for it. If the store goes down in
/// the middle, they are told so, as by any failing commit. Transactions of the
/// same maps come one after the other, and never block each other.
#[must_use = "a transaction does nothing until `commit` is awaited"]
pub struct Transaction {
    provider: Arc<dyn Provider>,
    participants: Vec<Participant>,
    runtime: Option<Handle>,
}

impl Transaction {
    /// A transaction of maps that this provider keeps. (One that cannot be
    /// cloned goes into an `Arc`, which can.)
    pub fn new<P: Provider + Clone>(provider: &P) -> Self {
        Self {
            provider: Arc::new(provider.clone()),
            participants: Vec::new(),
            runtime: None,
        }
    }

    /// The key of that map holds this value from then on.
    pub fn insert<V, L>(&mut self, map: &Map<V, L>, key: impl AsRef<str>, value: V) -> &mut Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        L: Lifetime<V>,
    {
        self.put(map, key.as_ref(), value, None)
    }

    pub(crate) fn put<V, L>(
        &mut self,
        map: &Map<V, L>,
        key: &str,
        value: V,
        ttl: Option<Duration>,
    ) -> &mut Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        L: Lifetime<V>,
    {
        self.with(map, |share| share.insert(key, value, ttl))
    }

    /// The key of that map holds nothing from then on.
    pub fn remove<V, L>(&mut self, map: &Map<V, L>, key: impl AsRef<str>) -> &mut Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        L: Lifetime<V>,
    {
        self.with(map, |share| share.remove(key.as_ref()))
    }

    /// The transaction is committed only if the store holds this at that key of
    /// that map; as [`AtomicBatch::require`](crate::AtomicBatch::require).
    pub fn require<V, L>(
        &mut self,
        map: &Map<V, L>,
        key: impl AsRef<str>,
        expect: Expect,
    ) -> &mut Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        L: Lifetime<V>,
    {
        self.with(map, |share| share.require(key.as_ref(), expect))
    }

    /// Commits the changes; returns the revision that all of them got. `None` if
    /// there was nothing to commit, or from a layer that accepts commits ahead of
    /// its store.
    ///
    /// What is pending of these keys is committed first. The transaction is empty
    /// afterwards, also if the commit failed. Nothing is written before the first
    /// poll; after it, dropping the future cancels the wait, not the commit.
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves), for all of it:
    /// `Conflict` names the map and the key that were in the way. `Unsupported`
    /// if there are several maps and the provider commits to
    /// [one at a time](crate::Capabilities::several_maps). `Invalid` if a map is
    /// not of this provider, if one was opened twice and both are in it, or if
    /// two different things are required of one key. `Unavailable` also if one of
    /// the maps cannot save what is pending of these keys, or is busy for longer
    /// than [`commit_timeout`](crate::Builder::commit_timeout). Nothing was
    /// written, unless the error [leaves that
    /// open](crate::Error::may_have_applied).
    pub fn commit(&mut self) -> impl Future<Output = Result<Option<Revision>>> + Send + use<> {
        let participants = mem::take(&mut self.participants);
        let (provider, runtime) = (self.provider.clone(), self.runtime.take());
        let joint = Joint {
            participants,
            provider,
        };
        async move {
            match runtime {
                Some(runtime) => joint.commit(&runtime).await,
                None => Ok(None),
            }
        }
    }

    fn with<V, L>(&mut self, map: &Map<V, L>, change: impl FnOnce(&mut MapShare<V, L>)) -> &mut Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        L: Lifetime<V>,
    {
        let mut participants = self.participants.iter_mut();
        let there = participants.find_map(|one| {
            let share = one.share.as_any().downcast_mut::<MapShare<V, L>>()?;
            share.is_of(&map.core).then_some(share)
        });
        if let Some(share) = there {
            change(share);
            return self;
        }
        let mut share = MapShare::new(map.core.clone());
        change(&mut share);
        self.participants.push(Participant {
            shared: map.core.shared.clone(),
            share: Box::new(share),
        });
        self.runtime.get_or_insert_with(|| map.runtime.clone());
        self
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let maps = self
            .participants
            .iter()
            .map(|one| one.share.name().as_str());
        f.debug_struct("Transaction")
            .field("provider", &self.provider)
            .field("maps", &maps.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
