//! Maps that are opened with options, and their contents.

use std::{collections::BTreeMap, time::Duration};

use persistify::{
    CachingMap, CachingMapBuilder, PersistentMap, PersistentMapBuilder, Provider, RetryPolicy,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{SECOND, Store};

/// Opens a map with these options: `as_it_is` for the defaults, `steady` for
/// delays that a test can compute.
pub(crate) async fn open<V>(
    provider: impl Provider,
    name: &str,
    options: impl FnOnce(PersistentMapBuilder<V>) -> PersistentMapBuilder<V>,
) -> PersistentMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let opening = options(PersistentMap::builder(provider, name)).open();
    opening.await.unwrap()
}

/// Opens a map whose entries expire, with these options.
pub(crate) async fn open_caching<V>(
    provider: impl Provider,
    name: &str,
    options: impl FnOnce(CachingMapBuilder<V>) -> CachingMapBuilder<V>,
) -> CachingMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let opening = options(CachingMap::builder(provider, name)).open();
    opening.await.unwrap()
}

/// The default options.
pub(crate) fn as_it_is<B>(builder: B) -> B {
    builder
}

/// Delays without jitter, five attempts, and no limit to a commit.
pub(crate) fn steady<V: 'static>(builder: PersistentMapBuilder<V>) -> PersistentMapBuilder<V> {
    builder
        .batch(1_000, SECOND)
        .commit_timeout(Duration::MAX)
        .retry(RetryPolicy::default().max_attempts(5).jitter(false))
}

/// The map `map` of a store with `steady` options, before it is opened.
pub(crate) fn builder<V: 'static>(store: &Store) -> PersistentMapBuilder<V> {
    steady(PersistentMap::builder(store.clone(), "map"))
}

/// Opens the map `map` of a store with `steady` options.
pub(crate) async fn open_numbers(store: &Store) -> PersistentMap<u32> {
    open(store.clone(), "map", steady).await
}

/// One attempt, and then a probe every second.
pub(crate) fn impatient() -> RetryPolicy {
    RetryPolicy::default()
        .max_attempts(1)
        .probe_delay(SECOND)
        .jitter(false)
}

/// The entries of a map, as a store would hold them.
pub(crate) fn in_memory(map: &PersistentMap<u32>) -> BTreeMap<String, String> {
    let pairs = map.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    pairs.collect()
}

/// These entries, as a store would hold them.
pub(crate) fn pairs<const N: usize>(pairs: [(&str, u32); N]) -> BTreeMap<String, String> {
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_string()));
    pairs.into()
}
