//! Maps for programs without a tokio runtime: a plain `fn main`, a thread.
//!
//! Reads and plain writes never block; they are the methods of [`Map`]. Its async
//! methods have the same names here, and block: `insert_and_save`, `flush`,
//! `close`, …
//!
//! ```
//! use persistify::{Memory, blocking::{PersistentMap, Runtime}};
//!
//! fn main() -> persistify::Result<()> {
//!     let runtime = Runtime::start()?; // one background thread, for all providers and maps
//!     let store = Memory::new();       // or: runtime.wait(JsonFile::open("./data"))?
//!     let stock: PersistentMap<u32> =
//!         runtime.open(persistify::PersistentMap::builder(store, "stock"))?;
//!     stock.insert("apple", 3);
//!     stock.insert_and_save("pear", 5)?;
//!     // `wait` blocks until any other call completes.
//!     stock.wait(stock.batch().insert("fig", 1).remove("pear").commit())?;
//!     stock.close()
//! }
//! ```
//!
//! They also work in threads of a tokio runtime that may block, such as
//! `spawn_blocking`. In async code they return an `Invalid` error and do nothing:
//! use the async calls there.

mod runtime;

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::runtime::Runtime;
use crate::{
    batch::Expect,
    cache::CachingMap as AsyncCachingMap,
    error::Result,
    map::{
        Map,
        api::{builder::rewind::Rewind, entry::occupied::Occupied},
        lifetime::Lifetime,
        persistent::PersistentMap as AsyncMap,
    },
    record::Revision,
};

/// A [`PersistentMap`](crate::PersistentMap) whose saves block.
pub type PersistentMap<V> = Blocking<AsyncMap<V>>;

/// A [`CachingMap`](crate::CachingMap) whose saves block.
pub type CachingMap<V> = Blocking<AsyncCachingMap<V>>;

/// A map whose saves block: [`PersistentMap`] or [`CachingMap`].
///
/// Dereferences to the async map for everything that does not wait. Cloning returns
/// another handle to the same map.
#[derive(Clone)]
pub struct Blocking<M> {
    // Dropped first: its task ends while the thread still runs.
    map: M,
    runtime: Runtime,
}

impl<M> Blocking<M> {
    fn new(map: M, runtime: Runtime) -> Self {
        Self { map, runtime }
    }

