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

/// Stops calling a store that is down: calls fail at once instead of waiting for it, and
/// the store is tried again by one call at a time.
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
///   store answers it, the breaker closes; if it fails, the breaker opens again. A probe
///   whose caller gives up at once makes room for the next call, and after a cool-down
///   without an answer the next call is a further probe, so the breaker is never stuck.
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
/// count.
///
/// # Errors
///
/// Of an open breaker: `Unavailable`, and [`may_have_applied`](crate::Error::may_have_applied)
/// is false, because nothing was sent. It speaks of this call only: if an earlier attempt at
/// the same batch has an unknown outcome, that stays unknown. The
/// [source](std::error::Error::source) is the last error of the store. An option out of its
/// bounds is `Invalid`, at the first call and thus when a map is opened.
///
/// # With a map
///
/// The map retries and probes as always, through the breaker. A call that waits for a save
/// gets an attempt at once, which fails at once while the breaker is open. A map recovers
/// at the latest one cool-down later than without the breaker, so the cool-down should be
/// shorter than the [patience](crate::RetryPolicy::patience) of the maps.
///
/// # When not to use it
///
/// One map on a store that fails fast, such as a local file, gains nothing: it spaces its
/// attempts by itself. The breaker is for several maps on a store whose failures are slow:
/// a network that drops packets, an overloaded server.
///
/// # Order of layers
///
/// Directly around the store. Above it goes all that has an answer of its own while the
/// store is down. A layer above that counts or times calls sees the calls that fail at once,
/// one below sees only those that reach the store.
///
/// # Cost
///
/// A call takes a short lock before and after it, never over I/O, and reads the clock twice:
/// well under a microsecond. A call that fails at once takes one lock and clones an `Arc`.
/// Dropping the future of a call is as safe as without the layer.
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

    /// Also opens the breaker if this share of the last `calls` calls has failed, all
    /// within the [window](Self::window): above 0 and at most 1, of 1 to 10,000 calls. Off
    /// by default.
    #[must_use]
    pub fn failure_rate(self, rate: f64, calls: usize) -> Self {
        self.with(|options| options.failure_rate = Some((rate, calls)))
    }

    /// Sets how long an outcome counts; above zero, 5 minutes by default, which is enough
    /// for five calls that hang until the default time limit of a map.
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

/// `release` and `close` are forwarded always: they free what the provider holds, and
/// a program that ends must not be held up by an open breaker. They do not count either,
/// because many providers answer them without the store.
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
