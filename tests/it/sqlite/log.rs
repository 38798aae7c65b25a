//! The length of the write-ahead log.

use std::{fs, time::Instant};

use persistify::{Batch, Provider};
use tokio::task::yield_now;

use super::*;

const PAGE: u64 = 4_096;

/// The length to which SQLite truncates a longer log (`journal_size_limit`).
const MAX_KEPT: u64 = 64 << 20;

/// A batch that fills more than `pages` pages.
fn batch_over(pen: &mut Pen, pages: usize) -> Batch {
    let value = format!("\"{}\"", "x".repeat(4_096));
    let mut batch = pen.changes(&name("m"), Vec::new());
    let keys = (0..pages).map(|n| format!("{} {n}", batch.id.sequence));
    let changes = keys.map(|key| put(&key, &value)).collect();
    batch.maps = [MapBatch::new(name("m"), changes)].into();
    batch
}

fn size(place: &Place, end: &str) -> u64 {
    let file = place.folder.path().join(format!("maps.db{end}"));
    fs::metadata(file).unwrap().len()
}

#[tokio::test]
async fn a_long_log_is_moved_into_the_file_unasked() {
    let (place, mut pen) = (Place::new(), Pen::new());
    let sqlite = place.open().await;
    sqlite.commit(&batch_over(&mut pen, 1_000)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while size(&place, "") < 1_000 * PAGE {
        assert!(Instant::now() < deadline, "it is still in the log");
        yield_now().await;
    }
    // The next commit overwrites the log from its beginning.
    let log = size(&place, "-wal");
    sqlite.commit(&batch_over(&mut pen, 500)).await.unwrap();
    assert_eq!(size(&place, "-wal"), log);
}

/// During a long read, the pages of the log cannot be moved into the file, so the log grows. It
/// kept that length until the file was closed.
#[tokio::test]
async fn a_log_that_a_reader_made_long_gets_short_again() {
    let (place, mut pen) = (Place::new(), Pen::new());
    let sqlite = place.open().await;
    sqlite.commit(&batch_over(&mut pen, 1)).await.unwrap();
    let reader = place.other();
    let read = "BEGIN; SELECT count(*) FROM map_m";
    reader.execute_batch(read).unwrap();
    while size(&place, "-wal") <= MAX_KEPT {
        sqlite.commit(&batch_over(&mut pen, 2_000)).await.unwrap();
    }
    reader.execute_batch("ROLLBACK").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while size(&place, "-wal") > MAX_KEPT {
        assert!(Instant::now() < deadline, "it is still as long");
        sqlite.commit(&batch_over(&mut pen, 1)).await.unwrap();
    }
}

/// Commits that waited for another program then run without a pause.
#[tokio::test]
async fn a_log_that_is_written_to_without_a_pause_stays_short() {
    let (place, mut pen) = (Place::new(), Pen::new());
    let sqlite = Sqlite::builder(place.path()).busy_timeout(Duration::from_secs(60));
    let sqlite = sqlite.open().await.unwrap();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batches: Vec<_> = (0..7).map(|_| batch_over(&mut pen, 2_000)).collect();
    let commits = batches.iter().map(|batch| sqlite.commit(batch));
    let all_asked = async { other.execute_batch("ROLLBACK").unwrap() };
    let commits = futures_util::future::join_all(commits);
    let (commits, ()) = tokio::join!(commits, all_asked);
    for done in commits {
        done.unwrap();
    }
    let pages = size(&place, "-wal") / PAGE;
    assert!(pages < 6_000, "{pages} pages");
}
