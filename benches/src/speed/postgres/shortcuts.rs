//! Commits with shortcuts, compared with plain commits.

use std::time::{Duration, SystemTime};

use persistify::{
    Batch, BatchId, Change, MapBatch, MapName, Payload, Postgres, Provider, Revision, WriterId,
};
use persistify_benches::{Comparison, Customer, timed};
use tokio::runtime::Runtime;

use super::Bench;

pub fn run(bench: &Bench) {
    for (rows, commits, rounds) in [(1, 100, 41), (1_000, 1, 41), (10_000, 1, 9)] {
        let comparison = |peer| Comparison {
            name: format!("postgres, commit of {rows} new rows / {peer}"),
            operations: rows * commits,
            rounds,
            target: 1.15,
        };
        let writers = |writers| Writer::new(bench, writers, true);
        // A commit takes a single round trip only if the previous commit was by the same
        // writer.
        let round_trips = comparison("with a check first");
        compare(&round_trips, commits, rows, writers(1), writers(2));
        let hints = comparison("as upserts");
        let unhinted = Writer::new(bench, 1, false);
        compare(&hints, commits, rows, writers(1), unhinted);
    }
}

fn compare(
    comparison: &Comparison,
    commits: usize,
    rows: usize,
    mut ours: Writer<'_>,
    mut peer: Writer<'_>,
) {
    comparison.run(|| ours.write(commits, rows), || peer.write(commits, rows));
}

/// Writes new rows to a map of its own, alternating between the given number of
/// writers.
struct Writer<'b> {
    runtime: &'b Runtime,
    store: Postgres,
    writers: Vec<WriterId>,
    likely_new: bool,
    sequence: u64,
    key: usize,
}

impl<'b> Writer<'b> {
    fn new(bench: &'b Bench, writers: u128, likely_new: bool) -> Self {
        Self {
            runtime: &bench.runtime,
            store: bench.connect(&bench.database()),
            writers: (1..=writers).map(WriterId::new).collect(),
            likely_new,
            sequence: 0,
            key: 0,
        }
    }

    fn write(&mut self, commits: usize, rows: usize) -> Duration {
        let batches: Vec<_> = (0..commits).map(|_| self.batch(rows)).collect();
        timed(|| {
            for batch in &batches {
                let committed = self.runtime.block_on(self.store.commit(batch));
                committed.expect("all saved");
            }
        })
    }

    fn batch(&mut self, rows: usize) -> Batch {
        let changes = (0..rows).map(|n| {
            self.key += 1;
            let payload = Payload::json(Customer::new(n, 0).json());
            Change::put(format!("customer-{:08}", self.key), payload, None)
                .likely_new(self.likely_new)
        });
        let map = MapName::new("bench").expect("a name");
        let part = MapBatch::new(map, changes.collect());
        self.sequence += 1;
        self.writers.rotate_left(1);
        let id = BatchId::new(self.writers[0], self.sequence);
        Batch::new(id, Revision::ZERO, SystemTime::now(), [part])
    }
}
