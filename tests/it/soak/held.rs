//! A store on a real disk, in paused time.

use std::sync::Arc;

use persistify::{
    Batch, Capabilities, Committed, Heartbeat, Incarnation, Load, MapName, Provider, Result,
    Wanted, async_trait,
};
use tokio::{runtime::Handle, sync::watch, task::spawn_blocking};

/// Holds the paused time while the store works. No operation then times out because of a slow
/// disk, and a history takes only as long as the disk needs.
#[derive(Clone, Debug)]
pub(super) struct Held {
    inner: Arc<dyn Provider>,
    /// Whether the store has no disk to wait for.
    at_once: bool,
    /// The number of calls in flight, including those that their callers gave up.
    calls: Arc<watch::Sender<usize>>,
}

struct Ongoing(Arc<watch::Sender<usize>>);

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

impl Held {
    pub(super) fn new(inner: Arc<dyn Provider>) -> Self {
        Self {
            inner,
            at_once: false,
            calls: Arc::default(),
        }
    }

    pub(super) fn at_once(inner: Arc<dyn Provider>) -> Self {
        Self {
            at_once: true,
            ..Self::new(inner)
        }
    }

    /// Waits until no call is in flight.
    pub(super) async fn idle(&self) {
        // This cannot fail: the sender is borrowed.
        let _ = self.calls.subscribe().wait_for(|calls| *calls == 0).await;
    }

    /// Runs a call on a blocking thread, which keeps paused time from advancing.
    async fn held<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.calls.send_modify(|calls| *calls += 1);
        let ongoing = Ongoing(self.calls.clone());
        if self.at_once {
            let _ongoing = ongoing;
            return call.await;
        }
        let done = spawn_blocking(move || {
            let _ongoing = ongoing;
            Handle::current().block_on(call)
        });
        done.await.expect("a store does not panic")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Held {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let (inner, map) = (self.inner.clone(), map.clone());
        let load = async move {
            let load = inner.load(&map, wanted).await?;
            let horizon = load.horizon;
            Ok((horizon, load.into_records().await?))
        };
        let (horizon, records) = self.held(load).await?;
        Ok(Load::of(horizon, records))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let (inner, batch) = (self.inner.clone(), batch.clone());
        self.held(async move { inner.commit(&batch).await }).await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        let (inner, map) = (self.inner.clone(), map.clone());
        self.held(async move { inner.release(&map).await }).await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        let inner = self.inner.clone();
        self.held(async move { inner.maps().await }).await
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let (inner, map) = (self.inner.clone(), map.clone());
        self.held(async move { inner.drop_map(&map).await }).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        let inner = self.inner.clone();
        self.held(async move { inner.ping().await }).await
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        self.inner.heartbeat()
    }

    async fn close(&self) -> Result<()> {
        let inner = self.inner.clone();
        self.held(async move { inner.close().await }).await
    }
}
