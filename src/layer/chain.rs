//! Chains: wrapping a provider in one layer after another.

use super::namespaced::Namespaced;
use crate::{error::Result, provider::Provider};

/// Wraps any [`Provider`] in layers.
///
/// A layer is a provider that wraps a provider. A map uses it like any provider, and it keeps
/// the same contract.
///
/// ```
/// use persistify::{Batch, Committed, Layer, Memory, Provider, ProviderExt, Result, async_trait};
///
/// #[derive(Debug)]
/// struct Logged<P>(P);
///
/// #[async_trait]
/// impl<P: Provider> Layer for Logged<P> {
///     fn inner(&self) -> &dyn Provider {
///         &self.0
///     }
///
///     async fn commit(&self, batch: &Batch) -> Result<Committed> {
///         println!("commit {:?}", batch.id);
///         self.inner().commit(batch).await
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let store = Memory::new().layer(Logged).namespace("acme")?;
/// # Ok(())
/// # }
/// ```
///
/// # Choosing layers
///
/// | layer | use it | do not use it | cost |
/// | --- | --- | --- | --- |
/// | [`CircuitBreaker`](crate::CircuitBreaker) | if many maps share a store that fails slowly: only one call at a time tries a store that is down | for one map, or a local file | two short locks and two readings of the clock a call |
/// | [`Failover`](crate::Failover) | to open and load maps while the primary store is down, from a copy that is kept up to date | to write while it is down: that is `Journaled`, or a database that fails over by itself | in the background, after commits: a load of the changes from the primary, and a commit to the standby |
/// | [`Journaled`](crate::Journaled) | to acknowledge saves while a remote store is down | if several processes write the same map | one local fsync before each save is acknowledged, and one more row in its commit to the store |
/// | [`Sharded`](crate::Sharded) | to spread one map over several stores | if one store is fast enough; batches that span shards are not atomic | one commit for each shard that a batch touches, concurrently |
/// | [`Encrypted`](crate::Encrypted) | to keep values secret from those who can read the store | if other programs read the values | 65 to 128 bytes a value, and the time to encrypt it |
/// | [`Compressed`](crate::Compressed) | for large values | if people or other programs read the values | the time to compress; values below a size are passed on |
/// | [`Namespaced`](crate::Namespaced) | to give each tenant maps of its own | to separate resources: tenants share those of the store | the list of changes is copied |
/// | [`Metered`](crate::Metered) | to observe commits and loads of a store | without a recorder of metrics | two readings of the clock a call, and a pass over the changes |
///
/// # Order
///
/// The last layer of a chain is the outermost: it is called first. From the store outwards:
///
/// 1. `CircuitBreaker`, directly around the store whose failures it counts.
/// 2. `Failover`, so that loads reach the standby at once while the breaker is open.
/// 3. `Journaled`, above every store and standby that may be down.
/// 4. `Encrypted`, above the journal and the standby, which then store no plain text.
/// 5. `Compressed`, above the encryption, because encrypted values do not compress.
/// 6. `Namespaced`, above `Encrypted`, which then binds values to their tenant.
///
/// `Metered` fits anywhere: directly around the store, it measures the store; as the outermost
/// layer, it measures the calls as the maps experience them. `Sharded` wraps several providers.
/// A layer around one shard concerns that shard alone: put breakers, standbys and journals there.
///
/// These orders are errors when a map is opened:
///
/// | order | error |
/// | --- | --- |
/// | `store.layer(compressed).layer(encrypted)` | `Invalid`: encrypted values do not compress |
/// | `store.layer(encrypted).layer(journaled)` | `Invalid`: the journal would contain plain text |
/// | `Failover` where only the primary, or only the standby, encrypts | `Invalid`: the other would hold plain text |
/// | `sharded.layer(journaled)` | `Unsupported`: the journal needs batches of several maps |
/// | `Sharded` over a `Sharded` of several stores | `Unsupported`: a shard must be one store |
///
/// Some mistakes are not detected: a breaker above a journal sees no failures of local saves, and
/// a namespace below the encryption lets values be moved between tenants.
pub trait ProviderExt: Provider + Sized {
    /// Wraps this provider in a layer. The last layer of a chain is the outermost: it is
    /// called first. Options of the layer are checked by its first call.
    ///
    /// The argument is a layer of this crate without a provider, or a function that takes
    /// the provider, such as the constructor of your own layer.
    fn layer<L: IntoLayer<Self>>(self, layer: L) -> L::Layer {
        layer.into_layer(self)
    }

    /// Gives a tenant maps of its own on this provider; see [`Namespaced`].
    ///
    /// # Errors
    ///
    /// Those of [`Namespaced::new`].
    fn namespace(self, namespace: impl AsRef<str>) -> Result<Namespaced<Self>> {
        Namespaced::new(self, namespace)
    }
}

impl<P: Provider> ProviderExt for P {}

/// A layer without a provider, for [`ProviderExt::layer`].
///
/// The layers of this crate and all functions from a provider to a provider implement it.
pub trait IntoLayer<P> {
    /// The layer around the provider.
    type Layer: Provider;

    /// Wraps the provider.
    fn into_layer(self, inner: P) -> Self::Layer;
}

impl<P, L: Provider, F: FnOnce(P) -> L> IntoLayer<P> for F {
    type Layer = L;

    fn into_layer(self, inner: P) -> L {
        self(inner)
    }
}
