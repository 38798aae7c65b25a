//! A store under the eyes of a test.

use std::{collections::BTreeMap, time::Duration};

use persistify::{
    Batch, Committed, Load, MapName, Memory, Op, PersistentMap, PersistentMapBuilder, Provider,
    Record, Result, RetryPolicy, Wanted, async_trait, testing::Faulty,
};

pub(crate) type Store = Faulty<Memory>;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// What a plain store is: `load`, `commit`, and nothing beyond.
#[derive(Clone, Debug)]
pub(crate) struct Plain(pub(crate) Memory);

#[async_trait]
impl Provider for Plain {
    async fn load<'a>(&'a self, map: &'a MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.0.load(map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.0.commit(batch).await
    }
}

pub(crate) fn store() -> Store {
    Faulty::new(Memory::new())
}

/// A map of the name `map`, whose delays are known, and which waits for ever
/// for an answer.
pub(crate) fn builder<V: 'static>(store: &Store) -> PersistentMapBuilder<V> {
    PersistentMap::builder(store.clone(), "map")
        .batch(1_000, SECOND)
        .commit_timeout(Duration::MAX)
        .retry(RetryPolicy::default().max_attempts(5).jitter(false))
}

pub(crate) async fn open(store: &Store) -> PersistentMap<u32> {
    builder(store).open().await.unwrap()
}

/// One attempt, and then a probe every second.
pub(crate) fn impatient() -> RetryPolicy {
    RetryPolicy::default()
        .max_attempts(1)
        .probe_delay(SECOND)
        .jitter(false)
}

pub(crate) fn name() -> MapName {
    MapName::new("map").unwrap()
}

pub(crate) async fn records(store: &Store, map: &MapName) -> Vec<Record> {
    let load = store.inner().load(map, Wanted::All).await.unwrap();
    load.into_records().await.unwrap()
}

/// What the store holds: JSON texts by key.
pub(crate) async fn stored_in(store: &Store, map: &MapName) -> BTreeMap<String, String> {
    let text = |record: &Record| {
        let payload = record.value.clone().unwrap();
        String::from_utf8(payload.bytes.to_vec()).unwrap()
    };
    let records = records(store, map).await;
    let pairs = records.iter().map(|r| (r.key.to_string(), text(r)));
    pairs.collect()
}

pub(crate) async fn stored(store: &Store) -> BTreeMap<String, String> {
    stored_in(store, &name()).await
}

/// What a map holds, as the store would have it.
pub(crate) fn in_memory(map: &PersistentMap<u32>) -> BTreeMap<String, String> {
    let pairs = map.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    pairs.collect()
}

/// The keys of a batch, in order.
pub(crate) fn keys(batch: &Batch) -> Vec<String> {
    let changes = batch.maps.iter().flat_map(|part| &part.changes);
    changes.map(|change| change.key.to_string()).collect()
}

/// What a batch says of each key: its JSON text, or nothing for a removal.
pub(crate) fn told(batch: &Batch) -> BTreeMap<String, Option<String>> {
    let changes = batch.maps.iter().flat_map(|part| &part.changes);
    let text = |op: &Op| match op {
        Op::Put { payload, .. } => Some(String::from_utf8(payload.bytes.to_vec()).unwrap()),
        _ => None,
    };
    changes
        .map(|change| (change.key.to_string(), text(&change.op)))
        .collect()
}

/// `{key: value, …}` as it is stored.
pub(crate) fn pairs<const N: usize>(pairs: [(&str, u32); N]) -> BTreeMap<String, String> {
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_string()));
    pairs.into()
}

/// Lets every task that can go on do so.
pub(crate) async fn settle_down() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
