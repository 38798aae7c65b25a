//! Maps in Postgres, on real servers.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use persistify::{
    Batch, BatchId, Change, Committed, Error, ErrorKind, Expect, MapBatch, MapName, Otherwise,
    Payload, PersistentMap, Postgres, Provider, Record, Result, Revision, Tls, ValueType, Wanted,
    WriterId,
};

mod adopted;
mod commits;
mod conditions;
mod conforms;
mod connecting;
mod cuts;
mod database;
mod keeper;
mod kit;
mod loads;
mod outages;
mod pgbouncer;
mod proxy;
mod refused;
mod sample;
mod server;
mod sessions;
mod shapes;
mod texts;
mod tls;
mod together;
mod trouble;
mod wire;
mod witness;
mod writers;

pub(crate) use database::Database;
pub(crate) use server::{Server, Stop};
use witness::Witness;

impl Database {
    async fn connect(&self) -> Postgres {
        Postgres::connect(self.url()).await.unwrap()
    }
}

/// A fresh database, and another program that is connected to it: it is there
/// for as long as that one is.
fn database() -> (String, Witness) {
    let database = Database::fresh();
    let url = database.url().to_owned();
    (url, Witness::of(database))
}

/// The table of a map with a plain name.
fn table_of(map: &str) -> String {
    format!("map_{map}")
}

/// Someone who writes, one batch after the other.
struct Pen {
    id: WriterId,
    sequence: u64,
    at: SystemTime,
}

impl Pen {
    fn new() -> Self {
        Self {
            id: WriterId::random(),
            sequence: 0,
            at: whole_millis(SystemTime::now()),
        }
    }

    fn batch(&mut self, maps: Vec<MapBatch>) -> Batch {
        self.sequence += 1;
        let id = BatchId::new(self.id, self.sequence);
        Batch::new(id, Revision::ZERO, self.at, maps)
    }

    fn changes(&mut self, map: &MapName, changes: Vec<Change>) -> Batch {
        self.batch(vec![MapBatch::new(map.clone(), changes)])
    }

    async fn write(
        &mut self,
        to: &Postgres,
        map: &MapName,
        changes: Vec<Change>,
    ) -> Result<Committed> {
        let batch = self.changes(map, changes);
        to.commit(&batch).await
    }

    async fn put(&mut self, to: &Postgres, map: &MapName, key: &str, json: &str) -> Revision {
        let committed = self.write(to, map, vec![put(key, json)]).await;
        committed.unwrap().revision.unwrap()
    }
}

fn whole_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap())
}

fn name(name: &str) -> MapName {
    MapName::new(name).unwrap()
}

fn put(key: &str, json: &str) -> Change {
    Change::put(key, Payload::json(json.to_owned()), None)
}

/// All records, in the order of their keys.
async fn all(from: &Postgres, map: &MapName) -> Vec<Record> {
    let mut records = load(from, map, Wanted::All).await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records
}

async fn load(from: &Postgres, map: &MapName, wanted: Wanted) -> Result<Vec<Record>> {
    from.load(map, wanted).await?.into_records().await
}

async fn one(from: &Postgres, map: &MapName, key: &str) -> Option<Record> {
    let keys: Arc<[Arc<str>]> = Arc::from([Arc::from(key)]);
    let records = load(from, map, Wanted::Keys(keys)).await.unwrap();
    assert!(records.len() <= 1);
    records.into_iter().next()
}

async fn text_of(from: &Postgres, map: &MapName, key: &str) -> Option<String> {
    one(from, map, key).await.map(|record| text(&record))
}

fn text(record: &Record) -> String {
    let bytes = &record.value.as_ref().unwrap().bytes;
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Keys and values.
fn pairs(records: &[Record]) -> Vec<(String, String)> {
    let pair = |record: &Record| (record.key.to_string(), text(record));
    records.iter().map(pair).collect()
}

fn error<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.expect_err("this must fail")
}

/// Until it is so; not for ever.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
