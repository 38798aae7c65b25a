//! Puts from two threads, until the store is closed and everything is durable.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use fjall::PersistMode;
use persistify::{JsonFile, PersistentMap, Provider, Sqlite};
use persistify_benches::{Customer, keys, shuffled, timed};
use pickledb::{PickleDb, PickleDbDumpPolicy, SerializationMethod};
use tokio::runtime::Runtime;

use crate::{
    Bench,
    by_hand::{self, Fjall, Redb, Sled, SqliteByHand},
    folder,
    work::{Role, Row, Work, total},
};

const THREADS: usize = 2;
/// The number of entries that a thread writes to an engine with one writer, before it
/// lets the other thread continue.
const CHUNK: usize = 1_000;

/// A dictionary that threads fill together.
trait Dictionary: Sync {
    /// Encodes and puts these entries.
    fn put(&self, keys: &[String], customers: Vec<Customer>);
    /// Makes all entries durable.
    fn close(self);
}

pub fn run(bench: &Bench) -> Vec<Row> {
    let count = 200_000;
    let keys = shuffled(&keys(count));
    let name = format!("dictionary, {count} puts from {THREADS} threads, then closed");
    let mut work = Work::timed(name, "time until all is durable and closed");
    let runtime = &bench.runtime;
    let (each, last) = ("each batch and close", "once, at close");
    let json = |folder: &Path| Ours::new(runtime, runtime.block_on(JsonFile::open(folder)));
    let sqlite = |folder: &Path| {
        let file = Sqlite::open(folder.join("ours.db"));
        Ours::new(runtime, runtime.block_on(file))
    };
    work.add(Role::Ours, "Persistify JsonFile", each, || {
        total(fill(&keys, json))
    });
    work.add(Role::Ours, "Persistify Sqlite", each, || {
        total(fill(&keys, sqlite))
    });
    let mut add = |role, name, fsync, turn: fn(&[String]) -> Duration| {
        let keys = &keys;
        work.add(role, name, fsync, move || total(turn(keys)));
    };
    add(Role::Peer, "redb, one transaction", last, |keys| {
        fill(keys, OneTransaction::begin)
    });
    add(Role::Peer, "fjall", last, |keys| fill(keys, Fjall::open));
    add(
        Role::LessDurable,
        "sled",
        "sync_file_range at close",
        |keys| fill(keys, Sled::open),
    );
    add(
        Role::Peer,
        "rusqlite by hand, one transaction",
        last,
        |keys| fill(keys, OneSqlite::begin),
    );
    add(Role::LessDurable, "pickledb", "never", |keys| {
        fill(keys, Pickle::open)
    });
    add(Role::Limit, "encode, append, fdatasync", last, |keys| {
        fill(keys, Texts::open)
    });
    work.run(bench.rounds(9, 3))
}

