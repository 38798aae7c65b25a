//! The cost of saving one change in a large map, compared with a small map.

use std::time::Duration;

use persistify::{JsonFile, PersistentMap, Provider, Sqlite};
use persistify_benches::{Comparison, keys, runtime, shuffled, timed};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const LARGE: usize = 1_000_000;
const SMALL: usize = 1_000;
/// The number of consecutive saves per side and round.
const SAVES: usize = 50;

pub fn run() {
    let runtime = runtime();
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = Sqlite::open(folder.path().join("both.db"));
    let file = runtime.block_on(file).expect("an open file");
    compare(&runtime, "Sqlite", &file);
    let files = JsonFile::open(folder.path().join("both"));
    let files = runtime.block_on(files).expect("an open folder");
    compare(&runtime, "JsonFile", &files);
}

/// Both maps are in one store, so they differ only in size.
fn compare(runtime: &Runtime, kind: &str, provider: &(impl Provider + Clone)) {
    let comparison = Comparison {
        name: format!("save 1 of {LARGE}, {kind} / 1 of {SMALL}"),
        operations: SAVES,
        rounds: 41,
        target: 1.0 / 1.5,
    };
    let mut large = Filled::new(runtime, provider.clone(), LARGE);
    let mut small = Filled::new(runtime, provider.clone(), SMALL);
    comparison.run(|| large.save_some(runtime), || small.save_some(runtime));
}

/// Opens a map with these keys, all saved.
struct Filled {
    map: PersistentMap<u64>,
    keys: Vec<String>,
    saved: usize,
}

impl Filled {
    fn new(runtime: &Runtime, provider: impl Provider, count: usize) -> Self {
        let keys = shuffled(&keys(count));
        let map = PersistentMap::builder(provider, format!("of {count}"));
        let map = runtime.block_on(map.open()).expect("an open map");
        map.extend(keys.iter().map(|key| (key, 0)));
        runtime.block_on(map.flush()).expect("all saved");
        Self {
            map,
            keys,
            saved: 0,
        }
    }

    fn save_some(&mut self, runtime: &Runtime) -> Duration {
        timed(|| {
            for _ in 0..SAVES {
                self.saved += 1;
                let key = &self.keys[self.saved % self.keys.len()];
                let saved = self.map.insert_and_save(key, self.saved as u64);
                runtime.block_on(saved).expect("a saved change");
            }
        })
    }
}
