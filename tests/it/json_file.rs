//! `JsonFile`: the files in the folder, recovery after crashes, and errors.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use persistify::{
    Batch, Change, Committed, JsonFile, MapBatch, MapName, Payload, Provider, Record, Result,
    Revision, Wanted,
};
use tempfile::TempDir;

use crate::support::{Pen, name, put, records::text};

mod at_rest;
mod bytes;
mod commits;
mod compactions;
mod crashes;
mod damage;
mod drops;
mod edits;
#[cfg(unix)]
mod hostile;
mod locks;
mod missing;
#[cfg(unix)]
mod modes;
mod renewals;
mod rewound;
pub(crate) mod shaky_disk;
mod tombstones;

/// A writer of the map `stock`.
struct Writer {
    pen: Pen,
}

impl Writer {
    fn new() -> Self {
        let mut pen = Pen::new();
        pen.at = time(1_000);
        Self { pen }
    }

    /// The next batch, with these changes.
    fn batch(&mut self, changes: Vec<Change>) -> Batch {
        self.pen.changes(&stock(), changes)
    }

    async fn put(&mut self, files: &JsonFile, key: &str, text: &str) -> Result<Committed> {
        files.commit(&self.batch(vec![put(key, text)])).await
    }

    async fn delete(&mut self, files: &JsonFile, key: &str) -> Result<Committed> {
        files.commit(&self.batch(vec![Change::delete(key)])).await
    }
}

fn stock() -> MapName {
    name("stock")
}

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

async fn load(files: &JsonFile) -> Result<BTreeMap<String, Record>> {
    let records = crate::support::records::load(files, &stock(), Wanted::All).await?;
    Ok(records
        .into_iter()
        .map(|r| (r.key.to_string(), r))
        .collect())
}

/// The keys and the texts of the stored values.
async fn texts(files: &JsonFile) -> Result<BTreeMap<String, String>> {
    let records = load(files).await?;
    Ok(records
        .into_iter()
        .map(|(k, r)| (k, text(&r).to_owned()))
        .collect())
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

async fn open(folder: &TempDir) -> JsonFile {
    JsonFile::open(folder.path()).await.unwrap()
}

/// A folder in memory if the system has one, for tests that repeat many times and need no
/// real sync.
fn quick_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    TempDir::new_in(memory).unwrap_or_else(|_| TempDir::new().unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".persistify.lock")
        .collect();
    names.sort();
    names
}

/// Writes the snapshot of the map by hand.
fn write_by_hand(folder: &TempDir, text: &str) {
    fs::write(folder.path().join("stock.json"), text).unwrap();
}

/// Changes the text of the meta file and updates its checksum.
fn rewrite_meta(folder: &TempDir, change: impl FnOnce(&str) -> String) {
    let meta = folder.path().join("stock.meta");
    let text = fs::read_to_string(&meta).unwrap();
    let body = change(text.split_once("\"checksum\"").unwrap().0);
    let checksum = xxhash_rust::xxh3::xxh3_128(body.as_bytes());
    let text = format!("{body}\"checksum\": \"{checksum:032x}\"\n}}\n");
    fs::write(meta, text).unwrap();
}
