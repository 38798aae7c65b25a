//! The map: a handle to the in-memory table and to the background task that saves
//! it.

pub(crate) mod api;
mod coding;
mod core;
pub(crate) mod lifetime;
pub(crate) mod load;
pub(crate) mod persistent;
mod phase;
mod shared;
mod spans;
mod table;
pub(crate) mod write_behind;

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::{Handle, RuntimeFlavor};

use self::{core::Core, lifetime::Lifetime, load::loading::Loaded, write_behind::flusher::Flusher};
use crate::{
    error::{Error, ErrorKind, Result},
    trace::MAP,
};

/// The methods that [`PersistentMap`](crate::PersistentMap) and
/// [`CachingMap`](crate::CachingMap) share. Both dereference to it. `L` decides how
/// long entries live.
///
/// Code that works with both kinds of map takes a `&Map`:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use persistify::{CachingMap, Lifetime, Map, Memory, PersistentMap};
///
/// /// Counts one more visit, in the store too.
/// async fn visit<L: Lifetime<u32>>(map: &Map<u32, L>, page: &str) -> persistify::Result<u32> {
///     map.upsert(page, 1, |n| *n += 1);
///     map.flush().await?;
///     Ok(map.get(page).unwrap_or_default())
/// }
///
/// let kept: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "ever").open().await?;
/// let lately: CachingMap<u32> = CachingMap::builder(Memory::new(), "lately").open().await?;
/// assert_eq!(visit(&kept, "/").await? + visit(&lately, "/").await?, 2);
/// # kept.close().await?;
/// # lately.close().await
/// # }
/// ```
pub struct Map<V, L: Lifetime<V>> {
    pub(crate) core: Arc<Core<V, L>>,
    life: Arc<Life<V, L>>,
    runtime: Handle,
}

/// Stops the background task when the last handle is dropped.
struct Life<V, L: Lifetime<V>>(Arc<Core<V, L>>);

impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    fn start(core: Arc<Core<V, L>>, loaded: Loaded, runtime: Handle) -> Self {
        runtime.spawn(Flusher::new(core.clone(), loaded).run());
        let map = Arc::downgrade(&core);
        let expire = move |key: &str| map.upgrade()?.expire(key).ok();
        core.lifetime.opened(Box::new(expire));
        Self {
            life: Arc::new(Life(core.clone())),
            core,
            runtime,
        }
    }

    /// Checks that this thread may block until the background task answers.
    fn check_blocking(&self) -> Result<()> {
        let problem = if Handle::try_current().is_ok() {
            "blocking_close was called on a thread of a runtime; use `close().await` there"
        } else if self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            "blocking_close needs a multi-thread runtime: a current-thread runtime makes no \
             progress while its thread blocks; use `runtime.block_on(map.close())`"
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
                target: MAP,
                map = %core.name,
                lost,
                "the last handle of a map was dropped before `close`; changes are lost"
            );
            if !tracing::dispatcher::has_been_set() {
                eprintln!(
                    "persistify: the last handle of the map {:?} was dropped before `close`; \
                     {lost} changes are lost",
                    core.name.as_str()
                );
            }
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
