//! What a store holds, whatever a map believes; and another one who writes to it.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use persistify::{
    Batch, BatchId, Change, MapBatch, MapName, Payload, Provider, Record, Revision, Wanted,
    WriterId,
};
use serde::de::DeserializeOwned;

pub(crate) fn name() -> MapName {
    MapName::new("map").unwrap()
}

/// The records of the map `map`, by key.
pub(crate) async fn records(store: &dyn Provider) -> HashMap<String, Record> {
    let name = name();
    let load = store.load(&name, Wanted::All).await.unwrap();
    let records = load.into_records().await.unwrap();
    records
        .into_iter()
        .map(|r| (r.key.to_string(), r))
        .collect()
}

/// The values of the map `map`, by key.
pub(crate) async fn stored<V: DeserializeOwned>(store: &dyn Provider) -> HashMap<String, V> {
    let records = records(store).await.into_iter();
    let decode = |record: Record| serde_json::from_slice(&record.value.unwrap().bytes).unwrap();
    records.map(|(key, record)| (key, decode(record))).collect()
}

/// What another process writes to the map `map` now.
pub(crate) async fn write_as_another(store: &dyn Provider, changes: Vec<Change>) {
    let id = BatchId::new(WriterId::random(), 1);
    let part = MapBatch::new(name(), changes);
    let batch = Batch::new(id, Revision::ZERO, SystemTime::now(), vec![part]);
    store.commit(&batch).await.unwrap();
}

/// The key holds this JSON text.
pub(crate) fn put(key: &str, json: &str) -> Change {
    Change::put(key, Payload::json(json.to_owned()), None)
}

/// A time that ends well: whole seconds, long ago.
pub(crate) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// Lets every task do what it has to do just now.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