/// Times the puts and the closing; the values are already in memory, and the store is
/// open.
fn fill<D: Dictionary>(keys: &[String], open: impl Fn(&Path) -> D) -> Duration {
    let folder = folder();
    let dictionary = open(folder.path());
    let part = keys.len().div_ceil(THREADS);
    let parts = keys.chunks(part).map(|keys| {
        let customers: Vec<_> = (0..keys.len()).map(|n| Customer::new(n, 0)).collect();
        (keys, customers)
    });
    let parts: Vec<_> = parts.collect();
    timed(|| {
        thread::scope(|scope| {
            for (keys, customers) in parts {
                scope.spawn(|| dictionary.put(keys, customers));
            }
        });
        dictionary.close();
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A map with default options, so that its flusher commits meanwhile.
struct Ours<'r, P> {
    runtime: &'r Runtime,
    provider: P,
    map: PersistentMap<Customer>,
}

impl<'r, P: Provider + Clone> Ours<'r, P> {
    fn new(runtime: &'r Runtime, provider: persistify::Result<P>) -> Self {
        let provider = provider.expect("an open provider");
        let map = PersistentMap::builder(provider.clone(), "bench").open();
        Self {
            runtime,
            map: runtime.block_on(map).expect("an open map"),
            provider,
        }
    }
}

impl<P: Provider> Dictionary for Ours<'_, P> {
    fn put(&self, keys: &[String], customers: Vec<Customer>) {
        for (key, customer) in keys.iter().zip(customers) {
            self.map.insert(key, customer);
        }
    }

    fn close(self) {
        self.runtime.block_on(self.map.close()).expect("all saved");
        let closed = self.runtime.block_on(self.provider.close());
        closed.expect("a closed provider");
    }
}

struct OneTransaction {
    transaction: Mutex<redb::WriteTransaction>,
    _database: Redb,
}

impl OneTransaction {
    fn begin(folder: &Path) -> Self {
        let database = Redb::open(folder);
        let transaction = database.0.begin_write().expect("a transaction");
        Self {
            transaction: Mutex::new(transaction),
            _database: database,
        }
    }
}

impl Dictionary for OneTransaction {
    fn put(&self, keys: &[String], customers: Vec<Customer>) {
        for (keys, customers) in keys.chunks(CHUNK).zip(customers.chunks(CHUNK)) {
            // Encoded before the lock is taken, so that both threads encode.
            let values = by_hand::jsons(customers);
            by_hand::insert_into_redb(&lock(&self.transaction), keys, &values);
        }
    }

    fn close(self) {
        open(self.transaction).commit().expect("a commit");
    }
}

struct OneSqlite(Mutex<SqliteByHand>);

impl OneSqlite {
    fn begin(folder: &Path) -> Self {
        let file = SqliteByHand::open(folder);
        file.execute("BEGIN IMMEDIATE");
        Self(Mutex::new(file))
    }
}

impl Dictionary for OneSqlite {
    fn put(&self, keys: &[String], customers: Vec<Customer>) {
        for (keys, customers) in keys.chunks(CHUNK).zip(customers.chunks(CHUNK)) {
            let values = by_hand::jsons(customers);
            lock(&self.0).upsert(keys, &values);
        }
    }

    fn close(self) {
        let file = open(self.0);
        file.execute("COMMIT");
        file.close();
    }
}

impl Dictionary for Fjall {
    fn put(&self, keys: &[String], customers: Vec<Customer>) {
        for (key, customer) in keys.iter().zip(customers) {
            let inserted = self.entries.insert(key.as_str(), customer.json());
            inserted.expect("an inserted entry");
        }
    }

    fn close(self) {
        let persisted = self.database.persist(PersistMode::SyncData);
        persisted.expect("all durable");
    }
}

impl Dictionary for Sled {
    fn put(&self, keys: &[String], customers: Vec<Customer>) {
        for (key, customer) in keys.iter().zip(customers) {
            let inserted = self.0.insert(key.as_str(), customer.json().as_str());
            inserted.expect("an inserted entry");
        }
    }

    fn close(self) {
        self.0.flush().expect("all durable");
    }
}

struct Pickle(Mutex<PickleDb>);

impl Pickle {
    fn open(folder: &Path) -> Self {
        Self(Mutex::new(PickleDb::new(
            folder.join("pickle.json"),
            PickleDbDumpPolicy::DumpUponRequest,
            SerializationMethod::Json,
        )))
    }
}

impl Dictionary for Pickle {
    fn put(&self, keys: &[String], customers: Vec<Customer>) {
        for (key, customer) in keys.iter().zip(customers) {
            lock(&self.0).set(key, &customer).expect("a set entry");
        }
    }

    fn close(self) {
        open(self.0).dump().expect("a written file");
    }
}

/// Encoded entries, written to one file.
struct Texts {
    texts: Mutex<Vec<Vec<u8>>>,
    file: File,
}

impl Texts {
    fn open(folder: &Path) -> Self {
        Self {
            texts: Mutex::default(),
            file: File::create(folder.join("appended")).expect("a file"),
        }
    }
}

impl Dictionary for Texts {
    fn put(&self, keys: &[String], customers: Vec<Customer>) {
        let mut text = Vec::new();
        by_hand::encode(&mut text, keys, &customers);
        lock(&self.texts).push(text);
    }

    fn close(mut self) {
        for text in open(self.texts) {
            self.file.write_all(&text).expect("appended entries");
        }
        self.file.sync_data().expect("synced entries");
    }
}
