//! The cost of verifying each value before it is saved: flushes to `Discard` and to
//! SQLite, with `Verify::Always` and with `Verify::Never`.

use std::time::Duration;

use persistify::{PersistentMap, Provider, Sqlite, Verify};
use persistify_benches::{
    Comparison, Customer, Discard, keys, open_verifying, runtime, shuffled, timed,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const CHANGES: usize = 10_000;

pub fn run() {
    let runtime = runtime();
    compare("Discard", 0.5, &runtime, || Discard);
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut files = 0;
    compare("Sqlite", 0.8, &runtime, || {
        files += 1;
        let path = folder.path().join(format!("{files}.db"));
        runtime.block_on(Sqlite::open(path)).expect("an open file")
    });
}

fn compare<P: Provider>(name: &str, target: f64, runtime: &Runtime, mut open: impl FnMut() -> P) {
    let keys = shuffled(&keys(CHANGES));
    let always = open_verifying(runtime, open(), Verify::Always);
    let never = open_verifying(runtime, open(), Verify::Never);
    let comparison = Comparison {
        name: format!("flush, {CHANGES} to {name}, verified / not"),
        operations: CHANGES,
        rounds: 51,
        target,
    };
    comparison.run(
        || flush(runtime, &always, &keys),
        || flush(runtime, &never, &keys),
    );
}

/// Times the flush only; the changes are already in memory.
fn flush(runtime: &Runtime, map: &PersistentMap<Customer>, keys: &[String]) -> Duration {
    for (number, key) in keys.iter().enumerate() {
        map.insert(key, Customer::new(number, 0));
    }
    timed(|| runtime.block_on(map.flush()).expect("all saved"))
}
