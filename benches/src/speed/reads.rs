//! `get`, compared with a bare `DashMap`.

use std::{hash::BuildHasher, hint::black_box, thread, time::Duration};

use dashmap::DashMap;
use persistify::PersistentMap;
use persistify_benches::{Comparison, Discard, keys, open, runtime, shuffled, timed};
use tokio::runtime::Runtime;

/// The number of reads per side and round.
const READS: usize = 500_000;

pub fn run() {
    let runtime = runtime();
    // With many keys, reads are bound by memory latency; with few, which stay in the
    // CPU cache, by instructions.
    for count in [500_000, 1_000] {
        compare_maps_of(&runtime, count);
    }
}

fn compare_maps_of(runtime: &Runtime, count: usize) {
    let ordered = keys(count);
    let ours = open(runtime, Discard);
    let default = DashMap::new();
    let same_hasher = DashMap::with_hasher(ahash::RandomState::new());
    for (key, value) in ordered.iter().zip(0..) {
        ours.insert(key, value);
        default.insert(key.as_str().into(), value);
        same_hasher.insert(key.as_str().into(), value);
    }
    runtime.block_on(ours.close()).expect("a closed map");
    let wanted = shuffled(&ordered);
    for threads in [1, 2] {
        compare(&wanted, threads, "", &ours, &default);
        compare(&wanted, threads, " (our hasher)", &ours, &same_hasher);
    }
}

fn compare<S>(
    wanted: &[String],
    threads: usize,
    note: &str,
    ours: &PersistentMap<u64>,
    peer: &DashMap<Box<str>, u64, S>,
) where
    S: BuildHasher + Clone + Sync,
{
    let count = wanted.len();
    let comparison = Comparison {
        name: format!("get, {count} keys, {threads} thread(s) / DashMap{note}"),
        operations: READS,
        rounds: 31,
        target: 0.9,
    };
    comparison.run(
        || read_all(wanted, threads, |key| ours.get(key)),
        || read_all(wanted, threads, |key| peer.get(key).map(|value| *value)),
    );
}

/// Each thread reads its own part of the keys, repeatedly if it is small.
fn read_all(
    wanted: &[String],
    threads: usize,
    get: impl Fn(&str) -> Option<u64> + Sync,
) -> Duration {
    let get = &get;
    let turns = READS / wanted.len();
    timed(|| {
        thread::scope(|scope| {
            for part in wanted.chunks(wanted.len().div_ceil(threads)) {
                scope.spawn(move || {
                    for _ in 0..turns {
                        let sum: u64 = part.iter().filter_map(|key| get(key)).sum();
                        black_box(sum);
                    }
                });
            }
        });
    })
}
