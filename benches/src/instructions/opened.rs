//! Open maps for the benchmarks. All of this happens before counting starts.

use persistify::{JsonFile, PersistentMap, Provider};
use persistify_benches::{Customer, Discard, keys, open_idle, shuffled};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The number of keys, and so of operations in each benchmark.
const KEYS: usize = 1_000;

/// An open map that saves only on request.
pub struct Opened<V> {
    pub map: PersistentMap<V>,
    pub keys: Vec<String>,
    runtime: Runtime,
    _folder: Option<TempDir>,
}

/// A map without entries.
pub fn empty() -> Opened<u64> {
    Opened::on(Discard, runtime(), None)
}

/// A map that has saved an entry for each key.
pub fn saved() -> Opened<u64> {
    let opened = empty();
    opened.insert_each(|number| number as u64);
    opened.flush();
    opened
}

/// A map with a change of each key, to be encoded and dropped.
pub fn unsaved() -> Opened<Customer> {
    let opened = Opened::on(Discard, runtime(), None);
    opened.insert_each(|number| Customer::new(number, 0));
    opened
}

/// A map with a change of each key, to be written to a file.
pub fn unsaved_in_file() -> Opened<Customer> {
    let runtime = runtime();
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let files = runtime.block_on(JsonFile::open(folder.path()));
    let opened = Opened::on(files.expect("an open folder"), runtime, Some(folder));
    opened.insert_each(|number| Customer::new(number, 0));
    opened
}

/// With a single thread, the flusher takes the same steps in every run.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Opened<V> {
    fn on(provider: impl Provider, runtime: Runtime, folder: Option<TempDir>) -> Self {
        Self {
            map: open_idle(&runtime, provider),
            keys: shuffled(&keys(KEYS)),
            runtime,
            _folder: folder,
        }
    }

    fn insert_each(&self, value: impl Fn(usize) -> V) {
        for (number, key) in self.keys.iter().enumerate() {
            self.map.insert(key, value(number));
        }
    }

    pub fn flush(&self) {
        let flushed = self.runtime.block_on(self.map.flush());
        flushed.expect("all saved");
    }
}
