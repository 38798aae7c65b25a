//! A layer that stops calling a store that is down.

mod attempt;
mod circuit;
mod options;
mod outcomes;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use attempt::Attempt;
use circuit::Circuit;
pub use circuit::CircuitState;
use options::Options;

use super::{Layer, chain::IntoLayer};
use crate::{
    batch::{Batch, Committed},
    error::Result,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
    provider::Provider,
};

/// Stops calling a store that is down: calls fail at once instead of waiting for it, and one
/// call at a time tries the store again.
///
/// ```
/// use std::time::Duration;
/// use persistify::{CircuitBreaker, CircuitState, Memory, PersistentMap, ProviderExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// let breaker = CircuitBreaker::new().failures(3).cool_down(Duration::from_secs(2));
/// let store = Memory::new().layer(breaker);
/// let stock = PersistentMap::builder(store.clone(), "stock").open().await?;
/// stock.insert_and_save("apple", 3).await?;
/// assert_eq!(store.state(), CircuitState::Closed);
/// # stock.close().await
/// # }
/// ```
///
/// - **Closed**: all calls go to the store. The breaker opens after [`failures`](Self::failures)
///   failed calls in a row, or at a [failure rate](Self::failure_rate).
/// - **Open**: for the [cool-down](Self::cool_down), loads, commits, pings, `maps` and
///   `drop_map` fail at once. The next call after it is the probe.
/// - **Half-open**: the probe is on its way, and all other calls still fail at once. If the
///   store answers it, the breaker closes; if it fails, the breaker opens again. If the caller
///   of a probe gives up within 100 milliseconds, the next call is the probe. After a cool-down
///   without an answer, the next call is a further probe, so the breaker is never stuck.
///
/// All clones, and so all maps of the provider, share the state: if one map finds the store
/// down, the others do not wait for their own time limits. When the breaker closes, it wakes
/// the maps that are [`Down`](crate::Health::Down), through the
/// [heartbeat](Provider::heartbeat) of the store.
///
/// # Which calls count as failed
///
/// A call, or a page of a load, that ends with
/// [`Unavailable`](crate::ErrorKind::Unavailable), panics, or is dropped without an answer
/// after 100 milliseconds or more, as by a time limit
/// ([`commit_timeout`](crate::Builder::commit_timeout)). Every other error is the answer of
/// a store that works, and counts as a success. A call that is dropped sooner does not
/// count. Neither does a page that was read, or that ends with another error: the first answer
/// to the load has counted. `release` and `close` always reach the store, and never count.
///
/// # Errors
///
/// - `Unavailable` while the breaker is open. [`may_have_applied`](crate::Error::may_have_applied)
///   is false, because nothing was sent. This concerns the refused call only: if an earlier
///   attempt at the same batch has an unknown outcome, that outcome stays unknown. The
///   [source](std::error::Error::source) is the last error of the store.
/// - `Invalid`, from the first call and thus from the opening of a map, if an option is out of
///   its bounds.
///
/// # With a map
///
/// The map retries and probes as always, through the breaker. A call that waits for a save
/// gets an attempt at once, which fails at once while the breaker is open. A refused attempt
/// delays a map until its next attempt or until another call closes the breaker: while it
/// retries, by the cool-down and one pause between retries; once it is `Down`, by up to one
/// [`probe_delay`](crate::RetryPolicy::probe_delay). Set a cool-down that is shorter than both
/// `probe_delay` and the [patience](crate::RetryPolicy::patience) of the maps.
///
/// # When not to use it
///
/// - For one map on a store that fails fast, such as a local file: the map spaces its attempts
///   itself. The breaker is for several maps on a store that fails slowly: behind a network that
///   drops packets, or on an overloaded server.
///
/// # Order of layers
///
/// Put it directly around the store. Layers that can answer while the store is down, such as
/// `Failover` and `Journaled`, go above it. A `Metered` above it also measures the calls that
/// fail at once; one below it measures only those that reach the store.
///
/// # Cost
///
/// Each call, and each page of a load, takes a short lock before and after its I/O, and reads
/// the clock twice. A call that fails at once takes one lock, reads the clock once, and clones
/// an `Arc`. Cancel safety is that of the provider.
#[derive(Clone, Debug)]
pub struct CircuitBreaker<P = ()> {
    inner: P,
    circuit: Arc<Circuit>,
}

