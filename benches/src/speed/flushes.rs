//! `flush` to SQLite, compared with a hand-written loop of prepared upserts.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use persistify::{PersistentMap, Sqlite};
use persistify_benches::{Comparison, Customer, keys, open_idle, runtime, shuffled, timed};
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub fn run() {
    let runtime = runtime();
    for (count, rounds) in [(10_000, 101), (100_000, 9)] {
        let keys = shuffled(&keys(count));
        let name = |what| format!("flush, {count} {what} / upserts by hand");
        let comparison = |what| Comparison {
            name: name(what),
            operations: count,
            rounds,
            target: 0.8,
        };
        compare_new(&comparison("new rows"), &runtime, &keys);
        compare_overwritten(&comparison("changed rows"), &runtime, &keys);
    }
}

/// Each round writes to new files.
fn compare_new(comparison: &Comparison, runtime: &Runtime, keys: &[String]) {
    comparison.run(
        || flush_ours(runtime, &Ours::open(runtime), keys, 0),
        || Peer::open().write(keys, 0),
    );
}

/// Each round overwrites the rows of the previous round.
fn compare_overwritten(comparison: &Comparison, runtime: &Runtime, keys: &[String]) {
    let (ours, mut peer) = (Ours::open(runtime), Peer::open());
    flush_ours(runtime, &ours, keys, 0);
    peer.write(keys, 0);
    let (our_orders, peer_orders) = (Cell::new(0), Cell::new(0));
    comparison.run(
        || flush_ours(runtime, &ours, keys, next(&our_orders)),
        || peer.write(keys, next(&peer_orders)),
    );
}

fn next(number: &Cell<u64>) -> u64 {
    number.set(number.get() + 1);
    number.get()
}

fn folder() -> TempDir {
    // In the target folder, because the system's temporary folder may be in memory.
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

struct Ours {
    map: PersistentMap<Customer>,
    _folder: TempDir,
}

impl Ours {
    fn open(runtime: &Runtime) -> Self {
        let folder = folder();
        let file = runtime.block_on(Sqlite::open(folder.path().join("ours.db")));
        Self {
            map: open_idle(runtime, file.expect("an open file")),
            _folder: folder,
        }
    }
}

/// Times the flush only; the changes are already in memory.
fn flush_ours(runtime: &Runtime, ours: &Ours, keys: &[String], orders: u64) -> Duration {
    for (number, key) in keys.iter().enumerate() {
        ours.map.insert(key, Customer::new(number, orders));
    }
    timed(|| runtime.block_on(ours.map.flush()).expect("all saved"))
}

struct Peer {
    connection: Connection,
    _folder: TempDir,
}

impl Peer {
    fn open() -> Self {
        let folder = folder();
        let connection = Connection::open(folder.path().join("peer.db")).expect("an open file");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 CREATE TABLE entries (
                     key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at INTEGER
                 );",
            )
            .expect("a table");
        Self {
            connection,
            _folder: folder,
        }
    }

    /// Times the encoding and the upserts; the values are already in memory.
    fn write(&mut self, keys: &[String], orders: u64) -> Duration {
        let customers: Vec<_> = (0..keys.len()).map(|n| Customer::new(n, orders)).collect();
        timed(|| self.upsert(keys, &customers).expect("all saved"))
    }

    fn upsert(&mut self, keys: &[String], customers: &[Customer]) -> rusqlite::Result<()> {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
        let now = i64::try_from(since_1970.as_millis()).expect("a time");
        let transaction = self.connection.transaction()?;
        let mut upsert = transaction.prepare(
            "INSERT INTO entries (key, value, updated_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (key) DO UPDATE
             SET value = excluded.value, updated_at = excluded.updated_at",
        )?;
        for (key, customer) in keys.iter().zip(customers) {
            upsert.execute(params![key, customer.json(), now])?;
        }
        drop(upsert);
        transaction.commit()
    }
}
