//! Counts 100,000 events from 8 tasks in memory. At the end, all of them are in a
//! SQLite database.
//!
//! ```text
//! cargo run --release --example analytics
//! ```

use std::{path::Path, time::Instant};

use persistify::{PersistentMap, Result, Sqlite};
use serde::{Deserialize, Serialize};

const TASKS: u64 = 8;
const EVENTS: u64 = 100_000;
const PAGES: u64 = 1_000;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Page {
    views: u64,
    bytes: u64,
}

/// Counts the share of one task of the events.
fn count(pages: &PersistentMap<Page>, task: u64) {
    for n in 0..EVENTS / TASKS {
        let event = n * TASKS + task;
        let key = format!("/page/{}", event * event % PAGES);
        let view = |page: &mut Page| {
            page.views += 1;
            page.bytes += 512 + event % 100;
        };
        let mut first = Page::default();
        view(&mut first);
        pages.upsert(key, first, view);
    }
}

async fn open(db: &Path) -> Result<PersistentMap<Page>> {
    let file = Sqlite::open(db).await?;
    PersistentMap::builder(file, "pages").open().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("analytics.db");
    let pages = open(&db).await?;

    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let pages = pages.clone();
        tasks.spawn(async move { count(&pages, task) });
    }
    tasks.join_all().await;
    let counted = begun.elapsed();
    pages.close().await?;
    let saved = begun.elapsed();

    #[expect(clippy::cast_precision_loss, reason = "a rate, printed only")]
    let rate = EVENTS as f64 / counted.as_secs_f64();
    let stats = pages.stats();
    println!("{EVENTS} events from {TASKS} tasks counted in {counted:.1?}: {rate:.0} a second");
    let (rows, commits) = (stats.changes, stats.commits);
    println!("all saved in SQLite after {saved:.1?}: {rows} rows written in {commits} commit(s)");

    // After a restart of the program, every event is there.
    let pages = open(&db).await?;
    let mut total = Page::default();
    pages.for_each(|_, page| {
        total.views += page.views;
        total.bytes += page.bytes;
    });
    let mut top: Vec<_> = pages.iter().collect();
    top.sort_by_key(|(key, page)| (std::cmp::Reverse(page.views), key.clone()));
    println!("after a restart: {total:?}; most views: {:?}", top[0]);
    assert_eq!(total.views, EVENTS);
    pages.close().await?;
    Ok(())
}
