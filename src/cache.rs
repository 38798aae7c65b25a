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
/// An expired entry is gone at once: it is never returned, counted or iterated.
/// Shortly after, it is swept out of memory and, with the next commit, out of the
/// store (unless another process has written that key meanwhile). Expiries are
/// stored, so a restart neither revives nor extends an entry.
///
/// Writing to an expired key creates a fresh entry. [Updating](Map::update) an
/// entry counts as a write: its time to live restarts, unless the update [keeps
/// it](CachingMap::update_keeping_ttl).
///
/// Most methods are on [`Map`], which this type dereferences to; they are listed
/// below.
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
/// Times have millisecond precision. An entry expires up to three milliseconds
/// early, never late. (An entry with a time to live below four milliseconds lives
/// for up to four.)
///
/// The map's clock is the wall time at the opening plus the time elapsed since. It
/// starts no earlier than the latest write time of a stored entry, so no entry
/// comes back to life if the wall clock was set back by up to a day. An entry
/// written more than a day in the future was written with a wrong clock: the map
/// logs one warning, ignores its write time, and lets the entry live for its
/// original duration, counted from the opening.
///
/// # Entries without an expiry
///
/// A plain map, or a table of another program, may hold entries without an expiry.
/// These entries get the map's time to live and time to idle, if they are set, when
/// it is opened. The expiry is stored, so a second opening does not extend them;
/// their values are not rewritten. With both times set, their time to live counts
/// from the first opening, and their time to idle restarts with each opening, until
/// they are written. If another process stores an entry without an expiry while the
/// map is open, it gets one at the next opening.
pub struct CachingMap<V: Send + Sync + 'static>(Map<V, Expiring<V>>);

/// The options of a [`CachingMap`].
pub type CachingMapBuilder<V> = Builder<V, Expiry<V>>;

impl<V: Send + Sync + 'static> CachingMap<V> {
    /// Starts building a caching map with this name, stored by this provider. Set
    /// options, then call [`open`](Builder::open). If no time is set, entries
    /// expire only if they are [inserted with one](Self::insert_with_ttl).
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

    /// Inserts a value with its own time to live, which replaces the map's time to
    /// live and time to idle; returns the previous value.
    ///
    /// Reads do not extend the entry. An [update](Map::update) restarts its own
    /// time to live, also after the map was reopened. A plain [`insert`](Map::insert)
    /// goes back to the map's time to live and time to idle. With a `ttl` of zero the
    /// entry has expired already; with [`Duration::MAX`] it never expires.
    ///
    /// # Panics
    ///
    /// If the map is closed.
    pub fn insert_with_ttl(&self, key: impl AsRef<str>, value: V, ttl: Duration) -> Option<V> {
        self.put(key.as_ref(), value, Some(ttl))
    }

    /// Returns a copy of the value at this key. Unlike [`get`](Map::get) it does
    /// not count as a read: it does not extend the entry.
    pub fn peek(&self, key: impl AsRef<str>) -> Option<V>
    where
        V: Clone,
    {
        self.look_aside(key.as_ref(), V::clone)
    }

    /// Calls `look` with the value at this key, without copying it, and returns its
    /// result. Unlike [`read`](Map::read) it does not count as a read: it does not
    /// extend the entry.
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
    /// An [`update`](Map::update) restarts the entry's time to live.
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

    /// Like [`update_keeping_ttl`](Self::update_keeping_ttl), but inserts `value`
    /// if there is no entry. The new entry lives for `ttl`, or by the map's time to
    /// live and time to idle if that is `None`.
    ///
    /// It is one atomic step, so a rate limiter counts every call, even while a
    /// window begins:
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

    /// When the entry at this key expires; `None` if there is no entry, or if it
    /// never expires. Does not count as a read.
    pub fn expires_at(&self, key: impl AsRef<str>) -> Option<SystemTime> {
        self.core.expires_at(key.as_ref())
    }
}

impl<V> CachingMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// [Inserts with a time to live](Self::insert_with_ttl), and waits until this
    /// change, or a later one of the key, is committed.
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
    /// this change, or a later one of the key, is committed.
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

    /// Saves a value with its own time to live, if the store holds the expected
    /// state of the key; returns the new revision.
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
    /// Sets the key to this value, with its own time to live.
    pub fn insert_with_ttl(&mut self, key: impl AsRef<str>, value: V, ttl: Duration) -> &mut Self {
        self.put(key.as_ref(), value, Some(ttl))
    }
}

impl Transaction {
    /// Sets the key of `map` to this value, with its own time to live.
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
    /// Sets how long an entry lives after it was written; at least 1 millisecond,
    /// unlimited by default. An entry stored with another time to live keeps it
    /// until it is written again, but reads cannot extend it beyond this one. An
    /// entry stored [without an expiry](CachingMap#entries-without-an-expiry) gets
    /// this one when the map is opened.
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.plan.time_to_live = Some(time);
        self
    }

    /// Sets how long an entry lives after it was last written or read; at least 1
    /// millisecond, unlimited by default. If a time to live is set as well, the
    /// earlier deadline counts.
    ///
    /// Reads move the deadline in memory at once, and in the store when it has
    /// moved by more than a tenth of this time: after a crash an entry may expire
    /// that much early, never late.
    pub fn time_to_idle(mut self, time: Duration) -> Self {
        self.plan.time_to_idle = Some(time);
        self
    }

    /// Sets a listener that is called with the key and the value of each expired
    /// entry: when it is swept, or earlier if it is overwritten, cleared or
    /// reloaded. That includes entries that expired while the map was not open. The
    /// listener runs on the map's background task or on the writer's thread, so
    /// keep it short; it may call maps.
    pub fn on_expire(mut self, listener: impl Fn(&str, V) + Send + Sync + 'static) -> Self {
        self.plan.listener = Some(Arc::new(listener));
        self
    }
}
