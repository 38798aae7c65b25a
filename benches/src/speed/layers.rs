//! The cost of idle layers: of a commit of 1,000 changes, beside the same commit to SQLite.
//!
//! The layer wraps a provider that stores nothing, so its cost is not lost in the noise of a
//! disk.

use std::time::{Duration, SystemTime};

use persistify::{
    Batch, BatchId, Change, CircuitBreaker, Compressed, MapBatch, MapName, Metered, Payload,
    Provider, ProviderExt, Revision, Sqlite, WriterId,
};
use persistify_benches::{Discard, keys, runtime, timed};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const CHANGES: usize = 1_000;
const ROUNDS: usize = 201;

pub fn run() {
    let runtime = runtime();
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let sqlite = runtime.block_on(Sqlite::open(folder.path().join("maps.db")));
    let sqlite = median(&runtime, &sqlite.expect("an open file"));
    let bare = median(&runtime, &Discard);
    let layers: [(&str, Box<dyn Provider>); 4] = [
        (
            "Namespaced",
            Box::new(Discard.namespace("acme").expect("a name")),
        ),
        (
            "CircuitBreaker",
            Box::new(Discard.layer(CircuitBreaker::new())),
        ),
        (
            "Metered, no recorder",
            Box::new(Discard.layer(Metered::new("main"))),
        ),
        (
            "Compressed, short values",
            Box::new(Discard.layer(Compressed::lz4())),
        ),
    ];
    println!("a commit of {CHANGES} changes to SQLite takes {sqlite:?}; an idle layer adds");
    for (name, layer) in layers {
        let added = median(&runtime, &layer).saturating_sub(bare);
        let share = added.as_secs_f64() / sqlite.as_secs_f64() * 100.0;
        println!("  {name:<26} {added:>10.1?}  {share:>5.2} %  (target: below 1 %)");
    }
}

/// The median time of a commit.
fn median(runtime: &Runtime, store: &dyn Provider) -> Duration {
    let (writer, map) = (WriterId::random(), MapName::new("map").expect("a name"));
    let change = |key: &String| {
        let value = Payload::json(format!(
            "{{\"name\":\"{key}\",\"city\":\"London\",\"visits\":17}}"
        ));
        Change::put(key.as_str(), value, None)
    };
    let changes: Vec<_> = keys(CHANGES).iter().map(change).collect();
    let part = MapBatch::new(map, changes);
    let mut times: Vec<_> = (1..=ROUNDS as u64)
        .map(|sequence| {
            let id = BatchId::new(writer, sequence);
            let batch = Batch::new(id, Revision::ZERO, SystemTime::now(), [part.clone()]);
            timed(|| {
                runtime.block_on(store.commit(&batch)).expect("a commit");
            })
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}
