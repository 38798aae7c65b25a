//! Maps in PostgreSQL, on a real server.

use std::{
    sync::mpsc,
    time::{Duration, SystemTime},
};

use persistify::{
    Batch, BatchId, Change, Committed, Error, MapBatch, MapName, Payload, Postgres, Provider,
    Record, Result, Revision, Wanted, WriterId,
};

mod adopted;
mod commits;
mod connecting;
mod loads;
mod refused;
pub(crate) mod server;

/// Another program, with the same database: it looks with its own eyes.
///
/// It is a thread of its own, because its client may not wait within a runtime.
pub(crate) struct Witness {
    ask: mpsc::Sender<(String, mpsc::Sender<Answer>)>,
}

/// The rows, as text, or what the server said.
type Answer = std::result::Result<Vec<Vec<Option<String>>>, postgres::Error>;

impl Witness {
    pub(crate) fn new(url: String) -> Self {
        let (ask, asked) = mpsc::channel::<(String, mpsc::Sender<Answer>)>();
        std::thread::spawn(move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            for (sql, answer) in asked {
                let rows = client.simple_query(&sql).map(|rows| texts(&rows));
                answer.send(rows).unwrap();
            }
        });
        Self { ask }
    }

    pub(crate) fn try_run(&self, sql: &str) -> Answer {
        let (answer, answered) = mpsc::channel();
        self.ask.send((sql.to_owned(), answer)).unwrap();
        answered.recv().unwrap()
    }

    pub(crate) fn run(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_run(sql).unwrap()
    }

    /// The one cell that a query answers with.
    pub(crate) fn cell(&self, sql: &str) -> Option<String> {
        let mut rows = self.run(sql);
        assert_eq!(rows.len(), 1, "{sql}");
        rows.remove(0).remove(0)
    }

    fn text(&self, sql: &str) -> String {
        self.cell(sql).unwrap()
    }
}

fn texts(messages: &[postgres::SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    let rows = messages.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let cells = |row: &postgres::SimpleQueryRow| {
        let cells = (0..row.len()).map(|n| row.get(n).map(str::to_owned));
        cells.collect()
    };
    rows.map(cells).collect()
}

/// A fresh database, and another program that is connected to it.
fn database() -> (String, Witness) {
    let url = server::server().url();
    (url.clone(), Witness::new(url))
}

/// Someone who writes, one batch after the other.
struct Pen {
    id: WriterId,
    sequence: u64,
    at: SystemTime,
}

impl Pen {
    fn new() -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        Self {
            id: WriterId::random(),
            sequence: 0,
            at: SystemTime::UNIX_EPOCH
                + Duration::from_millis(u64::try_from(since.as_millis()).unwrap()),
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

fn name(name: &str) -> MapName {
    MapName::new(name).unwrap()
}

fn put(key: &str, json: &str) -> Change {
    Change::put(key, Payload::json(json.to_owned()), None)
}

async fn load(from: &Postgres, map: &MapName, wanted: Wanted) -> Result<Vec<Record>> {
    from.load(map, wanted).await?.into_records().await
}

async fn all(from: &Postgres, map: &MapName) -> Vec<Record> {
    let mut records = load(from, map, Wanted::All).await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records
}

async fn one(from: &Postgres, map: &MapName, key: &str) -> Option<Record> {
    let keys = Wanted::Keys([key.into()].into());
    load(from, map, keys).await.unwrap().pop()
}

fn text(record: &Record) -> String {
    let payload = record.value.clone().unwrap();
    String::from_utf8(payload.bytes.to_vec()).unwrap()
}

fn pairs(records: &[Record]) -> Vec<(String, String)> {
    let pair = |record: &Record| (record.key.to_string(), text(record));
    records.iter().map(pair).collect()
}

fn error<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.unwrap_err()
}
