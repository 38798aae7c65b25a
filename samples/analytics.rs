//! Counting: 100,000 events from 8 tasks, at the speed of memory, and every
//! one of them in a database at the end.
//!
//! ```text
//! cargo run --release --example analytics
//! ```

use std::{error::Error, time::Instant};

use persistify::{PersistentMap, Sqlite};
use serde::{Deserialize, Serialize};

const TASKS: u64 = 8;
const EVENTS: u64 = 100_000;
const PAGES: u64 = 1_000;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Page {
    views: u64,
    bytes: u64,
}

/// One task's share of the events.
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("analytics.db");
    let pages: PersistentMap<Page> = PersistentMap::builder(Sqlite::open(&db).await?, "pages")
        .open()
        .await?;

    let begun = Instant::now();
    let tasks = (0..TASKS).map(|task| {
        let pages = pages.clone();
        tokio::task::spawn_blocking(move || count(&pages, task))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await?;
    }
    let counted = begun.elapsed();
    pages.close().await?;
    let saved = begun.elapsed();

    #[expect(clippy::cast_precision_loss, reason = "a rate, to look at")]
    let rate = EVENTS as f64 / counted.as_secs_f64();
    let stats = pages.stats();
    println!("{EVENTS} events from {TASKS} tasks counted in {counted:.1?}: {rate:.0} a second");
    println!(
        "all in SQLite after {saved:.1?}: {} rows in {} commits",
        stats.changes, stats.commits
    );

    // A new start of the program finds every event.
    let pages: PersistentMap<Page> = PersistentMap::builder(Sqlite::open(&db).await?, "pages")
        .open()
        .await?;
    let mut total = Page::default();
    pages.for_each(|_, page| {
        total.views += page.views;
        total.bytes += page.bytes;
    });
    let mut top: Vec<_> = pages.iter().collect();
    top.sort_by_key(|(key, page)| (std::cmp::Reverse(page.views), key.clone()));
    println!(
        "after a restart: {} views, most of them of {:?}",
        total.views, top[0]
    );
    assert_eq!(total.views, EVENTS);
    pages.close().await?;
    Ok(())
}
