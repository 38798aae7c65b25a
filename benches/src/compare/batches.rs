//! Durable batches of 1,000 entries.

use persistify_benches::{Customer, keys};

use crate::{
    Bench,
    by_hand::ByHand,
    ours::Ours,
    work::{Role, Row, Work, each, timed_apart},
};

const BATCH: usize = 1_000;
const BATCHES: usize = 10;

/// Each round overwrites the entries of the previous round.
pub fn run(bench: &Bench) -> Vec<Row> {
    let count = BATCH * BATCHES;
    let keys = &keys(count);
    let customers: &Vec<_> = &(0..count).map(|n| Customer::new(n, 0)).collect();
    let name =
        format!("batches, {BATCHES} batches of {BATCH} entries, each durable before the next");
    let mut work = Work::timed(name, "time per entry");
    for ours in Ours::in_files(&bench.runtime) {
        work.add(Role::Ours, ours.name, "each flush", move || {
            let values = customers.clone();
            let time = timed_apart(|| {
                for (n, (key, value)) in keys.iter().zip(values).enumerate() {
                    ours.map.insert(key, value);
                    if (n + 1) % BATCH == 0 {
                        ours.flush();
                    }
                }
            });
            each(time, count)
        });
    }
    for mut store in ByHand::all_engines().into_iter().chain([ByHand::append()]) {
        work.add(store.role, store.name, store.fsync, move || {
            each(store.write(keys, customers, BATCH), count)
        });
    }
    work.run(bench.rounds(15, 5))
}
