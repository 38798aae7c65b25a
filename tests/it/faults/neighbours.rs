//! Maps of one store notify each other when the store is up.

use std::time::Duration;

use persistify::{
    ErrorKind, Heartbeat, PersistentMap, Provider,
    testing::{Fault, Method},
};
use tokio::time::{Instant, sleep};

use crate::support::{HOUR, MINUTE, Plain, SECOND, Store, impatient, store};

async fn map(store: impl Provider, name: &str) -> PersistentMap<u32> {
    let map = PersistentMap::builder(store, name).batch(1_000, HOUR);
    let map = map.retry(impatient().probe_delay(MINUTE));
    map.open().await.unwrap()
}

/// Makes the commits of this map alone fail from now on.
fn fail_only(store: &Store, map: &'static str) {
    store.set_rule(move |call| match &call.batch {
        Some(batch) if batch.maps[0].map.as_str() == map => Fault::Before(ErrorKind::Unusable),
        _ => Fault::None,
    });
}

/// A map found out that the store was up. Another map of the same store kept its changes at risk
/// until its own next probe.
#[tokio::test(start_paused = true)]
async fn a_map_that_finds_the_store_well_wakes_the_others() {
    let store = store();
    let (a, b) = (map(store.clone(), "a").await, map(store.clone(), "b").await);
    let idle = map(store.clone(), "idle").await;
    for finder in [&a, &idle] {
        store.down(ErrorKind::Unavailable);
        a.insert("x", 1);
        b.insert("x", 1);
        a.flush().await.unwrap_err();
        b.flush().await.unwrap_err();
        sleep(SECOND).await;
        store.up();
        let begun = Instant::now();
        // The idle map has not noticed the outage.
        finder.insert_and_save("y", 2).await.unwrap();
        for map in [&a, &b] {
            map.health().wait_for(|h| h.is_healthy()).await.unwrap();
            assert_eq!(map.pending(), 0);
        }
        assert!(begun.elapsed() < SECOND / 2, "{:?}", begun.elapsed());
    }
}

/// A map that is down for a reason of its own ignores the successes of its neighbours: they are
/// frequent, and retrying after each would overload the store.
#[tokio::test(start_paused = true)]
async fn a_map_in_trouble_of_its_own_heeds_the_others_less_and_less() {
    let store = store();
    let (a, b) = (map(store.clone(), "a").await, map(store.clone(), "b").await);
    fail_only(&store, "b");
    b.insert_and_save("x", 1).await.unwrap_err();
    let before = attempts(&store, "b");
    for n in 0..6_000 {
        a.insert_and_save("x", n).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    // In ten minutes: ten probes, and the attempts while its pause was still doubling.
    let attempts = attempts(&store, "b") - before;
    assert!((10..=22).contains(&attempts), "{attempts}");
    store.behave();
    b.flush().await.unwrap();
}

fn attempts(store: &Store, map: &str) -> usize {
    let batches = store.batches();
    let of_map = |batch: &&persistify::Batch| batch.maps[0].map.as_str() == map;
    batches.iter().filter(of_map).count()
}

/// If the provider has no signal, each map finds out by itself.
#[tokio::test(start_paused = true)]
async fn a_map_without_a_signal_finds_the_store_well_by_itself() {
    let plain = persistify::testing::Faulty::new(Plain(persistify::Memory::new()));
    assert!(plain.heartbeat().is_none());
    let (a, b) = (map(plain.clone(), "a").await, map(plain.clone(), "b").await);
    plain.down(ErrorKind::Unavailable);
    a.insert_and_save("x", 1).await.unwrap_err();
    b.insert_and_save("x", 1).await.unwrap_err();
    plain.up();
    a.flush().await.unwrap();
    sleep(SECOND).await;
    assert!(!b.health().borrow().is_healthy());
    sleep(MINUTE).await;
    assert!(b.health().borrow().is_healthy());
    assert_eq!(plain.calls(Method::Ping), 0);
}

/// All handles of a store share its signal, wrapped or not.
#[tokio::test]
async fn wrapped_or_cloned_a_provider_has_one_signal() {
    let beats = |provider: &dyn Provider| format!("{:?}", provider.heartbeat());
    let store = store();
    let some = format!("{:?}", Some(Heartbeat::new()));
    assert_eq!(beats(&store), some);
    assert_eq!(beats(&std::sync::Arc::new(store)), some);
}
