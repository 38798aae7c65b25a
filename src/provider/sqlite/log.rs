//! The write-ahead log, and when its pages are moved into the file.

use std::{
    ffi::c_int,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use rusqlite::{Connection, ErrorCode, hooks::Wal, wal::CheckpointMode};
use tracing::warn;

/// From how many pages on the log is moved as soon as there is nothing else to
/// do: as many as SQLite takes by default.
const MOVED_WHEN_IDLE: i32 = 1_000;

/// From how many pages on it is moved within a commit, if there always is
/// something else to do.
const MOVED_AT_ONCE: i32 = 10_000;

/// How long the file of the log stays, in bytes, once all of it was moved: more
/// than it comes to, unless someone has read for long and kept it from being
/// moved.
const MAX_KEPT: i64 = 64 * 1024 * 1024;

/// How far only what no one reads is moved.
const MODE: CheckpointMode = CheckpointMode::PASSIVE;

/// The log of a connection.
///
/// Who waits for a commit need not wait until its pages are moved: they are
/// safe in the log. So this is done after the answer. And a log that was moved
/// whole is written anew from its start, which is faster than to let it grow.
pub(super) struct Log {
    pages: Arc<AtomicI32>,
    path: PathBuf,
}

impl Log {
    /// Looks after the log of this connection, in place of SQLite.
    pub(super) fn of(connection: &mut Connection, path: &Path) -> rusqlite::Result<Self> {
        let log = Self {
            pages: Arc::default(),
            path: path.to_owned(),
        };
        connection.pragma_update(None, "journal_size_limit", MAX_KEPT)?;
        let (pages, path) = (Arc::clone(&log.pages), log.path.clone());
        connection.wal_hook(Some(move |wal: &mut Wal, now: c_int| {
            pages.store(now, Ordering::Relaxed);
            if now >= MOVED_AT_ONCE {
                report(wal.checkpoint_v2(MODE), &path);
            }
            // The commit is done, so it must not fail with what comes after.
            Ok(())
        }))?;
        Ok(log)
    }

    /// Whether it is time to move it, once there is nothing else to do.
    pub(super) fn is_long(&self) -> bool {
        self.pages.load(Ordering::Relaxed) >= MOVED_WHEN_IDLE
    }

    /// Moves it, while there is nothing else to do.
    pub(super) fn idle(&self, connection: &Connection) {
        self.pages.store(0, Ordering::Relaxed);
        report(move_pages(connection), &self.path);
    }
}

/// Moves the pages into the file, as far as no one reads them.
pub(super) fn move_pages(connection: &Connection) -> rusqlite::Result<(c_int, c_int)> {
    connection.wal_checkpoint_v2(None::<&str>, MODE)
}

/// The pages stay in the log if they cannot be moved, and after the next commit
/// it is tried again.
fn report(moved: rusqlite::Result<(c_int, c_int)>, path: &Path) {
    match moved {
        Err(cause) if cause.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => {
            warn!(path = %path.display(), %cause, "the log of the SQLite file could not be moved into it; nothing is lost");
        }
        // If it is busy, another connection is moving them.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::mpsc,
        time::{Duration, Instant, SystemTime},
    };

    use rusqlite::Connection;
    use tempfile::TempDir;
    use tokio::task::yield_now;

    use crate::{
        Batch, BatchId, Change, MapBatch, MapName, Payload, Provider, Revision, Sqlite, WriterId,
    };

    use super::MAX_KEPT;

    const PAGE: u64 = 4_096;

    /// A batch that fills more than so many pages.
    fn batch_over(pages: usize, sequence: u64) -> Batch {
        let payload = Payload::json(format!("\"{}\"", "x".repeat(4_096)));
        let put = |n| Change::put(format!("{sequence} {n}"), payload.clone(), None);
        let map = MapBatch::new(MapName::new("m").unwrap(), (0..pages).map(put).collect());
        let id = BatchId::new(WriterId::new(1), sequence);
        Batch::new(id, Revision::ZERO, SystemTime::now(), [map])
    }

    fn size(folder: &TempDir, name: &str) -> u64 {
        fs::metadata(folder.path().join(name)).unwrap().len()
    }

    fn is_long(folder: &TempDir) -> bool {
        size(folder, "a.db-wal") > MAX_KEPT.cast_unsigned()
    }

    #[tokio::test]
    async fn a_long_log_is_moved_into_the_file_without_anyone_asking() {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(folder.path().join("a.db")).await.unwrap();
        sqlite.commit(&batch_over(1_000, 1)).await.unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while size(&folder, "a.db") < 1_000 * PAGE {
            assert!(Instant::now() < deadline, "it is in the log still");
            yield_now().await;
        }
        // What comes next is written from the start of the log again.
        let log = size(&folder, "a.db-wal");
        sqlite.commit(&batch_over(500, 2)).await.unwrap();
        assert_eq!(size(&folder, "a.db-wal"), log);
    }

    /// Someone who reads for long keeps the log from being moved. It was as long
    /// afterwards as it had come to meanwhile, until the file was closed.
    #[tokio::test]
    async fn a_log_that_got_long_because_of_a_reader_gets_short_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let sqlite = Sqlite::open(&path).await.unwrap();
        sqlite.commit(&batch_over(1, 1)).await.unwrap();
        let reader = Connection::open(&path).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM map_m")
            .unwrap();
        let mut sequence = 1;
        while !is_long(&folder) {
            sequence += 1;
            sqlite.commit(&batch_over(2_000, sequence)).await.unwrap();
        }
        reader.execute_batch("ROLLBACK").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_long(&folder) {
            assert!(Instant::now() < deadline, "it is as long still");
            sequence += 1;
            sqlite.commit(&batch_over(1, sequence)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_log_of_a_thread_that_is_never_idle_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(folder.path().join("a.db")).await.unwrap();
        let (go, waiting) = mpsc::channel::<()>();
        let held = sqlite.shared.worker.run(move |_| {
            waiting.recv().unwrap();
            Ok(())
        });
        let batches: Vec<_> = (1..=7).map(|n| batch_over(2_000, n)).collect();
        let commits = batches.iter().map(|batch| sqlite.commit(batch));
        let all_asked = async { go.send(()).unwrap() };
        let (held, commits, ()) =
            tokio::join!(held, futures_util::future::join_all(commits), all_asked);
        held.unwrap();
        for done in commits {
            done.unwrap();
        }
        let pages = size(&folder, "a.db-wal") / PAGE;
        assert!((10_000..14_000).contains(&pages), "{pages} pages");
    }
}
