//! Atomic changes of several maps of one provider.

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
            map_share::MapShare,
            transaction_commit::{Participant, TransactionCommit},
        },
    },
    provider::Provider,
    record::Revision,
};

/// Changes of several maps of one provider that are committed together: all or
/// none, in the store and in memory.
///
/// They are invisible until [`commit`](Self::commit); dropping the transaction
/// without it changes nothing. Of several changes of one key, the last one counts.
/// Calls can be chained or made one by one, as with an
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
/// # Same store
///
/// All maps must belong to the store behind the provider given to
/// [`new`](Self::new), opened through any handle to it: a clone, or another opening
/// of the same file. The transaction checks this: for each map, it sends the
/// provider an empty commit with an outdated sequence number, which only that map's
/// own store refuses. That costs one round trip per map and transaction, and writes
/// nothing.
///
/// # Concurrency
///
/// The background tasks of the maps pause during the transaction, so saves and
/// flushes of these maps wait for it. If the store goes down meanwhile, they return
/// its error, as for any failing commit. Transactions on the same maps run one
/// after the other and cannot deadlock.
#[must_use = "a transaction does nothing until `commit` is awaited"]
pub struct Transaction {
    provider: Arc<dyn Provider>,
    participants: Vec<Participant>,
    runtime: Option<Handle>,
}

impl Transaction {
    /// Starts a transaction on maps of this provider. (Wrap a provider that is not
    /// `Clone` in an `Arc`.)
    pub fn new<P: Provider + Clone>(provider: &P) -> Self {
        Self {
            provider: Arc::new(provider.clone()),
            participants: Vec::new(),
            runtime: None,
        }
    }

    /// Sets the key of `map` to this value.
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

    /// Removes the key from `map`.
    pub fn remove<V, L>(&mut self, map: &Map<V, L>, key: impl AsRef<str>) -> &mut Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        L: Lifetime<V>,
    {
        self.with(map, |share| share.remove(key.as_ref()))
    }

    /// Commits the transaction only if the store holds the expected state at this
    /// key of `map`; see [`AtomicBatch::require`](crate::AtomicBatch::require).
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

    /// Commits the changes; returns their common revision. `None` if there was
    /// nothing to commit, or if a layer acknowledged the commit before its store
    /// did.
    ///
    /// Pending changes of these keys are committed first. The transaction is empty
    /// afterwards, even if the commit failed. Nothing is written before the first
    /// poll. Once polled, dropping the future cancels the wait, not the commit.
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves), for the transaction
    /// as a whole. In particular:
    ///
    /// - `Conflict` names the map and the key that did not match.
    /// - `Unsupported` if there are several maps and the provider commits to [one
    ///   at a time](crate::Capabilities::several_maps).
    /// - `Invalid` if a map does not belong to this provider, if one map was opened
    ///   twice and both handles are used, or if two different states are required
    ///   of one key.
    /// - `Unavailable` also if one of the maps cannot save its pending changes of
    ///   these keys, or is busy for longer than
    ///   [`commit_timeout`](crate::Builder::commit_timeout).
    ///
    /// Nothing was written, unless
    /// [`may_have_applied`](crate::Error::may_have_applied) is `true`.
    pub fn commit(&mut self) -> impl Future<Output = Result<Option<Revision>>> + Send + use<> {
        let participants = mem::take(&mut self.participants);
        let (provider, runtime) = (self.provider.clone(), self.runtime.take());
        let commit = TransactionCommit {
            participants,
            provider,
        };
        async move {
            match runtime {
                Some(runtime) => commit.commit(&runtime).await,
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
