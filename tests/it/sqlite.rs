//! Maps in a SQLite file, on real files.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use persistify::{Change, MapBatch, MapName, Payload, Record, Result, Revision, Sqlite, Wanted};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{
    Pen, name, put,
    records::{all, error, load, one, pairs, sorted, text, text_of},
};

mod adopted;
mod backups;
mod blobs;
mod bytes;
mod commits;
mod drops;
mod faults;
#[cfg(unix)]
mod hostile;
mod loads;
mod log;
mod meddling;
mod names;
#[cfg(target_os = "linux")]
mod readers;
mod rewound;
mod shapes;
mod sharing;
mod tombstones;
mod upgrades;
mod writers;

/// A temporary folder for one file, `maps.db`.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("maps.db")
    }

    async fn open(&self) -> Sqlite {
        Sqlite::open(self.path()).await.unwrap()
    }

    /// Whether the file is open nowhere. SQLite changes its journal mode only then.
    fn is_free(&self) -> bool {
        let other = self.other();
        other.busy_timeout(Duration::ZERO).unwrap();
        let mode = other.pragma_update_and_check(None, "journal_mode", "DELETE", |row| {
            row.get::<_, String>(0)
        });
        mode.is_ok_and(|mode| mode == "delete")
    }

    /// Waits until all threads have closed the file.
    fn wait_until_free(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.is_free() {
            assert!(Instant::now() < deadline, "the file is still open");
            std::thread::yield_now();
        }
    }

    /// Opens another program's connection to the same file.
    fn other(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}
