//! Layers: providers that wrap another provider.

pub(crate) mod chain;
pub(crate) mod circuit_breaker;
#[cfg(any(feature = "lz4", feature = "zstd"))]
pub(crate) mod compressed;
#[cfg(feature = "encryption")]
pub(crate) mod encrypted;
pub(crate) mod failover;
#[cfg(any(feature = "lz4", feature = "zstd", feature = "encryption"))]
mod frame;
#[cfg(feature = "journal")]
pub(crate) mod journaled;
#[cfg(feature = "metrics")]
pub(crate) mod metered;
pub(crate) mod namespaced;
pub(crate) mod sharded;
#[cfg(any(feature = "lz4", feature = "zstd", feature = "encryption"))]
mod transform;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    batch::{Batch, Committed},
    error::Result,
    heartbeat::Heartbeat,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
    provider::{Capabilities, Provider},
};

/// A provider that wraps another provider.
///
/// Every method forwards to [`inner`](Self::inner) unless the layer overrides
/// it. Every `Layer` is a [`Provider`]: layers nest, a map uses them like any
/// provider, and the conformance suite tests them like any provider.
///
/// A layer that counts commits:
///
/// ```
/// use persistify::{Batch, Committed, Layer, Memory, PersistentMap, Provider, Result, async_trait};
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// #[derive(Debug)]
/// struct Counted<P> {
///     inner: P,
///     commits: AtomicU64,
/// }
///
/// #[async_trait]
/// impl<P: Provider> Layer for Counted<P> {
///     fn inner(&self) -> &dyn Provider {
///         &self.inner
///     }
///
///     async fn commit(&self, batch: &Batch) -> Result<Committed> {
///         self.commits.fetch_add(1, Relaxed);
///         self.inner().commit(batch).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let store = std::sync::Arc::new(Counted { inner: Memory::new(), commits: AtomicU64::new(0) });
/// let stock = PersistentMap::builder(store.clone(), "stock").open().await?;
/// stock.insert_and_save("apple", 3).await?;
/// assert_eq!(store.commits.load(Relaxed), 1);
/// # stock.close().await
/// # }
/// ```
///
/// Call the wrapped provider through [`inner`](Self::inner): where both traits
/// are imported, a method call on a concrete layer is ambiguous.
///
/// A layer keeps the contract of the provider that it wraps. In particular, it passes a
/// repeated batch on unchanged, and it does not replace an error that [may have
/// applied](crate::Error::may_have_applied) with one that claims otherwise.
#[async_trait]
pub trait Layer: fmt::Debug + Send + Sync + 'static {
    /// The wrapped provider.
    fn inner(&self) -> &dyn Provider;

    /// See [`Provider::capabilities`]. Override it if the layer lacks an ability of the wrapped
    /// provider, or compresses or encrypts values.
    fn capabilities(&self) -> Capabilities {
        self.inner().capabilities()
    }

    /// See [`Provider::heartbeat`].
    fn heartbeat(&self) -> Option<Heartbeat> {
        self.inner().heartbeat()
    }

    /// See [`Provider::load`].
    ///
    /// # Errors
    ///
    /// As [`Provider::load`].
    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.inner().load(map, wanted).await
    }

    /// See [`Provider::commit`].
    ///
    /// # Errors
    ///
    /// As [`Provider::commit`].
    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.inner().commit(batch).await
    }

    /// See [`Provider::release`].
    ///
    /// # Errors
    ///
    /// As [`Provider::release`].
    async fn release(&self, map: &MapName) -> Result<()> {
        self.inner().release(map).await
    }

    /// See [`Provider::maps`].
    ///
    /// # Errors
    ///
    /// As [`Provider::maps`].
    async fn maps(&self) -> Result<Vec<MapName>> {
        self.inner().maps().await
    }

    /// See [`Provider::drop_map`].
    ///
    /// # Errors
    ///
    /// As [`Provider::drop_map`].
    async fn drop_map(&self, map: &MapName) -> Result<()> {
        self.inner().drop_map(map).await
    }

    /// See [`Provider::ping`].
    ///
    /// # Errors
    ///
    /// As [`Provider::ping`].
    async fn ping(&self) -> Result<Option<Incarnation>> {
        self.inner().ping().await
    }

    /// See [`Provider::close`].
    ///
    /// # Errors
    ///
    /// As [`Provider::close`].
    async fn close(&self) -> Result<()> {
        self.inner().close().await
    }
}

// The lint fails if `Provider` gains a method that is not forwarded here.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<L: Layer> Provider for L {
    fn capabilities(&self) -> Capabilities {
        Layer::capabilities(self)
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Layer::heartbeat(self)
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        Layer::load(self, map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        Layer::commit(self, batch).await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        Layer::release(self, map).await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        Layer::maps(self).await
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        Layer::drop_map(self, map).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        Layer::ping(self).await
    }

    async fn close(&self) -> Result<()> {
        Layer::close(self).await
    }
}

impl<P: Provider> Layer for Arc<P> {
    fn inner(&self) -> &dyn Provider {
        &**self
    }
}

impl Layer for Arc<dyn Provider> {
    fn inner(&self) -> &dyn Provider {
        &**self
    }
}

impl<P: Provider> Layer for Box<P> {
    fn inner(&self) -> &dyn Provider {
        &**self
    }
}

impl Layer for Box<dyn Provider> {
    fn inner(&self) -> &dyn Provider {
        &**self
    }
}
