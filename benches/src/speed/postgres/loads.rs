//! Opening a stored map.

use std::time::Duration;

use persistify::{PersistentMap, Postgres};
use persistify_benches::{Comparison, Customer, keys, open_idle, shuffled, timed};
use tokio::runtime::Runtime;

use super::{
    Bench,
    by_hand::{ByHand, Way},
};

const ROWS: usize = 200_000;

pub fn run(bench: &Bench) {
    let comparison = Comparison {
        name: format!("postgres, open {ROWS} / COPY by hand into a HashMap"),
        operations: ROWS,
        rounds: 9,
        target: 0.9,
    };
    let keys = shuffled(&keys(ROWS));
    let customers: Vec<_> = (0..ROWS).map(|n| Customer::new(n, 0)).collect();
    let ours = bench.connect(&bench.database());
    fill(&bench.runtime, &ours, &keys, &customers);
    let mut peer = ByHand::connect(&bench.runtime, &bench.database());
    peer.write(&bench.runtime, Way::Unnest, &keys, &customers);
    comparison.run(
        || open(&bench.runtime, &ours),
        || {
            let (time, loaded) = peer.load(&bench.runtime);
            assert_eq!(loaded.len(), ROWS);
            time
        },
    );
}

fn fill(runtime: &Runtime, provider: &Postgres, keys: &[String], customers: &[Customer]) {
    let map: PersistentMap<Customer> = open_idle(runtime, provider.clone());
    map.extend(keys.iter().zip(customers.iter().cloned()));
    runtime.block_on(map.close()).expect("all saved");
}

/// Times the opening only, not the drop of the map.
fn open(runtime: &Runtime, provider: &Postgres) -> Duration {
    let mut map = None;
    let time = timed(|| map = Some(open_idle::<Customer>(runtime, provider.clone())));
    assert_eq!(map.map(|map| map.len()), Some(ROWS));
    time
}
