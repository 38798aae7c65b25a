//! Maps of Persistify in the stores that the subjects compare.

use persistify::{JsonFile, PersistentMap, Provider, Sqlite};
use persistify_benches::{Customer, Discard};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::folder;

/// A map with default options, so that its flusher runs, in a folder of its own.
pub struct Ours<'r> {
    pub name: &'static str,
    pub runtime: &'r Runtime,
    pub map: PersistentMap<Customer>,
    _folder: TempDir,
}

impl<'r> Ours<'r> {
    pub fn in_json(runtime: &'r Runtime) -> Self {
        let folder = folder();
        let files = runtime.block_on(JsonFile::open(folder.path()));
        let files = files.expect("an open folder");
        Self::new("Persistify JsonFile", runtime, files, folder)
    }

    pub fn in_sqlite(runtime: &'r Runtime) -> Self {
        let folder = folder();
        let file = runtime.block_on(Sqlite::open(folder.path().join("ours.db")));
        let file = file.expect("an open file");
        Self::new("Persistify Sqlite", runtime, file, folder)
    }

    /// The flusher encodes the values, and the provider drops them.
    pub fn discarding(runtime: &'r Runtime) -> Self {
        Self::new("Persistify, store discards", runtime, Discard, folder())
    }

    pub fn in_files(runtime: &'r Runtime) -> [Self; 2] {
        [Self::in_json(runtime), Self::in_sqlite(runtime)]
    }

    pub fn new(
        name: &'static str,
        runtime: &'r Runtime,
        provider: impl Provider,
        folder: TempDir,
    ) -> Self {
        Self {
            name,
            runtime,
            map: open(runtime, provider),
            _folder: folder,
        }
    }

    pub fn flush(&self) {
        self.runtime.block_on(self.map.flush()).expect("all saved");
    }
}

pub fn open(runtime: &Runtime, provider: impl Provider) -> PersistentMap<Customer> {
    let map = PersistentMap::builder(provider, "bench").open();
    runtime.block_on(map).expect("an open map")
}
