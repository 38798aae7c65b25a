//! Someone who writes to a store without a map, and what is read back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use persistify::{
    Batch, BatchId, Change, Committed, Error, MapBatch, MapName, Provider, Record, Result,
    Revision, Wanted, WriterId,
};

use crate::stored::put;

/// Someone who writes, one batch after the other.
pub(crate) struct Pen {
    pub(crate) id: WriterId,
    sequence: u64,
    pub(crate) at: SystemTime,
}

impl Pen {
    pub(crate) fn new() -> Self {
        Self {
            id: WriterId::random(),
            sequence: 0,
            at: whole_millis(SystemTime::now()),
        }
    }

    pub(crate) fn batch(&mut self, maps: Vec<MapBatch>) -> Batch {
        self.sequence += 1;
        let id = BatchId::new(self.id, self.sequence);
        Batch::new(id, Revision::ZERO, self.at, maps)
    }

    pub(crate) fn changes(&mut self, map: &MapName, changes: Vec<Change>) -> Batch {
        self.batch(vec![MapBatch::new(map.clone(), changes)])
    }

    pub(crate) async fn write(
        &mut self,
        to: &dyn Provider,
        map: &MapName,
        changes: Vec<Change>,
    ) -> Result<Committed> {
        let batch = self.changes(map, changes);
        to.commit(&batch).await
    }

    pub(crate) async fn put(
        &mut self,
        to: &dyn Provider,
        map: &MapName,
        key: &str,
        json: &str,
    ) -> Revision {
        let committed = self.write(to, map, vec![put(key, json)]).await;
        committed.unwrap().revision.unwrap()
    }
}

/// What the stores keep of a time.
fn whole_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn name(name: &str) -> MapName {
    MapName::new(name).unwrap()
}

/// All records, in the order of their keys.
pub(crate) async fn all(from: &dyn Provider, map: &MapName) -> Vec<Record> {
    sorted(from, map, Wanted::All).await
}

/// What is wanted, in the order of the keys.
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

/// Keys and values.
pub(crate) fn pairs(records: &[Record]) -> Vec<(String, String)> {
    let pair = |record: &Record| (record.key.to_string(), text(record).to_owned());
    records.iter().map(pair).collect()
}

pub(crate) fn error<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.expect_err("this must fail")
}
