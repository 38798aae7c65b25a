//! Many tasks that each wait for their own save.

use std::time::Duration;

use persistify::PersistentMap;
use persistify_benches::{Comparison, Customer, keys, open, timed};
use tokio::runtime::Runtime;

use super::{
    Bench,
    by_hand::{ByHand, Way},
};

const TASKS: usize = 64;
const SAVES_EACH: usize = 20;
const SAVES: usize = TASKS * SAVES_EACH;

pub fn run(bench: &Bench) {
    let comparison = Comparison {
        name: format!("postgres, saves by {TASKS} tasks / one after the other"),
        operations: SAVES,
        rounds: 7,
        target: 20.0,
    };
    let keys = keys(SAVES);
    let customers: Vec<_> = (0..SAVES).map(|n| Customer::new(n, 0)).collect();
    let ours = open(&bench.runtime, bench.connect(&bench.database()));
    let mut peer = ByHand::connect(&bench.runtime, &bench.database());
    comparison.run(
        || save_ours(&bench.runtime, &ours, &keys, &customers),
        || peer.write(&bench.runtime, Way::RowByRow, &keys, &customers),
    );
}

fn save_ours(
    runtime: &Runtime,
    map: &PersistentMap<Customer>,
    keys: &[String],
    customers: &[Customer],
) -> Duration {
    let shares: Vec<_> = keys
        .chunks(SAVES_EACH)
        .zip(customers.chunks(SAVES_EACH))
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
