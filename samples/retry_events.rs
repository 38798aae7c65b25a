//! The events of an outage: a store goes down and comes back. No change is lost.
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
    // Injects failures into any provider.
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
    let mut health = stock.health(); // changes when the store goes down or comes back

    stock.insert_and_save("apple", 1).await?;
    println!("the store is up:   apple is saved");

    store.down(ErrorKind::Unavailable);
    println!("the store is down: the program writes pear in memory");
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

    // Reads and writes in memory keep working.
    stock.update("pear", |n| *n += 1);
    assert_eq!(stock.get("pear"), Some(3));
    println!(
        "   the map keeps working: pear is 3; pending keys: {}",
        stock.pending()
    );

    // A call that waits for the store gets the error.
    let error = stock.insert_and_save("plum", 4).await;
    let error = error.expect_err("the store is down");
    println!("   a save now: {error:?}");

    store.up();
    // The next probe detects the recovery. `stock.retry_now()` would try at once.
    let up = health.wait_for(Health::is_healthy).await;
    assert!(up.is_ok(), "the map is open");
    drop(up);
    println!("the store is up:   a probe has detected it");
    stock.flush().await?;
    let calls = store.calls(Method::Commit);
    println!("   all changes are saved, after {calls} attempts in total");
    stock.close().await?;

    let again = PersistentMap::builder(store, "stock").open().await?;
    let saved = ["apple", "pear", "plum"].map(|key| again.get(key));
    println!("after a restart:   apple, pear, plum = {saved:?}");
    assert_eq!(saved, [Some(1), Some(3), Some(4)]);
    again.close().await
}
