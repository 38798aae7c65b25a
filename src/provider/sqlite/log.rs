//! The write-ahead log, and when its pages are moved into the file.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use tracing::warn;

use crate::trace::PROVIDER;

/// From how many pages on the log is moved as soon as there is nothing else to
/// do: as many as SQLite takes by default.
const MOVED_WHEN_IDLE: i64 = 1_000;

/// From how many pages on it is moved within a commit, if there always is
/// something else to do.
const MOVED_AT_ONCE: i64 = 10_000;

/// How long the file of the log stays, in bytes, once all of it was moved: more
/// than it comes to, unless someone has read for long and kept it from being
/// moved.
const MAX_KEPT: i64 = 64 * 1024 * 1024;

/// From this SQLite on (3.51), the log can be measured without moving it. An
/// older one takes the word for a request to move it.
const MEASURES: i32 = 3_051_000;

/// The log of a connection.
///
/// Callers that wait for a commit need not wait until its pages are moved: they
/// are safe in the log. So this is done after the answer. And a log that was
/// moved whole is written anew from its start, which is faster than to let it
/// grow. An SQLite that cannot measure its log moves it within a commit, by the
/// rule that it has by default.
pub(super) struct Log {
    /// Whether something was asked of the connection since the log was measured.
    is_changed: Cell<bool>,
    measures: bool,
    path: PathBuf,
}

impl Log {
    /// Looks after the log of this connection, in place of SQLite.
    pub(super) fn of(connection: &Connection, path: &Path) -> rusqlite::Result<Self> {
        let measures = rusqlite::version_number() >= MEASURES;
        connection.pragma_update(None, "journal_size_limit", MAX_KEPT)?;
        if measures {
            connection.pragma_update(None, "wal_autocheckpoint", MOVED_AT_ONCE)?;
        }
        Ok(Self {
            is_changed: Cell::new(false),
            measures,
            path: path.to_owned(),
        })
    }

    /// Notes that the log may be longer than it was.
    pub(super) fn changed(&self) {
        self.is_changed.set(self.measures);
    }

    /// Whether it is time to move it, now that there is nothing else to do.
    pub(super) fn is_long(&self, connection: &Connection) -> bool {
        if !self.is_changed.replace(false) {
            return false;
        }
        // A log that cannot be measured cannot be moved either: a commit says why.
        let pages = pages_after(connection, "NOOP");
        pages.is_ok_and(|pages| pages >= MOVED_WHEN_IDLE)
    }

    /// Moves it, while there is nothing else to do.
    pub(super) fn idle(&self, connection: &Connection) {
        // The pages stay in the log if they cannot be moved, and after the next
        // commit it is tried again.
        if let Err(cause) = move_pages(connection) {
            warn!(target: PROVIDER, path = %self.path.display(), %cause, "the log of the SQLite file could not be moved into it; nothing is lost");
        }
    }
}

/// Moves the pages into the file, as far as no one reads them. If another
/// connection is moving them, it leaves them to that one.
pub(super) fn move_pages(connection: &Connection) -> rusqlite::Result<()> {
    pages_after(connection, "PASSIVE").map(drop)
}

/// How many pages are in the log only, after this.
fn pages_after(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| {
        Ok(row.get::<_, i64>("log")? - row.get::<_, i64>("checkpointed")?)
    })
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
