//! Opening a stored map.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use persistify::{JsonFile, PersistentMap, Provider, Sqlite};
use persistify_benches::{Customer, keys, shuffled, timed};
use redb::ReadableDatabase;
use rusqlite::Connection;

use crate::{
    Bench,
    by_hand::{REDB_TABLE, Redb, SqliteByHand, Store},
    folder,
    work::{Role, Row, Work, total},
};

const ENTRIES: usize = 200_000;

type Loaded = HashMap<Box<str>, Customer>;

pub fn run(bench: &Bench) -> Vec<Row> {
    let keys = shuffled(&keys(ENTRIES));
    let customers: Vec<_> = (0..ENTRIES).map(|n| Customer::new(n, 0)).collect();
    let mut rows = from_json(bench, &keys, &customers);
    rows.extend(from_databases(bench, &keys, &customers));
    rows
}

fn from_json(bench: &Bench, keys: &[String], customers: &[Customer]) -> Vec<Row> {
    let folder = folder();
    let open = || bench.runtime.block_on(JsonFile::open(folder.path()));
    fill(bench, &open().expect("an open folder"), keys, customers);
    let path = folder.path().join("bench.json");
    let name = format!("open, {ENTRIES} entries in a JSON file");
    let mut work = Work::timed(name, "time until loaded");
    work.add(Role::Ours, "Persistify JsonFile", "–", || {
        total(opened(bench, || open().expect("an open folder")))
    });
    work.add(Role::Peer, "serde_json into a HashMap", "–", || {
        total(loaded(|| {
            let text = fs::read(&path).expect("the text");
            serde_json::from_slice(&text).expect("JSON")
        }))
    });
    work.add(Role::Limit, "read the file", "–", || total(read(&path)));
    work.run(bench.rounds(11, 3))
}

fn from_databases(bench: &Bench, keys: &[String], customers: &[Customer]) -> Vec<Row> {
    let folder = folder();
    let open = || {
        bench
            .runtime
            .block_on(Sqlite::open(folder.path().join("ours.db")))
    };
    fill(bench, &open().expect("an open file"), keys, customers);
    let mut by_hand = SqliteByHand::open(folder.path());
    by_hand.write(keys, customers);
    by_hand.close();
    let path = folder.path().join("by_hand.db");
    let mut redb = Redb::open(folder.path());
    redb.write(keys, customers);
    drop(redb);
    let name = format!("open, {ENTRIES} entries in a database");
    let mut work = Work::timed(name, "time until loaded");
    work.add(Role::Ours, "Persistify Sqlite", "–", || {
        total(opened(bench, || open().expect("an open file")))
    });
    work.add(Role::Peer, "rusqlite into a HashMap", "–", || {
        total(loaded(|| from_sqlite(&path).expect("all rows")))
    });
    work.add(Role::Peer, "redb into a HashMap", "–", || {
        total(loaded(|| from_redb(folder.path()).expect("all entries")))
    });
    work.add(Role::Limit, "read the file of rusqlite", "–", || {
        total(read(&path))
    });
    work.run(bench.rounds(11, 3))
}

fn fill(
    bench: &Bench,
    provider: &(impl Provider + Clone),
    keys: &[String],
    customers: &[Customer],
) {
    let map = crate::ours::open(&bench.runtime, provider.clone());
    map.extend(keys.iter().zip(customers.iter().cloned()));
    bench.runtime.block_on(map.close()).expect("all saved");
    bench.runtime.block_on(provider.close()).expect("closed");
}

/// Times the opening only, not the closing and the drop of the map.
fn opened<P: Provider + Clone>(bench: &Bench, open: impl Fn() -> P) -> Duration {
    let mut both = None;
    let time = timed(|| {
        let provider = open();
        let map: PersistentMap<Customer> = crate::ours::open(&bench.runtime, provider.clone());
        both = Some((provider, map));
    });
    let (provider, map) = both.expect("an open map");
    assert_eq!(map.len(), ENTRIES);
    bench.runtime.block_on(map.close()).expect("all saved");
    bench.runtime.block_on(provider.close()).expect("closed");
    time
}

/// Times the load only, not the drop of the map.
fn loaded(load: impl Fn() -> Loaded) -> Duration {
    let mut map = Loaded::new();
    let time = timed(|| map = load());
    assert_eq!(map.len(), ENTRIES);
    time
}

fn read(path: &Path) -> Duration {
    timed(|| {
        let bytes = fs::read(path).expect("the bytes");
        assert!(bytes.len() > ENTRIES);
    })
}

fn from_sqlite(path: &Path) -> rusqlite::Result<Loaded> {
    let connection = Connection::open(path)?;
    let mut select = connection.prepare("SELECT key, value FROM entries")?;
    let (mut rows, mut loaded) = (select.query([])?, Loaded::new());
    while let Some(row) = rows.next()? {
        let (key, value) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        loaded.insert(key.into(), serde_json::from_str(value).expect("JSON"));
    }
    Ok(loaded)
}

fn from_redb(folder: &Path) -> Result<Loaded, redb::Error> {
    let database = Redb::open(folder);
    let table = database.0.begin_read()?.open_table(REDB_TABLE)?;
    let mut loaded = Loaded::new();
    for entry in table.range::<&str>(..)? {
        let (key, value) = entry?;
        loaded.insert(
            key.value().into(),
            serde_json::from_str(value.value()).expect("JSON"),
        );
    }
    Ok(loaded)
}
