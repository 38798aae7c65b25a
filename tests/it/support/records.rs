//! Reads of a store without a map.

use std::{collections::HashMap, sync::Arc};

use persistify::{Error, MapName, Provider, Record, Result, Wanted};
use serde::de::DeserializeOwned;

use super::map_name;

/// The records of the map `map`, by key.
pub(crate) async fn records(store: &dyn Provider) -> HashMap<String, Record> {
    let records = load(store, &map_name(), Wanted::All).await.unwrap();
    let by_key = records.into_iter().map(|r| (r.key.to_string(), r));
    by_key.collect()
}

/// The values of the map `map`, by key.
pub(crate) async fn stored_values<V: DeserializeOwned>(store: &dyn Provider) -> HashMap<String, V> {
    let records = records(store).await.into_iter();
    let decode = |record: Record| serde_json::from_slice(&record.value.unwrap().bytes).unwrap();
    records.map(|(key, record)| (key, decode(record))).collect()
}

/// All records of a map, in the order of their keys.
pub(crate) async fn all(from: &dyn Provider, map: &MapName) -> Vec<Record> {
    sorted(from, map, Wanted::All).await
}

/// The result of a load, in the order of the keys.
pub(crate) async fn sorted(from: &dyn Provider, map: &MapName, wanted: Wanted) -> Vec<Record> {
    let mut records = load(from, map, wanted).await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records
}

pub(crate) async fn load(
    from: &dyn Provider,
    map: &MapName,
    wanted: Wanted,
) -> Result<Vec<Record>> {
    from.load(map, wanted).await?.into_records().await
}

pub(crate) async fn one(from: &dyn Provider, map: &MapName, key: &str) -> Option<Record> {
    let keys: Arc<[Arc<str>]> = Arc::from([Arc::from(key)]);
    let records = load(from, map, Wanted::Keys(keys)).await.unwrap();
    assert!(records.len() <= 1);
    records.into_iter().next()
}

pub(crate) async fn text_of(from: &dyn Provider, map: &MapName, key: &str) -> Option<String> {
    let record = one(from, map, key).await;
    record.map(|record| text(&record).to_owned())
}

pub(crate) fn text(record: &Record) -> &str {
    std::str::from_utf8(&record.value.as_ref().unwrap().bytes).unwrap()
}

/// Keys and JSON texts.
pub(crate) fn pairs(records: &[Record]) -> Vec<(String, String)> {
    let pair = |record: &Record| (record.key.to_string(), text(record).to_owned());
    records.iter().map(pair).collect()
}

pub(crate) fn error<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.expect_err("this must fail")
}
