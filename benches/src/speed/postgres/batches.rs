//! `flush` of a batch of new rows.

use std::time::Duration;

use persistify::PersistentMap;
use persistify_benches::{Comparison, Customer, keys, open_idle, timed};
use tokio::runtime::Runtime;

use super::{
    Bench,
    by_hand::{ByHand, Way},
};

pub fn run(bench: &Bench) {
    let row_by_row = "inserts, each its own transaction";
    let (unnest, copy) = ("UNNEST upsert by hand", "COPY and merge by hand");
    let ways = [
        (1_000, row_by_row, Way::RowByRow, 10.0, 5),
        (1_000, unnest, Way::Unnest, 1.0, 101),
        (1_000, copy, Way::CopyAndMerge, 0.9, 101),
        (10_000, unnest, Way::Unnest, 1.0, 15),
        (10_000, copy, Way::CopyAndMerge, 0.9, 15),
    ];
    for (rows, peer, way, target, rounds) in ways {
        let comparison = Comparison {
            name: format!("postgres, {rows} new rows / {peer}"),
            operations: rows,
            rounds,
            target,
        };
        compare(bench, &comparison, way);
    }
}

fn compare(bench: &Bench, comparison: &Comparison, way: Way) {
    let ours: PersistentMap<Customer> = open_idle(&bench.runtime, bench.connect(&bench.database()));
    let mut peer = ByHand::connect(&bench.runtime, &bench.database());
    // Each round adds new rows to those of the previous rounds.
    let rows = comparison.operations;
    let keys = keys(rows * (comparison.rounds + 1));
    let (mut our_keys, mut peer_keys) = (keys.chunks(rows), keys.chunks(rows));
    let customers: Vec<_> = (0..rows).map(|n| Customer::new(n, 0)).collect();
    comparison.run(
        || {
            flush_ours(
                &bench.runtime,
                &ours,
                our_keys.next().expect("a chunk"),
                &customers,
            )
        },
        || {
            peer.write(
                &bench.runtime,
                way,
                peer_keys.next().expect("a chunk"),
                &customers,
            )
        },
    );
}

/// Times the flush only; the changes are already in memory.
fn flush_ours(
    runtime: &Runtime,
    map: &PersistentMap<Customer>,
    keys: &[String],
    customers: &[Customer],
) -> Duration {
    for (key, customer) in keys.iter().zip(customers) {
        map.insert(key, customer.clone());
    }
    timed(|| runtime.block_on(map.flush()).expect("all saved"))
}
