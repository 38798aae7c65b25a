//! Entries that each have a time to live.

use persistify_benches::{keys, shuffled};

use crate::{
    Bench,
    maps::{Caching, Deadlines, Moka},
    shared_map::{Load, Operation},
    work::{Role, Row},
};

pub fn run(bench: &Bench) -> Vec<Row> {
    let keys = shuffled(&keys(bench.either(500_000, 100_000)));
    let mut rows = Vec::new();
    for threads in [1, 2] {
        for operation in [Operation::Read, Operation::Insert] {
            let keys = &keys;
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
    let mut work = load.work("ttl");
    load.add(&mut work, Role::Ours, "Persistify CachingMap", || {
        Caching::open(&bench.runtime)
    });
    load.add(
        &mut work,
        Role::Peer,
        "moka, an expiry per entry",
        Moka::new,
    );
    // No peer, because it keeps expired entries.
    load.add(
        &mut work,
        Role::Limit,
        "DashMap of deadlines, no sweeper",
        Deadlines::default,
    );
    work.run(bench.rounds(11, 3))
}
