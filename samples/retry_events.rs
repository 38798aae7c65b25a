//! A store goes down and comes back: what the map reports. Nothing is lost.
//!
//! ```text
//! cargo run --example retry_events
//! ```

use std::time::Duration;

use persistify::{
    ErrorKind, Health, Memory, PersistentMap, Result, RetryPolicy,
    testing::{Faulty, Method},
};

#[tokio::main]
async fn main() -> Result<()> {
    // A provider that fails when it is told to; any provider can be put inside.
    let store = Faulty::new(Memory::new());
    let stock: PersistentMap<u32> = PersistentMap::builder(store.clone(), "stock")
        .batch(1_000, Duration::from_millis(50))
        .retry(
            RetryPolicy::default()
                .max_attempts(3)
                .base_delay(Duration::from_millis(50))
                .probe_delay(Duration::from_millis(200)),
        )
        .open()
        .await?;
    let mut failures = stock.failures(); // every failed attempt
    let mut health = stock.health(); // up or down, and when that changes

    stock.insert_and_save("apple", 1).await?;
    println!("the store is up:   apple is saved");

    store.down(ErrorKind::Unavailable);
    println!("the store is down; the program goes on and writes pear");
    stock.insert("pear", 2);
    loop {
        let failed = failures.recv().await.expect("the map is open");
        println!(
            "   attempt {} of {} failed, {} key(s), {:?}: {}",
            failed.attempt, failed.max_attempts, failed.keys.count, failed.keys.first, failed.error
        );
        if failed.is_final {
            break;
        }
    }
    let down = health.wait_for(|health| !health.is_healthy()).await;
    let kind = down.expect("the map is open").kind();
    println!("   health: down ({kind:?})");

    // Memory is not down: reads and writes are what they were.
    stock.update("pear", |n| *n += 1);
    assert_eq!(stock.get("pear"), Some(3));
    println!(
        "   still at work: pear is 3; keys pending: {}",
        stock.pending()
    );

    // Whoever asks for a save is told the truth.
    let error = stock.insert_and_save("plum", 4).await;
    let error = error.expect_err("the store is down");
    println!("   a save now: {error:?}");

    store.up();
    // Nobody waits: a probe finds out. `stock.retry_now()` need not wait for it.
    let up = health.wait_for(Health::is_healthy).await;
    assert!(up.is_ok(), "the map is open");
    drop(up);
    println!("the store is up:   the map found out by itself");
    stock.flush().await?;
    let calls = store.calls(Method::Commit);
    println!("   all saved, after {calls} attempts in all");
    stock.close().await?;

    let again = PersistentMap::builder(store, "stock").open().await?;
    let saved = ["apple", "pear", "plum"].map(|key| again.get(key));
    println!("after a restart:   apple, pear, plum = {saved:?}");
    assert_eq!(saved, [Some(1), Some(3), Some(4)]);
    again.close().await
}
