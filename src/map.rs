//! The map: a handle on what is in memory, and on the task that saves it.

mod access;
mod age;
mod asking;
pub(crate) mod atomic_batch;
pub(crate) mod builder;
mod calls;
mod coding;
mod conditional;
pub(crate) mod conflicts;
mod core;
mod delivery;
mod entry;
mod errands;
mod export;
mod flusher;
mod hold;
mod import;
mod inside;
mod iterate;
mod joint;
mod landing;
pub(crate) mod lifetime;
mod line;
mod lines;
mod loaders;
mod loading;
mod map_share;
mod marks;
mod observe;
pub(crate) mod occupied;
mod old;
mod options;
mod pending;
mod phase;
mod read;
mod requests;
pub(crate) mod retry;
mod save;
pub(crate) mod shape;
mod shards;
mod share;
mod spot;
mod step;
pub(crate) mod transaction;
mod unreadable;
mod update_in_store;
mod write;

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::{Handle, RuntimeFlavor};

use self::{
    builder::Builder,
    core::Core,
    flusher::Flusher,
    lifetime::{Forever, Lifetime},
};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::Provider,
    record::Revision,
};

/// A concurrent map with string keys that you use like a `HashMap` and that
/// keeps itself in a store, in the background.
///
/// Reads and writes touch memory only. What changed is written to the
/// [provider](Provider) in batches, after the [batch](PersistentMapBuilder::batch)
/// interval at the latest; `…_and_save` and [`flush`](Map::flush) wait until it is.
///
/// A clone is another handle on the same map.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use persistify::{Memory, PersistentMap};
///
/// let stock: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "stock").open().await?;
/// stock.insert("apple", 3);                      // in memory now, in the store within a second
/// stock.insert_and_save("pear", 5).await?;       // in the store when it returns
/// assert_eq!(stock.get("apple"), Some(3));
/// stock.close().await?;                          // saves the rest
/// # Ok(())
/// # }
/// ```
///
/// # Closures
///
/// Closures run under a lock, so they should be short. A call of any map from
/// inside one panics, rather than deadlock; so does one from a value's own
/// `Clone` or `Serialize`. A closure that panics leaves a working map, and its
/// entry as the closure left it.
///
/// # After `close`
///
/// Reads go on, saves return `Closed`, and other writes panic: a write that can
/// never reach the store is a bug, and it has no other way to say so.
///
/// Dropping the last handle is not a close: what is pending may be lost, and a
/// warning says how much.
pub type PersistentMap<V> = Map<V, Forever>;

/// The options of a [`PersistentMap`].
pub type PersistentMapBuilder<V> = Builder<V, Forever>;

/// What [`PersistentMap`] and [`CachingMap`](crate::CachingMap) have in common;
/// use it by these two names. `L` says how long entries live.
pub struct Map<V, L: Lifetime<V>> {
    pub(crate) core: Arc<Core<V, L>>,
    life: Arc<Life<V, L>>,
    runtime: Handle,
}

/// Ends the background task when the last handle is dropped.
struct Life<V, L: Lifetime<V>>(Arc<Core<V, L>>);

impl<V: 'static> PersistentMap<V> {
    /// A map of this name, kept by this provider; set options, then
    /// [`open`](Builder::open) it.
    ///
    /// The name has 1 to 255 bytes and neither control characters nor a `/`;
    /// whether it is fit shows at `open`.
    pub fn builder<N>(provider: impl Provider, name: N) -> PersistentMapBuilder<V>
    where
        N: TryInto<MapName>,
        N::Error: Into<Error>,
    {
        Builder::new(provider, name, Forever)
    }
}

impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    fn start(core: Arc<Core<V, L>>, horizon: Revision, runtime: Handle) -> Self {
        runtime.spawn(Flusher::new(core.clone(), horizon).run());
        let map = Arc::downgrade(&core);
        let expire = move |key: &str| map.upgrade()?.expire(key).ok();
        core.lifetime.opened(Box::new(expire));
        Self {
            life: Arc::new(Life(core.clone())),
            core,
            runtime,
        }
    }

    /// Whether a thread may wait for the background task.
    fn check_blocking(&self) -> Result<()> {
        let problem = if Handle::try_current().is_ok() {
            "blocking_close was called on a runtime's own thread; use `close().await` there"
        } else if self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            "blocking_close needs a multi-thread runtime, because nobody drives a current-thread \
             one meanwhile; use `runtime.block_on(map.close())`"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Invalid, problem).on_map(&self.core.name))
    }
}

impl<V, L: Lifetime<V>> Clone for Map<V, L> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            life: self.life.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<V, L: Lifetime<V>> Drop for Life<V, L> {
    fn drop(&mut self) {
        let core = &self.0;
        let lost = core.pending() + core.refused.lock().len();
        if lost > 0 && !core.phase.is(phase::CLOSED) {
            tracing::warn!(
                map = %core.name,
                lost,
                "the last handle of a map was dropped before `close`; changes are lost"
            );
        }
        core.stop.notify_one();
    }
}

impl<V, L: Lifetime<V>> fmt::Debug for Map<V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("name", &self.core.name)
            .field("provider", &self.core.provider)
            .field("pending", &self.core.pending())
            .finish_non_exhaustive()
    }
}
