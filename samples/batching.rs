//! The triggers of a flush: the number of pending keys, the age of the oldest
//! change, or a call of `flush`.
//!
//! ```text
//! cargo run --example batching
//! ```

use std::time::{Duration, Instant};

use persistify::{Memory, PersistentMap, Result};

const HOUR: Duration = Duration::from_secs(60 * 60);
const MOMENT: Duration = Duration::from_millis(300);

#[tokio::main]
async fn main() -> Result<()> {
    let hits: PersistentMap<u64> = PersistentMap::builder(Memory::new(), "hits")
        .batch(100, HOUR) // at 100 pending keys, or an hour after the first change
        .open()
        .await?;

    println!("batch(100 keys, 1 hour)");
    for n in 0..99 {
        hits.insert(format!("page {n}"), 1);
    }
    println!(
        "   99 keys written: {} pending, {} commits",
        hits.pending(),
        hits.stats().commits
    );
    assert_eq!((hits.pending(), hits.stats().commits), (99, 0));

    hits.insert("page 99", 1);
    let took = next_commit(&hits, 0).await;
    println!("  the 100th key:    all committed {took:.0?} later (size)");

    // The triggers can be changed while the map is open.
    hits.set_batch(100, MOMENT)?;
    println!("batch(100 keys, {MOMENT:?})");
    let commits = hits.stats().commits;
    for n in 0..3 {
        hits.insert(format!("page {n}"), 2);
    }
    let took = next_commit(&hits, commits).await;
    println!("    3 keys written: committed {took:.0?} later (age)");
    assert!(
        took + Duration::from_millis(10) >= MOMENT,
        "too early: {took:?}"
    );

    // A commit contains the current value of each changed key, not its history.
    let before = hits.stats();
    for _ in 0..10_000 {
        hits.update("page 0", |n| *n += 1);
    }
    hits.flush().await?;
    let after = hits.stats();
    let changes = after.changes - before.changes;
    let commits = after.commits - before.commits;
    println!("10,000 writes to one key, then a flush: {changes} change(s) in {commits} commit(s)");
    assert!(changes <= 10, "writes to one key were not merged");

    let commits = after.commits;
    hits.flush().await?;
    assert_eq!(hits.stats().commits, commits);
    println!("a flush without pending changes: no call of the store");
    hits.close().await
}

/// Waits for the next commit. Returns how long it took.
async fn next_commit(hits: &PersistentMap<u64>, commits: u64) -> Duration {
    let begun = Instant::now();
    while hits.stats().commits == commits {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}
