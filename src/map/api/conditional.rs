//! Conditional saves: compare-and-set against the store.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::{
    batch::Expect,
    error::Result,
    map::{
        Map,
        core::Core,
        lifetime::Lifetime,
        table::reentrancy::ReentrancyGuard,
        write_behind::proposal::{
            Job, Proposal, answered, map_share::MapShare, share::Share,
            transaction_commit::check_conditions,
        },
    },
    record::Revision,
};

/// Compare-and-set for keys that several processes write. The store checks the
/// condition in the commit itself. The value becomes visible in memory only after
/// the commit, so no reader sees a value that was not saved.
///
/// Pending changes of the key are committed first and are never discarded because
/// of a conflict. Concurrent conditional saves share a commit.
///
/// Nothing happens before the first poll. Once polled, dropping the future cancels
/// the wait, not the commit. The errors:
///
/// - `Conflict`: the store holds [something else](crate::Error::found). Nothing was
///   written, and memory now holds the stored value (unless the key was written
///   meanwhile).
/// - `Refused`: the store (or the codec) will never accept this value, or the
///   pending change of the key. Nothing was written.
/// - `Unavailable`, `Unusable`: all attempts have failed. Nothing was written,
///   unless the error says that it [may have
///   been](crate::Error::may_have_applied): then the outcome is unknown, and the
///   value may be saved already or later. The map retries until it knows the
///   outcome, then updates memory. Writes to the key in the meantime, including a
///   removal or a [clear](Map::clear), are later writes and are committed after
///   it; saves, flushes and `close` wait for the outcome.
/// - `Unsupported`: the provider does not check
///   [conditions](crate::Capabilities::conditions). `Closed`: the map is closed.
///   Nothing was written.
impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Saves a value if the store holds the expected state of the key; returns the
    /// new revision.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// use persistify::{ErrorKind, Expect, Memory, PersistentMap};
    ///
    /// let jobs: PersistentMap<String> = PersistentMap::builder(Memory::new(), "jobs").open().await?;
    /// let first = jobs.save_if("job", "new".to_owned(), Expect::Absent).await?;
    /// jobs.save_if("job", "mine".to_owned(), Expect::At(first)).await?;
    ///
    /// let late = jobs.save_if("job", "mine too".to_owned(), Expect::At(first)).await;
    /// assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
    /// assert_eq!(jobs.get("job").as_deref(), Some("mine"));
    /// # jobs.close().await
    /// # }
    /// ```
    ///
    /// Returns [`Revision::ZERO`] if a layer acknowledged the commit before its
    /// store did.
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves).
    pub async fn save_if(
        &self,
        key: impl AsRef<str>,
        value: V,
        expect: Expect,
    ) -> Result<Revision> {
        self.propose(key.as_ref(), value, None, expect).await
    }

    pub(crate) async fn propose(
        &self,
        key: &str,
        value: V,
        ttl: Option<Duration>,
        expect: Expect,
    ) -> Result<Revision> {
        self.propose_change(key, Some(value), ttl, expect).await
    }

    /// Without a value, removes the entry.
    pub(crate) async fn propose_change(
        &self,
        key: &str,
        value: Option<V>,
        ttl: Option<Duration>,
        expect: Expect,
    ) -> Result<Revision> {
        let mut share = MapShare::new(self.core.clone());
        match value {
            Some(value) => share.insert(key, value, ttl),
            None => share.remove(key),
        }
        share.require(key, expect);
        let revision = self.core.propose(share).await?;
        Ok(revision.unwrap_or_default())
    }
}

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Returns a copy of the value at this key and the revision of the commit that
    /// last wrote it. For a pending value, that is the last known revision of the
    /// key, or [`Revision::ZERO`] if there is none.
    ///
    /// If the value was pending, a [conditional save](Self::save_if) with this
    /// revision conflicts, because the pending change is committed first.
    pub fn get_with_revision(&self, key: impl AsRef<str>) -> Option<(V, Revision)>
    where
        V: Clone,
    {
        let key = key.as_ref();
        let (found, touch) = {
            let _guard = ReentrancyGuard::enter();
            let hash = self.core.shards.hash(key);
            let shard = self.core.shards.read(hash);
            let slot = &shard.find(hash, key)?.slot;
            let (value, lease) = slot.live(&self.core.lifetime)?;
            let known = slot.state().stored.revision().unwrap_or_default();
            ((value.clone(), known), self.core.lifetime.used(lease))
        };
        if touch {
            self.core.touch(key);
        }
        Some(found)
    }
}

impl<V, L> Core<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Commits changes of this map only.
    pub(crate) async fn propose(&self, mut share: MapShare<V, L>) -> Result<Option<Revision>> {
        ReentrancyGuard::check();
        share.seal()?;
        if share.is_empty() {
            return Ok(None);
        }
        check_conditions(&share, self.provider.capabilities().conditions)?;
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal::new(vec![Box::new(share)], reply);
        self.submit_job(Job::Propose(proposal));
        answered(answer).await
    }
}
