//! Saves that take place only if the store holds what is expected.

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
            Errand, Proposal, answered, joint::check_conditions, map_share::MapShare, share::Share,
        },
    },
    record::Revision,
};

/// # Conditional saves
///
/// For keys that several processes write, each against what it has seen. The
/// condition is checked in the store, in the commit itself, and memory takes over
/// the value once it is there: nobody sees a value that was not saved.
///
/// What is pending of the key is committed first, and never given up for a
/// conflict. Conditional saves that wait at the same time share a commit.
///
/// Nothing happens before the first poll; after it, dropping the future loses
/// the answer only. The errors:
///
/// - `Conflict`: the store holds [something else](crate::Error::found). Nothing was
///   written, and memory now holds what the store does (unless the key was
///   written meanwhile).
/// - `Refused`: the store (or the codec) will never take this value, or what was
///   pending of the key. Nothing was written.
/// - `Unavailable`, `Unusable`: the attempts are spent. If the error [says
///   so](crate::Error::may_have_applied), the value may have been saved, or may
///   yet be: the map goes on asking until it knows, and memory follows then.
///   A write to the key in the meantime, also a removal or a [clear](Map::clear),
///   is the later one and goes to the store behind it; saves, flushes and `close`
///   wait for its fate. Otherwise nothing was done.
/// - `Unsupported`: the provider knows no [conditions](crate::Capabilities::conditions);
///   `Closed`. Nothing was done.
impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Puts a value at this key, if the store holds what is expected; the new
    /// revision.
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
    /// ([`Revision::ZERO`] from a layer that accepts commits ahead of its store.)
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

    /// Without a value, the entry is removed.
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
    /// A copy of the value at this key, and the revision of the commit that last
    /// wrote it; of a value that is pending, the last one known of the key, and
    /// [`Revision::ZERO`] if there is none.
    ///
    /// A [save on that condition](Self::save_if) then finds a conflict if the
    /// value was pending, because that is committed first.
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
    /// Commits a share of this map by itself.
    pub(crate) async fn propose(&self, mut share: MapShare<V, L>) -> Result<Option<Revision>> {
        ReentrancyGuard::check();
        share.seal()?;
        if share.is_empty() {
            return Ok(None);
        }
        check_conditions(&share, self.provider.capabilities().conditions)?;
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal::new(vec![Box::new(share)], reply);
        self.leave_errand(Errand::Propose(proposal));
        answered(answer).await
    }
}
