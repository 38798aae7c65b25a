//! The write-ahead log: how long it gets.

use rusqlite::Connection;

/// How long the file of the log stays, in bytes, once all of it was moved: more
/// than it comes to, unless a long read kept it from being moved.
const MAX_KEPT: i64 = 64 * 1024 * 1024;

/// Limits the log of the connection that writes. A commit that leaves a long log
/// moves its pages into the file, by SQLite's default.
pub(super) fn limit(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_size_limit", MAX_KEPT)
}

/// Moves the pages into the file, as far as no other connection reads them. If
/// another connection is moving them, it leaves them to that one.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
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

    /// A long read keeps the pages of the log from being moved. The log stayed as
    /// long as it had become meanwhile, until the file was closed.
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
        assert!(pages < 6_000, "{pages} pages");
    }
}
