//! Several reads and changes of one entry in one call.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use persistify::{CachingMap, Memory, PersistentMap, testing::ManualClock};

use crate::support::{HOUR, open, open_caching, pairs, steady, store, stored};

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_there_is_looked_at_changed_and_removed_in_one_call() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.insert_and_save("a", 1).await.unwrap();
    let seen = map.entry("a", |entry| {
        assert_eq!(entry.key(), "a");
        let seen = entry.get().copied();
        entry.and_modify(|n| *n += 1);
        *entry.or_insert(9) += 10;
        (seen, entry.get().copied())
    });
    assert_eq!((seen, map.pending()), ((Some(1), Some(12)), 1));
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 12)]));
    let taken = map.entry("a", |entry| {
        (entry.remove(), entry.insert(3), entry.remove())
    });
    assert_eq!(taken, (Some(12), None, Some(3)));
    map.flush().await.unwrap();
    assert_eq!((map.len(), stored(&store).await), (0, pairs([])));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_not_there_is_made_once_and_only_if_asked_for() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    let nothing = map.entry("a", |entry| {
        entry.and_modify(|n| *n += 1);
        (entry.get().copied(), entry.remove())
    });
    assert_eq!((nothing, map.pending()), ((None, None), 0));
    let made = map.entry("a", |entry| {
        *entry.and_modify(|_| unreachable!()).or_insert_with(|| 5)
    });
    let kept = map.entry("a", |entry| *entry.or_insert_with(|| unreachable!()));
    assert_eq!((made, kept, map.pending()), (5, 5, 1));
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 5)]));
    // A read is no change.
    map.entry("a", |entry| assert_eq!(entry.get(), Some(&5)));
    assert_eq!(map.pending(), 0);
}

/// The reference may be used to change the value. If the entry did not count as changed, memory and
/// store would differ forever.
#[tokio::test(start_paused = true)]
async fn a_change_through_the_reference_that_or_insert_hands_out_is_saved() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.entry("a", |entry| *entry.or_insert(0) = 7);
    assert_eq!(map.pending(), 1);
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 7)]));
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_leaves_its_entry_as_it_left_it_and_a_working_map() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        map.entry("a", |entry| {
            *entry.or_insert(1) = 2;
            panic!("on purpose")
        })
    }));
    panicked.unwrap_err();
    let nested = catch_unwind(AssertUnwindSafe(|| map.entry("a", |_| map.len())));
    let message = *nested.unwrap_err().downcast::<&str>().unwrap();
    assert!(message.contains("inside a map's closure"), "{message}");
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
}

/// A call could report only one expired value. An entry that expired while the closure ran was
/// dropped silently.
#[tokio::test(start_paused = true)]
async fn each_value_that_expires_while_the_closure_runs_is_told() {
    let clock = ManualClock::new(std::time::SystemTime::now());
    let told: Arc<Mutex<Vec<u32>>> = Arc::default();
    let listener = told.clone();
    let map: CachingMap<u32> = open_caching::<u32>(Memory::new(), "map", |map| {
        map.time_to_live(Duration::from_secs(1))
            .clock(clock.clone())
            .on_expire(move |_, value| listener.lock().unwrap().push(value))
    })
    .await;
    map.insert("a", 1);
    let step = Duration::from_secs(2);
    clock.advance(step);
    let left = map.entry("a", |entry| {
        assert_eq!(entry.get(), None);
        assert_eq!(entry.remove(), None);
        entry.insert(2);
        clock.advance(step);
        let expired = entry.insert(3);
        clock.advance(step);
        (expired, *entry.or_insert(4))
    });
    assert_eq!(left, (None, 4));
    assert_eq!(*told.lock().unwrap(), [1, 2, 3]);
    map.close().await.unwrap();
}

#[test]
fn increments_of_many_threads_through_entries_add_up() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = PersistentMap::builder(Memory::new(), "map").open();
    let map: PersistentMap<u64> = runtime.block_on(open).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..1_000 {
                    let key = (n % 3).to_string();
                    map.entry(&key, |entry| *entry.or_insert(0) += 1);
                }
            });
        }
    });
    assert_eq!(map.values().sum::<u64>(), 4_000);
    runtime.block_on(map.close()).unwrap();
}