    /// Blocks until a call of this crate completes, for example the commit of a
    /// [batch](Map::batch) or of a [transaction](crate::Transaction).
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::wait`].
    pub fn wait<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.wait(call)
    }
}

/// # Calls that block
///
/// Each returns the errors of the async method of the same name, and those of
/// [`Runtime::wait`].
#[expect(
    clippy::missing_errors_doc,
    reason = "documented once, for all of them"
)]
impl<V, L, M> Blocking<M>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
    M: Deref<Target = Map<V, L>>,
{
    /// Blocks for [`Map::insert_and_save`].
    pub fn insert_and_save(&self, key: impl AsRef<str>, value: V) -> Result<Option<V>> {
        self.wait(self.map.insert_and_save(key, value))
    }

    /// Blocks for [`Map::try_insert_and_save`].
    pub fn try_insert_and_save(
        &self,
        key: impl AsRef<str>,
        value: V,
    ) -> Result<Result<(), Occupied<V>>> {
        self.wait(self.map.try_insert_and_save(key, value))
    }

    /// Blocks for [`Map::update_and_save`].
    pub fn update_and_save<R>(
        &self,
        key: impl AsRef<str>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<Option<R>> {
        self.wait(self.map.update_and_save(key, change))
    }

    /// Blocks for [`Map::remove_and_save`].
    pub fn remove_and_save(&self, key: impl AsRef<str>) -> Result<Option<V>> {
        self.wait(self.map.remove_and_save(key))
    }

    /// Blocks for [`Map::clear_and_save`].
    pub fn clear_and_save(&self) -> Result<()> {
        self.wait(self.map.clear_and_save())
    }

    /// Blocks for [`Map::save_if`].
    pub fn save_if(&self, key: impl AsRef<str>, value: V, expect: Expect) -> Result<Revision> {
        self.wait(self.map.save_if(key, value, expect))
    }

    /// Blocks for [`Map::update_in_store`].
    pub fn update_in_store(
        &self,
        key: impl AsRef<str>,
        change: impl FnMut(V) -> V,
    ) -> Result<Option<V>>
    where
        V: Clone,
    {
        self.wait(self.map.update_in_store(key, change))
    }

    /// Blocks for [`Map::upsert_in_store`].
    pub fn upsert_in_store(
        &self,
        key: impl AsRef<str>,
        change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>>
    where
        V: Clone,
    {
        self.wait(self.map.upsert_in_store(key, change))
    }

    /// Blocks for [`Map::try_update_in_store`].
    pub fn try_update_in_store<R, E>(
        &self,
        key: impl AsRef<str>,
        change: impl FnMut(&mut Option<V>) -> Result<R, E>,
    ) -> Result<Result<R, E>>
    where
        V: Clone,
    {
        self.wait(self.map.try_update_in_store(key, change))
    }

    /// Blocks for [`Map::get_or_try_insert_with`]. The loader runs on this thread, and
    /// may block.
    ///
    /// The outer error is that of [`Runtime::wait`]; the inner one is that of the
    /// loader.
    pub fn get_or_try_insert_with<E>(
        &self,
        key: impl AsRef<str>,
        loader: impl FnOnce() -> Result<V, E>,
    ) -> Result<Result<V, Arc<E>>>
    where
        V: Clone,
        E: Send + Sync + 'static,
    {
        let load = self.map.get_or_try_insert_with(key, async || loader());
        self.wait(async { Ok(load.await) })
    }

    /// Blocks for [`Map::export`].
    pub fn export(&self, writer: impl AsyncWrite + Unpin) -> Result<u64> {
        self.wait(self.map.export(writer))
    }

    /// Blocks for [`Map::import`].
    pub fn import(&self, reader: impl AsyncRead + Unpin) -> Result<u64> {
        self.wait(self.map.import(reader))
    }

    /// Blocks for [`Map::flush`].
    pub fn flush(&self) -> Result<()> {
        self.wait(self.map.flush())
    }

    /// Blocks for [`Map::reload`].
    pub fn reload(&self) -> Result<()> {
        self.wait(self.map.reload())
    }

    /// Blocks for [`Map::resolve_rewind`].
    pub fn resolve_rewind(&self, how: Rewind) -> Result<()> {
        self.wait(self.map.resolve_rewind(how))
    }

    /// Blocks for [`Map::close`].
    pub fn close(&self) -> Result<()> {
        self.wait(self.map.close())
    }

    /// Blocks for [`Map::close_within`].
    pub fn close_within(&self, limit: Duration) -> Result<()> {
        self.wait(self.map.close_within(limit))
    }
}

#[expect(
    clippy::missing_errors_doc,
    reason = "documented once, for all of them"
)]
impl<V> CachingMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Blocks for
    /// [`insert_with_ttl_and_save`](crate::CachingMap::insert_with_ttl_and_save).
    pub fn insert_with_ttl_and_save(
        &self,
        key: impl AsRef<str>,
        value: V,
        ttl: Duration,
    ) -> Result<Option<V>> {
        self.wait(self.map.insert_with_ttl_and_save(key, value, ttl))
    }

    /// Blocks for
    /// [`update_keeping_ttl_and_save`](crate::CachingMap::update_keeping_ttl_and_save).
    pub fn update_keeping_ttl_and_save<R>(
        &self,
        key: impl AsRef<str>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<Option<R>> {
        self.wait(self.map.update_keeping_ttl_and_save(key, change))
    }

    /// Blocks for [`save_if_with_ttl`](crate::CachingMap::save_if_with_ttl).
    pub fn save_if_with_ttl(
        &self,
        key: impl AsRef<str>,
        value: V,
        expect: Expect,
        ttl: Duration,
    ) -> Result<Revision> {
        self.wait(self.map.save_if_with_ttl(key, value, expect, ttl))
    }
}

impl<M> Deref for Blocking<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.map
    }
}

impl<M: fmt::Debug> fmt::Debug for Blocking<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}
