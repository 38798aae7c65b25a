//! Chains: wrapping a provider in one layer after another.

use super::namespaced::Namespaced;
use crate::{error::Result, provider::Provider};

/// Wraps any [`Provider`] in layers.
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
/// let store = Memory::new().namespace("acme")?.layer(Logged);
/// # Ok(())
/// # }
/// ```
pub trait ProviderExt: Provider + Sized {
    /// Wraps this provider in a layer. The last layer of a chain is the outermost: it is
    /// called first.
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

/// Becomes a layer around a provider, for [`ProviderExt::layer`].
///
/// The layers of this crate implement it, and all functions from a provider to a provider.
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
