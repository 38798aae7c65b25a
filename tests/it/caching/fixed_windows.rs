//! Reads and writes that do not move the deadline.

use std::{sync::Arc, thread};

use persistify::{Memory, Op, testing::Faulty, testing::ManualClock};

use super::{SECOND, builder, open, seconds};
use crate::support::{records, settle, start, stored_values};

#[tokio::test]
async fn a_peek_does_not_extend() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(10))).await;
    map.extend([("peeked", 1), ("read", 2)]);
    map.flush().await.unwrap();
    for _ in 0..9 {
        clock.advance(SECOND);
        assert_eq!(map.peek("peeked"), Some(1));
        assert_eq!(map.peek_with("peeked", |n| n + 1), Some(2));
        assert_eq!(map.get("read"), Some(2));
    }
    clock.advance(SECOND);
    assert_eq!((map.peek("peeked"), map.peek("read")), (None, Some(2)));
    assert_eq!(map.peek_with("none", |n| *n), None);
    // Reads are written to the store, peeks are not.
    map.flush().await.unwrap();
    map.peek("read");
    assert_eq!(map.pending(), 0);
}

/// A counter that was updated at each call never expired, because each update restarted its TTL.
#[tokio::test]
async fn an_update_that_keeps_the_ttl_ends_with_its_window() {
    for own in [None, Some(seconds(10))] {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let times =
            || builder(&store, &clock).time_to_live(seconds(if own.is_some() { 99 } else { 10 }));
        let map = open(times()).await;
        for window in 0..3 {
            for n in 1..=10 {
                map.upsert_keeping_ttl("a", 1, own, |n| *n += 1);
                assert_eq!(map.get("a"), Some(n), "{window}");
                clock.advance(SECOND);
                settle().await;
            }
            assert_eq!(map.get("a"), None);
        }
        // A restart in the middle does not extend it either.
        map.upsert_keeping_ttl("a", 1, own, |n| *n += 1);
        for _ in 0..5 {
            clock.advance(SECOND);
            map.update_keeping_ttl("a", |n| *n += 1).unwrap();
        }
        map.close().await.unwrap();
        let map = open(times()).await;
        map.update_keeping_ttl_and_save("a", |n| *n += 1)
            .await
            .unwrap();
        clock.advance(seconds(4));
        assert_eq!(map.update_keeping_ttl("a", |n| *n), Some(7));
        clock.advance(SECOND);
        assert_eq!(map.update_keeping_ttl("a", |n| *n), None);
        // A plain `update` restarts the whole TTL.
        map.upsert_keeping_ttl("b", 1, own, |n| *n += 1);
        clock.advance(seconds(5));
        map.update_keeping_ttl("b", |n| *n += 1);
        map.update("b", |n| *n += 1);
        clock.advance(seconds(9));
        assert_eq!(map.get("b"), Some(3));
    }
}

#[tokio::test]
async fn an_update_that_keeps_the_ttl_keeps_the_idle_time_too() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || {
        builder(&store, &clock)
            .time_to_live(seconds(30))
            .time_to_idle(seconds(10))
    };
    let map = open(times()).await;
    map.insert("a", 1);
    for _ in 0..9 {
        clock.advance(SECOND);
        map.update_keeping_ttl("a", |n| *n += 1);
    }
    map.close().await.unwrap();
    let map = open(times()).await;
    assert_eq!(map.peek("a"), Some(10));
    clock.advance(SECOND);
    assert_eq!(map.peek("a"), None);
}

/// An update that keeps the TTL came after a read whose deadline was not saved yet, and was taken
/// for part of the read: only the deadline was saved, and the value was lost.
#[tokio::test]
async fn an_update_that_keeps_the_ttl_is_saved_with_its_value() {
    let store = Faulty::new(Memory::new());
    let clock = ManualClock::new(start());
    let map = open(builder(&store, &clock).time_to_idle(seconds(10))).await;
    map.insert_and_save("a", 1).await.unwrap();
    clock.advance(seconds(5));
    map.get("a");
    map.update_keeping_ttl("a", |n| *n = 2);
    let read_until = map.expires_at("a");
    map.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(store.inner()).await["a"], 2);
    assert_eq!(records(store.inner()).await["a"].expires_at, read_until);
    let last = store.batches().pop().unwrap();
    assert!(matches!(last.maps[0].changes[0].op, Op::Put { .. }));
}

/// Several threads count calls. None is lost or counted twice, even if a window ends between a read
/// and a write.
#[tokio::test]
async fn calls_of_several_threads_are_counted_once() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    let map = Arc::new(map);
    let count = |_| {
        let map = map.clone();
        thread::spawn(move || {
            for _ in 0..1_000 {
                map.upsert_keeping_ttl("a", 1, None, |n| *n += 1);
            }
        })
    };
    for thread in (0..4).map(count).collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(map.get("a"), Some(4_000));
}
