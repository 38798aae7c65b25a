//! The map whose entries never expire.

use std::{fmt, ops::Deref, sync::Arc};

use super::{
    Map,
    api::{builder::Builder, iterate::Iter},
    lifetime::{Forever, Plan},
};
use crate::{
    clock::MapClock,
    error::{Error, Result},
    name::MapName,
    provider::Provider,
};

/// A concurrent map with string keys: use it like a `HashMap`, and it persists
/// itself in the background.
///
/// Reads and writes touch memory only. Changes are written behind: they reach the
/// [provider](Provider) in batches, at the latest after the
/// [batch](PersistentMapBuilder::batch) interval. `…_and_save` and
/// [`flush`](Map::flush) wait until the changes are committed.
///
/// Cloning is cheap and returns another handle to the same map. Most methods are on
/// [`Map`], which this type dereferences to; they are listed below.
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
/// Closures run under a lock, so keep them short. A call to any map from inside a
/// closure, or from inside a value's own `Clone` or `Serialize`, panics instead of
/// deadlocking. If a closure panics, the map keeps working and the entry stays as
/// the closure left it.
///
/// # After `close`
///
/// Reads keep working and saves return `Closed`. Other writes panic: they could
/// never reach the store, and they have no error to return.
///
/// Dropping the last handle does not close the map. Pending changes may be lost;
/// a logged warning states their number.
pub struct PersistentMap<V>(Map<V, Forever>);

/// The options of a [`PersistentMap`].
pub type PersistentMapBuilder<V> = Builder<V, Forever>;

impl<V: 'static> PersistentMap<V> {
    /// Starts building a map with this name, stored by this provider. Set options,
    /// then call [`open`](Builder::open).
    ///
    /// A name has 1 to 255 bytes and contains neither control characters nor `/`.
    /// An invalid name is an error of `open`.
    pub fn builder<N>(provider: impl Provider, name: N) -> PersistentMapBuilder<V>
    where
        N: TryInto<MapName>,
        N::Error: Into<Error>,
    {
        Builder::new(provider, name, Forever)
    }
}

impl<V: 'static> Plan<V> for Forever {
    type Life = Self;
    type Handle = PersistentMap<V>;

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn begin(self, _: Arc<MapClock>) -> Self {
        self
    }
}

impl<V> Deref for PersistentMap<V> {
    type Target = Map<V, Forever>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<V> From<Map<V, Forever>> for PersistentMap<V> {
    fn from(map: Map<V, Forever>) -> Self {
        Self(map)
    }
}

impl<V> Clone for PersistentMap<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> fmt::Debug for PersistentMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<V: Clone> IntoIterator for &PersistentMap<V> {
    type Item = (Arc<str>, V);
    type IntoIter = Iter<V, Forever, Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