impl CircuitBreaker {
    /// Creates a breaker with the default options, for
    /// [`ProviderExt::layer`](crate::ProviderExt::layer).
    pub fn new() -> Self {
        Self::of(Options::default())
    }

    /// Sets how many calls in a row have to fail for the breaker to open, all within the
    /// [window](Self::window); 1 to 10,000, 5 by default.
    #[must_use]
    pub fn failures(self, failures: usize) -> Self {
        self.with(|options| options.failures = failures)
    }

    /// Also opens the breaker if at least this share of the last `calls` calls has failed, all
    /// within the [window](Self::window). `rate` is above 0 and at most 1, `calls` is 1 to
    /// 10,000. Off by default.
    #[must_use]
    pub fn failure_rate(self, rate: f64, calls: usize) -> Self {
        self.with(|options| options.failure_rate = Some((rate, calls)))
    }

    /// Sets how long an outcome counts; above zero, 5 minutes by default: twice the time that
    /// five calls in a row take if each hangs until the default `commit_timeout` of 30 seconds.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.with(|options| options.window = window)
    }

    /// Sets how long the breaker stays open before it lets a probe through; above zero,
    /// 5 seconds by default.
    #[must_use]
    pub fn cool_down(self, cool_down: Duration) -> Self {
        self.with(|options| options.cool_down = cool_down)
    }

    /// Names the store in the log, and as the label `provider` of the
    /// [metrics](crate#metrics); `main` by default.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        self.with(|options| options.name = name.into())
    }

    fn with(self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = self.circuit.options.clone();
        change(&mut options);
        Self::of(options)
    }

    fn of(options: Options) -> Self {
        Self {
            inner: (),
            circuit: Arc::new(Circuit::new(options, None)),
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> CircuitBreaker<P> {
    /// The state of the breaker. It stays [`Open`](CircuitState::Open) after the cool-down
    /// until the next call.
    pub fn state(&self) -> CircuitState {
        *self.circuit.state.borrow()
    }

    /// Subscribes to the state of the breaker.
    pub fn watch(&self) -> watch::Receiver<CircuitState> {
        self.circuit.state.subscribe()
    }
}

impl<P: Provider> IntoLayer<P> for CircuitBreaker {
    type Layer = CircuitBreaker<P>;

    fn into_layer(self, inner: P) -> CircuitBreaker<P> {
        // A new circuit: two providers in clones of one breaker do not share it.
        let circuit = Circuit::new(self.circuit.options.clone(), inner.heartbeat());
        #[cfg(feature = "metrics")]
        {
            Circuit::describe();
            circuit.report();
        }
        CircuitBreaker {
            inner,
            circuit: Arc::new(circuit),
        }
    }
}

/// `release` and `close` are always forwarded: they free resources of the provider, and an open
/// breaker must not keep a program from ending. They do not count, because many providers
/// answer them without the store.
#[async_trait]
impl<P: Provider> Layer for CircuitBreaker<P> {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let call = Attempt::begin(&self.circuit)?;
        // The first answer is a success: it has the horizon, which only the store knows.
        let mut load = call.end(self.inner.load(map, wanted).await)?;
        let pages = (load.pages, &*self.circuit);
        load.pages = stream::unfold(pages, |(mut pages, circuit)| async move {
            let page = Attempt::page(circuit);
            let read = page.end_of_page(pages.next().await)?;
            Some((read, (pages, circuit)))
        })
        .boxed();
        Ok(load)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let call = Attempt::begin(&self.circuit)?;
        call.end(self.inner.commit(batch).await)
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        let call = Attempt::begin(&self.circuit)?;
        call.end(self.inner.maps().await)
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let call = Attempt::begin(&self.circuit)?;
        call.end(self.inner.drop_map(map).await)
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        let call = Attempt::begin(&self.circuit)?;
        call.end(self.inner.ping().await)
    }
}
