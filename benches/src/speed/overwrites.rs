//! Repeated `insert` of a few keys while the flusher saves them, compared with a bare
//! `DashMap`.

use dashmap::DashMap;
use persistify_benches::{Comparison, Discard, keys, open, runtime, timed};

const KEYS: usize = 100;
const ROUNDS_OVER_ALL: u64 = 20_000;

pub fn run() {
    let runtime = runtime();
    let keys = keys(KEYS);
    let ours = open(&runtime, Discard);
    let peer: DashMap<Box<str>, u64> = DashMap::new();
    let comparison = Comparison {
        name: "insert, 100 hot keys, Discard / DashMap".into(),
        operations: KEYS * usize::try_from(ROUNDS_OVER_ALL).unwrap_or(1),
        rounds: 15,
        target: 0.9,
    };
    comparison.run(
        || {
            timed(|| {
                overwrite(&keys, |key, value| {
                    ours.insert(key, value);
                });
            })
        },
        || {
            timed(|| {
                overwrite(&keys, |key, value| {
                    peer.insert(Box::from(key), value);
                });
            })
        },
    );
    runtime.block_on(ours.close()).expect("a closed map");
}

fn overwrite(keys: &[String], insert: impl Fn(&str, u64)) {
    for value in 0..ROUNDS_OVER_ALL {
        for key in keys {
            insert(key, value);
        }
    }
}
