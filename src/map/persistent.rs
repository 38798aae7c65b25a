//! The map whose entries live for ever.

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

/// A concurrent map with string keys that you use like a `HashMap` and that
/// keeps itself in a store, in the background.
///
/// Reads and writes touch memory only. What changed is written to the
/// [provider](Provider) in batches, after the [batch](PersistentMapBuilder::batch)
/// interval at the latest; `…_and_save` and [`flush`](Map::flush) wait until it is.
///
/// A clone is another handle on the same map. Nearly all methods are those of
/// [`Map`], which it dereferences to; they are listed below.
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
pub struct PersistentMap<V>(Map<V, Forever>);

/// The options of a [`PersistentMap`].
pub type PersistentMapBuilder<V> = Builder<V, Forever>;

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
