//! A layer that measures the calls of a store.

mod measurement;
mod meters;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use self::{measurement::Measurement, meters::Meters};
use super::{Layer, chain::IntoLayer};
use crate::{
    batch::{Batch, Committed},
    error::Result,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
    provider::Provider,
};

/// Measures the commits, loads and pings of a store, with the labels `provider` (a name
/// of your choice) and `map`. No label contains a key. See [all metrics](crate#metrics). Needs
/// the feature `metrics`.
///
/// ```
/// use std::time::Duration;
/// use persistify::{Memory, Metered, PersistentMap, ProviderExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// // Install a recorder here, such as that of `metrics-exporter-prometheus`.
/// let store = Memory::new().layer(Metered::new("main").slow(Duration::from_secs(1)));
/// let stock = PersistentMap::builder(store, "stock").open().await?;
/// stock.insert_and_save("apple", 3).await?;
/// // Before each scrape, for the figures that only the map has, such as pending keys:
/// stock.record_metrics("main");
/// # stock.close().await
/// # }
/// ```
///
/// - `outcome` is `ok`, `error`, or `cancelled`: the call was dropped before its answer, as by a
///   time limit, or the pages of a load before the last one. The counts of a histogram by
///   `outcome` give the error rate.
/// - A load lasts until its last page is read, which includes the work of the reader.
/// - Sizes are those of successful calls: bytes of keys and encoded values.
/// - `kind` is an [`ErrorKind`](crate::ErrorKind) in lower case; the errors of pings have an
///   empty `map`.
/// - A commit to several maps counts for each of them, with its own sizes.
///
/// The other methods are forwarded and not measured.
///
/// # Slow calls
///
/// A call that takes at least as long as [`slow`](Self::slow) is logged as a warning, under
/// the target `persistify::provider`, with the call, the maps, the duration and the outcome.
///
/// # When not to use it
///
/// - If the program has no recorder.
/// - With an unbounded number of maps: each map adds 10 histograms, a gauge, and a counter for
///   each kind of error.
///
/// # Order of layers
///
/// It measures the layers and the store below it: directly around the store, the store alone; as
/// the outermost layer, the calls as the maps experience them.
///
/// # Cost
///
/// The handles of the metrics are created once: that of pings with the layer, those of a map at
/// its first call. So install the recorder before you create the layer. A call costs a look-up,
/// two readings of the clock, and a pass over the sizes of the changes. Cancel safety is that
/// of the provider.
#[derive(Clone, Debug)]
pub struct Metered<P = ()> {
    inner: P,
    meters: Arc<Meters>,
}

impl Metered {
    /// Creates the layer, for [`ProviderExt::layer`](crate::ProviderExt::layer). `name` is
    /// the label `provider` of all its metrics.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            inner: (),
            meters: Arc::new(Meters::new(name.into().into(), None)),
        }
    }

    /// Sets the duration from which a call is logged as slow. Off by default.
    #[must_use]
    pub fn slow(self, limit: Duration) -> Self {
        let name = self.meters.provider.clone();
        Self {
            inner: (),
            meters: Arc::new(Meters::new(name, Some(limit))),
        }
    }
}

impl<P: Provider> IntoLayer<P> for Metered {
    type Layer = Metered<P>;

    fn into_layer(self, inner: P) -> Metered<P> {
        meters::describe();
        let meters = self.meters;
        Metered { inner, meters }
    }
}

#[async_trait]
impl<P: Provider> Layer for Metered<P> {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let mut call = Measurement::load(&self.meters, map);
        let load = self.inner.load(map, wanted).await;
        let mut load = load.inspect_err(|error| call.failed(error))?;
        load.pages = stream::unfold((load.pages, call), |(mut pages, mut call)| async move {
            let page = pages.next().await;
            call.read(page.as_ref());
            page.map(|page| (page, (pages, call)))
        })
        .boxed();
        Ok(load)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let mut call = Measurement::commit(&self.meters, batch);
        let committed = self.inner.commit(batch).await;
        call.answered(&committed);
        committed
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        let mut call = Measurement::ping(&self.meters);
        let found = self.inner.ping().await;
        call.answered(&found);
        found
    }
}
