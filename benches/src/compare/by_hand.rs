//! Hand-written stores, and stores on an engine, without a map in memory.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, SystemTime},
};

use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};
use persistify_benches::Customer;
use redb::TableDefinition;
use rusqlite::{Connection, params};
use tempfile::TempDir;

use crate::{
    folder,
    work::{Role, timed_apart},
};

pub const REDB_TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("entries");

const EACH: &str = "each commit";

const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at INTEGER);";

const UPSERT: &str = "INSERT INTO entries (key, value, updated_at) VALUES (?1, ?2, ?3)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at";

/// A store whose writes are durable and atomic when they return.
pub trait Store {
    /// Encodes and writes these entries in one commit.
    fn write(&mut self, keys: &[String], customers: &[Customer]);
}

/// A store in a folder of its own.
pub struct ByHand {
    pub role: Role,
    pub name: &'static str,
    pub fsync: &'static str,
    store: Box<dyn Store + Send>,
    _folder: TempDir,
}

impl ByHand {
    fn new<S: Store + Send + 'static>(
        role: Role,
        name: &'static str,
        fsync: &'static str,
        open: impl Fn(&Path) -> S,
    ) -> Self {
        let folder = folder();
        Self {
            role,
            name,
            fsync,
            store: Box::new(open(folder.path())),
            _folder: folder,
        }
    }

    /// The limit of a work with a commit per write.
    pub fn append() -> Self {
        Self::new(Role::Limit, "append, fdatasync", EACH, Append::open)
    }

    pub fn sqlite() -> Self {
        Self::new(Role::Peer, "rusqlite by hand", EACH, SqliteByHand::open)
    }

    pub fn all_engines() -> Vec<Self> {
        vec![
            Self::sqlite(),
            Self::new(Role::Peer, "redb", EACH, Redb::open),
            Self::new(Role::Peer, "fjall", EACH, Fjall::open),
            Self::new(Role::LessDurable, "sled", "sync_file_range", Sled::open),
        ]
    }

    /// Times the writes of the entries, with so many per commit.
    pub fn write(&mut self, keys: &[String], customers: &[Customer], batch: usize) -> Duration {
        timed_apart(|| {
            for (keys, customers) in keys.chunks(batch).zip(customers.chunks(batch)) {
                self.store.write(keys, customers);
            }
        })
    }
}

/// A file to which entries are appended. Each write ends with an fdatasync.
pub struct Append {
    file: File,
    text: Vec<u8>,
}

impl Append {
    pub fn open(folder: &Path) -> Self {
        Self {
            file: File::create(folder.join("appended")).expect("a file"),
            text: Vec::new(),
        }
    }
}

/// Encodes each value.
pub fn jsons(customers: &[Customer]) -> Vec<String> {
    customers.iter().map(Customer::json).collect()
}

/// Appends the entries to the text, one JSON object per line.
pub fn encode(text: &mut Vec<u8>, keys: &[String], customers: &[Customer]) {
    for (key, customer) in keys.iter().zip(customers) {
        serde_json::to_writer(&mut *text, &(key, customer)).expect("JSON");
        text.push(b'\n');
    }
}

impl Store for Append {
    fn write(&mut self, keys: &[String], customers: &[Customer]) {
        self.text.clear();
        encode(&mut self.text, keys, customers);
        self.file.write_all(&self.text).expect("appended entries");
        self.file.sync_data().expect("synced entries");
    }
}

/// SQLite by rusqlite, with the durability settings of `persistify::Sqlite`.
pub struct SqliteByHand(Connection);

impl SqliteByHand {
    pub fn open(folder: &Path) -> Self {
        let connection = Connection::open(folder.join("by_hand.db")).expect("an open file");
        connection.execute_batch(SCHEMA).expect("a table");
        Self(connection)
    }

    pub fn execute(&self, sql: &str) {
        self.0.execute_batch(sql).expect("a statement that runs");
    }

    pub fn upsert(&self, keys: &[String], values: &[String]) {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
        let now = i64::try_from(since_1970.as_millis()).expect("a time");
        let mut upsert = self.0.prepare_cached(UPSERT).expect("a statement");
        for (key, value) in keys.iter().zip(values) {
            let written = upsert.execute(params![key, value, now]);
            written.expect("a written row");
        }
    }

    pub fn close(self) {
        self.0.close().expect("a closed file");
    }
}

impl Store for SqliteByHand {
    fn write(&mut self, keys: &[String], customers: &[Customer]) {
        self.execute("BEGIN IMMEDIATE");
        self.upsert(keys, &jsons(customers));
        self.execute("COMMIT");
    }
}

pub struct Redb(pub redb::Database);

impl Redb {
    pub fn open(folder: &Path) -> Self {
        Self(redb::Database::create(folder.join("by_hand.redb")).expect("an open file"))
    }
}

/// Inserts the entries; the commit of the transaction makes them durable.
pub fn insert_into_redb(transaction: &redb::WriteTransaction, keys: &[String], values: &[String]) {
    let mut table = transaction.open_table(REDB_TABLE).expect("a table");
    for (key, value) in keys.iter().zip(values) {
        let inserted = table.insert(key.as_str(), value.as_str());
        inserted.expect("an inserted entry");
    }
}

impl Store for Redb {
    fn write(&mut self, keys: &[String], customers: &[Customer]) {
        let transaction = self.0.begin_write().expect("a transaction");
        insert_into_redb(&transaction, keys, &jsons(customers));
        transaction.commit().expect("a commit");
    }
}

pub struct Fjall {
    pub database: fjall::Database,
    pub entries: Keyspace,
}

impl Fjall {
    pub fn open(folder: &Path) -> Self {
        let database = fjall::Database::builder(folder.join("fjall")).open();
        let database = database.expect("an open database");
        let entries = database.keyspace("entries", KeyspaceCreateOptions::default);
        Self {
            entries: entries.expect("a keyspace"),
            database,
        }
    }
}

impl Store for Fjall {
    fn write(&mut self, keys: &[String], customers: &[Customer]) {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (key, customer) in keys.iter().zip(customers) {
            batch.insert(&self.entries, key.as_str(), customer.json());
        }
        batch.commit().expect("a commit");
    }
}

pub struct Sled(pub sled::Db);

impl Sled {
    pub fn open(folder: &Path) -> Self {
        Self(sled::open(folder.join("sled")).expect("an open database"))
    }
}

impl Store for Sled {
    fn write(&mut self, keys: &[String], customers: &[Customer]) {
        let mut batch = sled::Batch::default();
        for (key, customer) in keys.iter().zip(customers) {
            batch.insert(key.as_str(), customer.json().as_str());
        }
        self.0.apply_batch(batch).expect("an applied batch");
        self.0.flush().expect("a flush");
    }
}
