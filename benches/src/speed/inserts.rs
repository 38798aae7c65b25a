//! `insert` of new keys while the flusher saves them, compared with a bare `DashMap`.

use std::{hash::BuildHasher, time::Duration};

use dashmap::DashMap;
use persistify::{Memory, PersistentMap, Provider};
use persistify_benches::{Comparison, Discard, keys, open, runtime, shuffled, timed};
use tokio::runtime::Runtime;

const KEYS: usize = 500_000;

pub fn run() {
    let runtime = runtime();
    let keys = shuffled(&keys(KEYS));
    let ahash = ahash::RandomState::new;
    compare(&runtime, &keys, "Discard", || Discard, "", DashMap::new);
    compare(
        &runtime,
        &keys,
        "Discard",
        || Discard,
        " (our hasher)",
        || DashMap::with_hasher(ahash()),
    );
    compare(&runtime, &keys, "Memory", Memory::new, "", DashMap::new);
}

fn compare<P: Provider, S: BuildHasher + Clone>(
    runtime: &Runtime,
    keys: &[String],
    kind: &str,
    provider: impl Fn() -> P,
    note: &str,
    peer: impl Fn() -> DashMap<Box<str>, u64, S>,
) {
    let comparison = Comparison {
        name: format!("insert, 500k keys, {kind} / DashMap{note}"),
        operations: KEYS,
        rounds: 15,
        target: 0.7,
    };
    comparison.run(
        || insert_ours(runtime, &open(runtime, provider()), keys),
        || insert_peer(&peer(), keys),
    );
}

fn insert_ours(runtime: &Runtime, map: &PersistentMap<u64>, keys: &[String]) -> Duration {
    let time = timed(|| {
        for (key, value) in keys.iter().zip(0..) {
            map.insert(key, value);
        }
    });
    runtime.block_on(map.close()).expect("a closed map");
    time
}

fn insert_peer<S>(map: &DashMap<Box<str>, u64, S>, keys: &[String]) -> Duration
where
    S: BuildHasher + Clone,
{
    timed(|| {
        for (key, value) in keys.iter().zip(0..) {
            map.insert(key.as_str().into(), value);
        }
    })
}
