//! Concurrent tasks that each wait for their own saves.

use std::time::Duration;

use persistify::PersistentMap;
use persistify_benches::{Comparison, Customer, keys, open, timed};
use tokio::runtime::Runtime;

use super::{
    Bench,
    by_hand::{ByHand, Way},
};

const TASKS: usize = 64;
const SAVES: usize = TASKS * 20;

pub fn run(bench: &Bench) {
    compare(bench, "upserts by hand", by_hand(bench, Way::RowByRow));
    let by_transaction = by_hand(bench, Way::RowByTransaction);
    compare(bench, "transactions by hand", by_transaction);
    let map = open(&bench.runtime, bench.connect(&bench.database()));
    let alone =
        |keys: &[String], customers: &[Customer]| save(&bench.runtime, &map, (keys, customers), 1);
    compare(bench, "saves by one task", alone);
}

/// One connection that writes one row at a time.
fn by_hand(bench: &Bench, way: Way) -> impl FnMut(&[String], &[Customer]) -> Duration + use<'_> {
    let mut by_hand = ByHand::connect(&bench.runtime, &bench.database());
    move |keys, customers| by_hand.write(&bench.runtime, way, keys, customers)
}

fn compare(
    bench: &Bench,
    peer: &str,
    mut save_as_peer: impl FnMut(&[String], &[Customer]) -> Duration,
) {
    let comparison = Comparison {
        name: format!("postgres, saves by {TASKS} tasks / {peer}"),
        operations: SAVES,
        rounds: 7,
        target: 20.0,
    };
    let ours = open(&bench.runtime, bench.connect(&bench.database()));
    // Each round adds new rows to those of the previous rounds.
    let keys = keys(SAVES * (comparison.rounds + 1));
    let (mut our_keys, mut peer_keys) = (keys.chunks(SAVES), keys.chunks(SAVES));
    let customers: Vec<_> = (0..SAVES).map(|n| Customer::new(n, 0)).collect();
    comparison.run(
        || {
            let keys = our_keys.next().expect("a chunk");
            save(&bench.runtime, &ours, (keys, &customers), TASKS)
        },
        || save_as_peer(peer_keys.next().expect("a chunk"), &customers),
    );
}

/// Times the saves of all tasks; each task waits for each of its saves.
fn save(
    runtime: &Runtime,
    map: &PersistentMap<Customer>,
    (keys, customers): (&[String], &[Customer]),
    tasks: usize,
) -> Duration {
    let each = keys.len() / tasks;
    let shares: Vec<_> = keys
        .chunks(each)
        .zip(customers.chunks(each))
        .map(|(keys, customers)| (map.clone(), keys.to_vec(), customers.to_vec()))
        .collect();
    timed(|| {
        let tasks: Vec<_> = shares
            .into_iter()
            .map(|(map, keys, customers)| runtime.spawn(save_all(map, keys, customers)))
            .collect();
        for task in tasks {
            runtime.block_on(task).expect("all saved");
        }
    })
}

async fn save_all(map: PersistentMap<Customer>, keys: Vec<String>, customers: Vec<Customer>) {
    for (key, customer) in keys.iter().zip(customers) {
        map.insert_and_save(key, customer).await.expect("saved");
    }
}
