//! Listeners for expired entries.

use std::sync::Arc;

use parking_lot::Mutex;
use persistify::{CachingMap, Change, Memory, testing::ManualClock};

use super::{SECOND, builder, listening, open, seconds};
use crate::support::{put, settle, start, stored_values, write_as_another};

/// Every expired entry that the listener received.
#[tokio::test]
async fn the_listener_hears_of_each_expired_entry_once() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let (listened, heard) = listening(builder(&store, &clock).time_to_live(seconds(10)));
    let map = open(listened).await;
    map.extend((0..300).map(|n| (n.to_string(), n)));
    map.remove("0");
    map.insert("1", 1_001);
    clock.advance(seconds(10));
    // Writers find three expired entries before the sweeper does.
    map.insert("2", 2_002);
    map.remove("3");
    assert_eq!(map.try_insert("4", 4_004), Ok(()));
    map.get("5");
    settle().await;
    let mut expected: Vec<_> = (1..300).map(|n| (n.to_string(), n)).collect();
    expected[0].1 = 1_001;
    let mut told = std::mem::take(&mut *heard.lock());
    told.sort_by_key(|(_, n)| if *n == 1_001 { 1 } else { *n });
    assert_eq!(told, expected);
    clock.advance(seconds(10));
    settle().await;
    let mut told = std::mem::take(&mut *heard.lock());
    told.sort();
    assert_eq!(told, [("2".to_owned(), 2_002), ("4".to_owned(), 4_004)]);
    assert!(map.is_empty());
}

#[tokio::test]
async fn the_listener_may_call_maps_and_may_panic() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map: Arc<Mutex<Option<CachingMap<u64>>>> = Arc::default();
    let calling = map.clone();
    let listened = builder(&store, &clock).on_expire(move |key, value| {
        let map = calling.lock().clone().unwrap();
        map.insert(format!("after {key}"), value);
        map.retain(|key, _| key != "nobody");
        assert_ne!(key, "bad", "the listener panics on purpose");
    });
    *map.lock() = Some(open(listened).await);
    let opened = map.lock().clone().unwrap();
    for key in ["a", "bad", "c"] {
        opened.insert_with_ttl(key, 1, seconds(10));
    }
    clock.advance(seconds(10));
    settle().await;
    let mut keys: Vec<_> = opened.keys().map(|key| key.to_string()).collect();
    keys.sort();
    assert_eq!(keys, ["after a", "after bad", "after c"]);
    // The sweeper survives the panic.
    opened.insert_with_ttl("later", 1, seconds(10));
    clock.advance(seconds(10));
    settle().await;
    assert!(opened.contains_key("after later"));
    opened.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(&store).await, opened.snapshot());
    map.lock().take();
}

/// A `clear` or a `reload` dropped entries that had expired but were not swept yet, and the
/// listener was never called for them.
#[tokio::test]
async fn the_listener_hears_of_what_a_clear_or_a_reload_takes_away() {
    for by_clear in [true, false] {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let (times, heard) = listening(builder(&store, &clock).time_to_live(seconds(10)));
        let map = open(times).await;
        map.insert("replaced", 1);
        map.insert("removed", 2);
        map.flush().await.unwrap();
        // Another process, whose clock is ahead, has already swept.
        write_as_another(
            &store,
            vec![put("replaced", "5"), Change::delete("removed")],
        )
        .await;
        clock.advance(seconds(9));
        map.insert("lives", 3);
        if by_clear {
            map.insert_with_ttl("pending", 4, SECOND);
        }
        map.flush().await.unwrap();
        let due = clock.clone();
        // The sweeper gets no turn between the expiry and the `clear` or `reload`.
        if by_clear {
            due.advance(SECOND);
            map.clear();
        } else {
            let reload = map.reload();
            due.advance(SECOND);
            reload.await.unwrap();
        }
        let mut heard: Vec<_> = heard.lock().clone();
        heard.sort();
        let mut expected = vec![("removed".to_owned(), 2), ("replaced".to_owned(), 1)];
        if by_clear {
            expected.insert(0, ("pending".to_owned(), 4));
        }
        assert_eq!(heard, expected, "by clear: {by_clear}");
    }
}
