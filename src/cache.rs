//! The caching map: a map whose entries expire.

mod deadlines;
mod lease;
mod schedule;
mod stored;
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
        Map,
        api::{
            atomic_batch::AtomicBatch, builder::Builder, iterate::Iter, transaction::Transaction,
        },
        lifetime::Lifetime,
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
/// [update](Map::update) an entry is to write it: its time to live begins anew,
/// unless the update [keeps it](CachingMap::update_keeping_ttl).
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
/// # Times
///
/// Times are kept in milliseconds. An entry expires up to three milliseconds
/// before its time is over, and not after it. (One that is to live for less than
/// four lives for up to four.)
///
/// The clock is the wall time when the map was opened, and from then on the time
/// that has passed. It starts no earlier than the latest time that an entry in the
/// store was written, so nothing comes back to life after the wall clock was set
/// back by up to a day. An entry that was written more than a day from now tells
/// of a clock that was wrong: a warning says so once, its time does not count, and
/// the entry lives for as long as it was given, counted from the opening.
///
/// # Entries without a time
///
/// A plain map, or a table of another program, may hold entries that have no time.
/// If the map has times, they get these when it is opened. The store is told of
/// it, so a second opening does not prolong them; their values are not written
/// again. With both times set, they live for the time to live from the first
/// opening on, and the time to idle begins anew with each opening, until they are
/// written. An entry without a time that another process stores while the map is
/// open gets one when the map is opened the next time.
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

    /// Puts a value at this key with a time to live of its own, which replaces
    /// the times of the map; returns the value that was there.
    ///
    /// Reads do not prolong the entry. An [update](Map::update) begins the same
    /// time anew, also after a restart. A plain [`insert`](Map::insert) makes an
    /// entry that lives by the times of the map. A time of zero makes an entry
    /// that has expired already; one of [`Duration::MAX`] makes one that does not
    /// expire.
    ///
    /// # Panics
    ///
    /// If the map is closed.
    pub fn insert_with_ttl(&self, key: impl AsRef<str>, value: V, ttl: Duration) -> Option<V> {
        self.put(key.as_ref(), value, Some(ttl))
    }

    /// A copy of the value at this key. Unlike [`get`](Map::get) it does not count
    /// as a read: it does not prolong the entry.
    pub fn peek(&self, key: impl AsRef<str>) -> Option<V>
    where
        V: Clone,
    {
        self.look_aside(key.as_ref(), V::clone)
    }

    /// What `look` makes of the value at this key, without copying it. Unlike
    /// [`read`](Map::read) it does not count as a read: it does not prolong the
    /// entry.
    ///
    /// # Panics
    ///
    /// If `look` calls a map.
    pub fn peek_with<R>(&self, key: impl AsRef<str>, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.look_aside(key.as_ref(), look)
    }

    /// Changes the value at this key in place and keeps its deadline: the entry
    /// expires when it would have expired without the change. Returns `None` if
    /// there is no entry.
    ///
    /// An [`update`](Map::update) begins the entry's time anew.
    ///
    /// # Panics
    ///
    /// If the map is closed, or `change` calls a map.
    pub fn update_keeping_ttl<R>(
        &self,
        key: impl AsRef<str>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        self.update_keeping_expiry(key.as_ref(), change)
    }

    /// [Updates and keeps the deadline](Self::update_keeping_ttl), or inserts this
    /// value if there is no entry. The new entry lives for `ttl`, or by the times
    /// of the map if that is `None`.
    ///
    /// Both are one step, so no call is lost in a window that has just begun:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # use std::time::Duration;
    /// # use persistify::{CachingMap, Memory};
    /// let calls: CachingMap<u32> = CachingMap::builder(Memory::new(), "calls")
    ///     .time_to_live(Duration::from_secs(60))
    ///     .open()
    ///     .await?;
    /// // At most 100 calls a minute, counted from the first.
    /// let may_call = |user: &str| {
    ///     let mut count = 1;
    ///     calls.upsert_keeping_ttl(user, 1, None, |n| {
    ///         *n += 1;
    ///         count = *n;
    ///     });
    ///     count <= 100
    /// };
    /// assert!((0..100).all(|_| may_call("alice")));
    /// assert!(!may_call("alice"));
    /// # calls.close().await
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the map is closed, or `change` calls a map.
    pub fn upsert_keeping_ttl(
        &self,
        key: impl AsRef<str>,
        value: V,
        ttl: Option<Duration>,
        change: impl FnOnce(&mut V),
    ) {
        self.upsert_keeping_expiry(key.as_ref(), value, ttl, change);
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

    /// [Updates and keeps the deadline](Self::update_keeping_ttl), and waits until
    /// that or a later change of the key is committed.
    ///
    /// # Errors
    ///
    /// Those of [`update_and_save`](Map::update_and_save).
    pub async fn update_keeping_ttl_and_save<R>(
        &self,
        key: impl AsRef<str>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<Option<R>> {
        self.update_keeping_expiry_and_save(key.as_ref(), change)
            .await
    }

    /// Puts a value at this key with a time to live of its own, if the store
    /// holds what is expected; the new revision.
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
    /// ever by default. An entry that was stored with another time keeps that
    /// until it is written again; but what reads prolong ends by this one. An
    /// entry that was stored [without a time](CachingMap#entries-without-a-time)
    /// gets this one when the map is opened.
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
    /// expire that much early, never late.
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
