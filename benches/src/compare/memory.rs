//! Reads and writes in memory, while the flusher of Persistify saves.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use dashmap::DashMap;
use moka::sync::Cache;
use persistify_benches::{Customer, keys, shuffled};

use crate::{
    Bench,
    ours::Ours,
    shared_map::{Load, Operation},
    work::{Role, Row},
};

pub fn run(bench: &Bench) -> Vec<Row> {
    let count = bench.either(500_000, 100_000);
    let (many, hot) = (shuffled(&keys(count)), shuffled(&keys(1_000)));
    let mut rows = Vec::new();
    for threads in [1, 2] {
        let loads = [
            (Operation::Read, &many),
            (Operation::Insert, &many),
            (Operation::InsertLatencies, &many),
            (Operation::Overwrite(count / hot.len()), &hot),
        ];
        for (operation, keys) in loads {
            rows.extend(compare(
                bench,
                Load {
                    operation,
                    keys,
                    threads,
                },
            ));
        }
    }
    rows
}

fn compare(bench: &Bench, load: Load<'_>) -> Vec<Row> {
    let runtime = &bench.runtime;
    let mut work = load.work("memory");
    load.add(&mut work, Role::Ours, "Persistify, store discards", || {
        Ours::discarding(runtime)
    });
    if load.operation != Operation::Read {
        load.add(&mut work, Role::Ours, "Persistify JsonFile", || {
            Ours::in_json(runtime)
        });
    }
    load.add(
        &mut work,
        Role::Peer,
        "DashMap",
        DashMap::<Box<str>, Customer>::new,
    );
    // As many shards as Persistify has: smaller tables, which grow more often.
    load.add(&mut work, Role::Peer, "DashMap, 64 shards", || {
        DashMap::<Box<str>, Customer>::with_shard_amount(64)
    });
    load.add(
        &mut work,
        Role::Peer,
        "papaya",
        papaya::HashMap::<Box<str>, Customer>::new,
    );
    load.add(&mut work, Role::Peer, "moka", || {
        Cache::<Box<str>, Arc<Customer>>::builder().build()
    });
    load.add(&mut work, Role::Peer, "RwLock<HashMap>", || {
        RwLock::new(HashMap::<Box<str>, Customer>::new())
    });
    work.run(bench.rounds(11, 3))
}
