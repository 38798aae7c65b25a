//! Memory usage and order during a long outage.

use std::time::Duration;

use persistify::{ErrorKind, PersistentMap, testing::Method};

use crate::support::{
    HOUR, SECOND, builder, impatient, in_memory, open, pairs, settle, steady, store, stored,
};

#[tokio::test(start_paused = true)]
async fn ten_thousand_pending_keys_survive_an_outage() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", steady).await;
    store.down(ErrorKind::Unavailable);
    for round in 0..10 {
        map.extend((0..10_000).map(|n| (n.to_string(), n + round)));
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(map.pending(), 10_000);
    }
    store.up();
    map.health()
        .wait_for(|health| health.is_healthy())
        .await
        .unwrap();
    map.flush().await.unwrap();
    assert_eq!(map.pending(), 0);
    assert_eq!(stored(&store).await, in_memory(&map));
}

#[tokio::test(start_paused = true)]
async fn a_million_writes_to_a_hundred_keys_stay_a_hundred() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.down(ErrorKind::Unavailable);
    let keys: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    for n in 0..1_000_000_u32 {
        map.insert(&keys[n as usize % 100], n);
        if n.is_multiple_of(10_000) {
            tokio::time::sleep(SECOND / 2).await;
            assert!(map.pending() <= 100);
        }
    }
    assert_eq!((map.pending(), map.len()), (100, 100));
    store.up();
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, in_memory(&map));
}

#[tokio::test(start_paused = true)]
async fn a_million_inserts_each_with_its_remove_leave_nothing() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.down(ErrorKind::Unavailable);
    map.insert("stays", 1);
    for n in 0..1_000_000_u32 {
        let key = n.to_string();
        map.insert(&key, n);
        assert_eq!(map.remove(&key), Some(n));
        if n.is_multiple_of(10_000) {
            tokio::time::sleep(SECOND / 2).await;
        }
    }
    assert_eq!((map.pending(), map.len()), (1, 1));
    store.up();
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("stays", 1)]));
    let probes = store.batches();
    assert!(
        probes
            .iter()
            .all(|batch| crate::support::keys(batch) == ["stays"])
    );
}

/// A key that was in a failed commit when it was removed left a tombstone. It waited to delete an
/// entry that the store never had.
#[test]
fn inserts_with_removes_on_eight_threads_leave_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    let millis = Duration::from_millis(1);
    let store = store();
    let open = builder::<u32>(&store).batch(1, millis).retry(
        impatient()
            .base_delay(millis)
            .max_delay(millis)
            .probe_delay(millis),
    );
    let map = runtime.block_on(open.open()).unwrap();
    store.down(ErrorKind::Unavailable);
    map.insert("stays", 1);
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let map = map.clone();
            threads.spawn(move || {
                for n in 0..125_000 {
                    let key = format!("{thread}/{n}");
                    map.insert(&key, n);
                    assert_eq!(map.remove(&key), Some(n));
                }
            });
        }
    });
    assert!(store.calls(Method::Commit) > 0);
    runtime.block_on(async {
        // The changes of a commit in flight are pending again once it fails.
        let probes = store.calls(Method::Commit);
        store.ended(Method::Commit, probes + 2).await;
        assert_eq!((map.stats().pending, map.len()), (1, 1));
        store.up();
        let mut health = map.health();
        health.wait_for(|health| health.is_healthy()).await.unwrap();
        map.close().await.unwrap();
        assert_eq!(stored(&store).await, pairs([("stays", 1)]));
    });
}

#[tokio::test(start_paused = true)]
async fn beyond_max_pending_saves_are_turned_away_and_change_nothing() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map)
            .batch(1_000, HOUR)
            .max_pending(3)
            .retry(impatient())
    })
    .await;
    store.down(ErrorKind::Unavailable);
    map.extend([("a", 1), ("b", 2), ("c", 3)]);
    let before = in_memory(&map);
    let errors = [
        map.insert_and_save("d", 4).await.unwrap_err(),
        map.insert_and_save("a", 4).await.unwrap_err(),
        map.try_insert_and_save("d", 4).await.unwrap_err(),
        map.update_and_save("a", |n| *n += 1).await.unwrap_err(),
        map.remove_and_save("a").await.unwrap_err(),
        map.clear_and_save().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.may_have_applied());
        assert!(error.to_string().contains("max_pending"), "{error}");
    }
    assert_eq!(in_memory(&map), before);
    assert_eq!(store.calls(Method::Commit), 0);
    map.insert("d", 4);
    assert_eq!(map.pending(), 4);
    store.up();
    map.flush().await.unwrap();
    map.insert_and_save("e", 5).await.unwrap();
    settle().await;
    assert_eq!(stored(&store).await, in_memory(&map));
}
