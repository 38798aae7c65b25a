//! The caching map: a map whose entries expire.

mod deadlines;
mod lease;
mod schedule;
mod sweeper;

use std::{
    fmt,
    ops::Deref,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};

pub use self::lease::Expiring;
pub(crate) use self::lease::Expiry;
use crate::{
    batch::Expect,
    error::{Error, Result},
    map::{
        Map, atomic_batch::AtomicBatch, builder::Builder, iterate::Iter, lifetime::Lifetime,
        transaction::Transaction,
    },
    name::MapName,
    provider::Provider,
    record::Revision,
};

/// A [`PersistentMap`](crate::PersistentMap) whose entries expire.
///
/// Expired means gone, at once: never returned, counted or iterated; a moment
/// later it is swept out of memory and, with the next commit, out of the store
/// (unless another process has written that key meanwhile). Expiries are stored,
/// so a restart neither revives nor prolongs an entry.
///
/// To write over an expired key is to make a fresh entry. To
/// [update](Map::update) an entry is to write it: its time to live begins anew.
///
/// Nearly all methods are those of [`Map`], which it dereferences to; they are
/// listed below.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use std::time::Duration;
/// use persistify::{CachingMap, Memory};
///
/// let pages: CachingMap<String> = CachingMap::builder(Memory::new(), "pages")
///     .time_to_live(Duration::from_secs(3600))
///     .open()
///     .await?;
/// pages.insert("/", "hello".to_owned());
/// pages.insert_with_ttl("/news", "breaking".to_owned(), Duration::from_secs(60));
/// # pages.close().await
/// # }
/// ```
///
/// Times are kept in milliseconds, by a clock that nobody can set back: the
/// wall time when the map was opened (or the latest the store has seen, if that
/// is later), and from then on the time that has passed.
pub struct CachingMap<V: Send + Sync + 'static>(Map<V, Expiring<V>>);

/// The options of a [`CachingMap`].
pub type CachingMapBuilder<V> = Builder<V, Expiry<V>>;

impl<V: Send + Sync + 'static> CachingMap<V> {
    /// A caching map of this name, kept by this provider; set options, then
    /// [`open`](Builder::open) it. Without a time, entries expire only if they
    /// are [inserted with one](Self::insert_with_ttl).
    pub fn builder<N>(provider: impl Provider, name: N) -> CachingMapBuilder<V>
    where
        N: TryInto<MapName>,
        N::Error: Into<Error>,
    {
        let plan = Expiry {
            time_to_live: None,
            time_to_idle: None,
            listener: None,
        };
        Builder::new(provider, name, plan)
    }

    /// Puts a value at this key that lives exactly so long, whatever the times
    /// of the map; returns the value that was there. Reads do not prolong it; an
    /// update begins the same time anew. (After a restart, and in a map with a
    /// time to live, that of the map; else what was left of its own when it was
    /// saved.) A time of zero makes an entry that has
    /// expired already.
    ///
    /// # Panics
    ///
    /// If the map is closed.
    pub fn insert_with_ttl(&self, key: impl AsRef<str>, value: V, ttl: Duration) -> Option<V> {
        self.put(key.as_ref(), value, Some(ttl))
    }

    /// When the entry at this key expires; `None` if there is none, or if it
    /// does not expire. It does not count as a read.
    pub fn expires_at(&self, key: impl AsRef<str>) -> Option<SystemTime> {
        self.core.expires_at(key.as_ref())
    }
}

impl<V> CachingMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// [Inserts with a time to live](Self::insert_with_ttl), and waits until
    /// that or a later change of the key is committed.
    ///
    /// # Errors
    ///
    /// Those of [`insert_and_save`](Map::insert_and_save).
    pub async fn insert_with_ttl_and_save(
        &self,
        key: impl AsRef<str>,
        value: V,
        ttl: Duration,
    ) -> Result<Option<V>> {
        self.put_and_save(key.as_ref(), value, Some(ttl)).await
    }

    /// Puts a value at this key that lives exactly so long, if the store holds
    /// what is expected; the new revision.
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves).
    pub async fn save_if_with_ttl(
        &self,
        key: impl AsRef<str>,
        value: V,
        expect: Expect,
        ttl: Duration,
    ) -> Result<Revision> {
        self.propose(key.as_ref(), value, Some(ttl), expect).await
    }
}

impl<V: Send + Sync + 'static> Deref for CachingMap<V> {
    type Target = Map<V, Expiring<V>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<V: Send + Sync + 'static> From<Map<V, Expiring<V>>> for CachingMap<V> {
    fn from(map: Map<V, Expiring<V>>) -> Self {
        Self(map)
    }
}

impl<V: Send + Sync + 'static> Clone for CachingMap<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: Send + Sync + 'static> fmt::Debug for CachingMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<V: Clone + Send + Sync + 'static> IntoIterator for &CachingMap<V> {
    type Item = (Arc<str>, V);
    type IntoIter = Iter<V, Expiring<V>, Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<V: Send + Sync + 'static> Lifetime<V> for Expiring<V> {}

impl<V> AtomicBatch<V, Expiring<V>>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The key holds this value from then on, for exactly so long.
    pub fn insert_with_ttl(&mut self, key: impl AsRef<str>, value: V, ttl: Duration) -> &mut Self {
        self.put(key.as_ref(), value, Some(ttl))
    }
}

impl Transaction {
    /// The key of that map holds this value from then on, for exactly so long.
    pub fn insert_with_ttl<V>(
        &mut self,
        map: &CachingMap<V>,
        key: impl AsRef<str>,
        value: V,
        ttl: Duration,
    ) -> &mut Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.put(map, key.as_ref(), value, Some(ttl))
    }
}

impl<V> CachingMapBuilder<V> {
    /// How long an entry lives after it was written; at least a millisecond, for
    /// ever by default. What was stored with another time keeps that until it is
    /// written again; but what reads prolong ends by this one.
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.plan.time_to_live = Some(time);
        self
    }

    /// How long an entry lives after it was written or read; at least a
    /// millisecond, for ever by default. With a time to live as well, whichever
    /// ends first.
    ///
    /// Reads move the deadline in memory at once, and in the store when it has
    /// moved by more than a tenth of this time: after a crash an entry may
    /// expire that much early, never late. (What was stored while the map had no
    /// time to idle cannot always be told from what reads prolong, and may be
    /// prolonged until it is written again.)
    pub fn time_to_idle(mut self, time: Duration) -> Self {
        self.plan.time_to_idle = Some(time);
        self
    }

    /// Called with the key and the value of each entry that has expired: when it
    /// is swept, or written over, cleared or reloaded before that; also for those
    /// that expired while no one had the map open. It runs on the map's own task
    /// (or the writer's thread), so it should be short; it may call maps.
    pub fn on_expire(mut self, listener: impl Fn(&str, V) + Send + Sync + 'static) -> Self {
        self.plan.listener = Some(Arc::new(listener));
        self
    }
}
