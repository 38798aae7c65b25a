//! Layers: providers that wrap providers.

mod circuit_breaker;
#[cfg(any(feature = "lz4", feature = "zstd"))]
mod compressed;
#[cfg(feature = "encryption")]
mod encrypted;
mod failover;
#[cfg(feature = "journal")]
mod journaled;
#[cfg(feature = "metrics")]
mod metered;
mod namespaced;
mod sharded;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use persistify::{
    Batch, BatchId, Capabilities, CircuitBreaker, Committed, Failover, Heartbeat, Incarnation,
    Layer, Load, MapName, Memory, Namespaced, Provider, ProviderExt, Result, Revision, Sharded,
    Wanted, WriterId, async_trait,
    testing::{Faulty, conformance},
};

/// Records which of its methods were called. It implements every method, so that a new one has to
/// be added here.
#[derive(Clone, Debug, Default)]
struct Noting {
    store: Memory,
    called: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Noting {
    fn note(&self, method: &'static str) {
        self.called.lock().unwrap().insert(method);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Noting {
    fn capabilities(&self) -> Capabilities {
        self.note("capabilities");
        self.store.capabilities()
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        self.note("heartbeat");
        self.store.heartbeat()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.note("load");
        self.store.load(map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.note("commit");
        self.store.commit(batch).await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        self.note("release");
        self.store.release(map).await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        self.note("maps");
        self.store.maps().await
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        self.note("drop_map");
        self.store.drop_map(map).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        self.note("ping");
        self.store.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.note("close");
        self.store.close().await
    }
}

/// A layer that changes nothing.
#[derive(Debug)]
struct Plain<P>(P);

impl<P: Provider> Layer for Plain<P> {
    fn inner(&self) -> &dyn Provider {
        &self.0
    }
}

async fn call_every_method(provider: &dyn Provider) {
    let map = MapName::new("map").unwrap();
    let id = BatchId::new(WriterId::random(), 1);
    let batch = Batch::new(id, Revision::ZERO, SystemTime::now(), []);
    provider.capabilities();
    provider.heartbeat();
    provider.load(&map, Wanted::All).await.unwrap();
    provider.commit(&batch).await.unwrap();
    provider.release(&map).await.unwrap();
    provider.maps().await.unwrap();
    provider.drop_map(&map).await.unwrap();
    provider.ping().await.unwrap();
    provider.close().await.unwrap();
}

async fn forwards_every_method(wrap: impl FnOnce(Noting) -> Box<dyn Provider>) {
    let (bare, wrapped) = (Noting::default(), Noting::default());
    call_every_method(&bare).await;
    call_every_method(&*wrap(wrapped.clone())).await;
    assert_eq!(
        *wrapped.called.lock().unwrap(),
        *bare.called.lock().unwrap()
    );
}

#[tokio::test]
async fn every_layer_forwards_every_method() {
    forwards_every_method(|inner| Box::new(Plain(inner))).await;
    forwards_every_method(|inner| Box::new(inner.layer(Plain).layer(Plain))).await;
    forwards_every_method(|inner| Box::new(Faulty::new(inner))).await;
    forwards_every_method(|inner| Box::new(inner.layer(CircuitBreaker::new()))).await;
    #[cfg(feature = "metrics")]
    forwards_every_method(|inner| Box::new(inner.layer(persistify::Metered::new("main")))).await;
    forwards_every_method(|inner| Box::new(Namespaced::new(inner, "acme").unwrap())).await;
    #[cfg(feature = "lz4")]
    forwards_every_method(|inner| Box::new(inner.layer(persistify::Compressed::lz4()))).await;
    #[cfg(feature = "encryption")]
    forwards_every_method(|inner| Box::new(inner.layer(encrypted::layer()))).await;
    forwards_every_method(|inner| Box::new(Sharded::new([("a", inner)]).unwrap())).await;
    forwards_every_method(|inner| Box::new(inner.layer(Failover::to(Memory::new())))).await;
    #[cfg(feature = "journal")]
    {
        let folder = tempfile::tempdir().unwrap();
        let layer = persistify::Journaled::new(folder.path());
        forwards_every_method(|inner| Box::new(inner.layer(layer))).await;
    }
    forwards_every_method(|inner| Box::new(Arc::new(inner))).await;
    forwards_every_method(|inner| Box::new(Arc::new(inner) as Arc<dyn Provider>)).await;
    forwards_every_method(|inner| Box::new(Box::new(inner) as Box<dyn Provider>)).await;
}

#[tokio::test]
async fn a_layer_that_changes_nothing_conforms() {
    let store = Memory::new();
    conformance(async || Ok(Plain(store.clone()))).await;
}
