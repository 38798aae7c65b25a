//! The store of a history, and the files that remain when its program is killed.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use persistify::{Memory, Provider};
use tempfile::TempDir;

use super::held::Held;

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Memory,
    #[cfg(feature = "json")]
    JsonFile,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// A store, and its folder.
pub(super) struct Place {
    kind: Kind,
    memory: Memory,
    folder: TempDir,
}

impl Place {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            memory: Memory::new(),
            folder: folder(),
        }
    }

    /// Opens the store like a new process.
    pub(super) async fn open(&self) -> Held {
        let inner: Arc<dyn Provider> = match self.kind {
            Kind::Memory => return Held::at_once(Arc::new(self.memory.clone())),
            #[cfg(feature = "json")]
            Kind::JsonFile => {
                let files = persistify::JsonFile::builder(self.folder.path()).max_journal(2_048);
                Arc::new(files.open().await.unwrap())
            }
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => {
                let file = persistify::Sqlite::builder(self.folder.path().join("maps.db"))
                    .synchronous(persistify::Synchronous::Normal);
                Arc::new(file.open().await.unwrap())
            }
        };
        Held::new(inner)
    }

    /// Kills the program: only the files on the disk remain.
    pub(super) async fn kill(&mut self, store: &Held) {
        store.idle().await;
        let image = folder();
        while !copied(self.folder.path(), image.path()) {}
        store.close().await.unwrap();
        self.folder = image;
    }

    /// Ends the program normally.
    pub(super) async fn end(&self, store: &Held) {
        store.idle().await;
        store.close().await.unwrap();
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Files that end with the program: the lock, and shared memory.
const LOST: [&str; 2] = [".persistify.lock", "maps.db-shm"];

/// The files with their sizes and times.
fn files(folder: &Path) -> Vec<(String, u64, SystemTime)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let file = |entry: fs::DirEntry| {
        let (name, about) = (entry.file_name(), entry.metadata().ok()?);
        let name = name.to_str().unwrap().to_owned();
        let lost = LOST.contains(&&*name);
        (!lost).then(|| (name, about.len(), about.modified().unwrap()))
    };
    let mut files: Vec<_> = entries.filter_map(file).collect();
    files.sort();
    files
}

/// Copies the files. Returns whether they have not changed meanwhile (a store may tidy up by
/// itself).
fn copied(from: &Path, to: &Path) -> bool {
    for (name, ..) in files(to) {
        fs::remove_file(to.join(name)).unwrap();
    }
    let before = files(from);
    let copy = |name: &String| fs::copy(from.join(name), to.join(name)).is_ok();
    before.iter().all(|(name, ..)| copy(name)) && files(from) == before
}
