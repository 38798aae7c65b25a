//! Maps in a SQLite file, on real files.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use persistify::{
    Batch, BatchId, Change, Committed, Error, MapBatch, MapName, Payload, Provider, Record, Result,
    Revision, Sqlite, Wanted, WriterId,
};
use rusqlite::Connection;
use tempfile::TempDir;

mod adopted;
mod backups;
mod commits;
mod faults;
mod loads;
mod names;
mod sharing;

/// A folder with the path of a file in it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("maps.db")
    }

    async fn open(&self) -> Sqlite {
        Sqlite::open(self.path()).await.unwrap()
    }

    /// Whether no one has the file open: only then does SQLite change the kind
    /// of its log.
    fn is_free(&self) -> bool {
        let other = self.other();
        other.busy_timeout(Duration::ZERO).unwrap();
        let mode = other.pragma_update_and_check(None, "journal_mode", "DELETE", |row| {
            row.get::<_, String>(0)
        });
        mode.is_ok_and(|mode| mode == "delete")
    }

    /// A thread lets go of the file in its own time.
    fn wait_until_free(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.is_free() {
            assert!(Instant::now() < deadline, "the file is still open");
            std::thread::yield_now();
        }
    }

    /// Another program, with the same file.
    fn other(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
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
        to: &Sqlite,
        map: &MapName,
        changes: Vec<Change>,
    ) -> Result<Committed> {
        let batch = self.changes(map, changes);
        to.commit(&batch).await
    }

    async fn put(&mut self, to: &Sqlite, map: &MapName, key: &str, json: &str) -> Revision {
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

/// What SQLite keeps of a time.
fn whole_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap())
}

/// All records, in the order of their keys.
async fn all(from: &Sqlite, map: &MapName) -> Vec<Record> {
    let mut records = load(from, map, Wanted::All).await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records
}

async fn load(from: &Sqlite, map: &MapName, wanted: Wanted) -> Result<Vec<Record>> {
    from.load(map, wanted).await?.into_records().await
}

async fn one(from: &Sqlite, map: &MapName, key: &str) -> Option<Record> {
    let keys: Arc<[Arc<str>]> = Arc::from([Arc::from(key)]);
    let records = load(from, map, Wanted::Keys(keys)).await.unwrap();
    assert!(records.len() <= 1);
    records.into_iter().next()
}

async fn text_of(from: &Sqlite, map: &MapName, key: &str) -> Option<String> {
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
