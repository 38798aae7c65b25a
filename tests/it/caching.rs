//! Expiry: expired entries are absent for every call, immediately and across restarts.

mod fixed_windows;
mod glitches;
mod limits;
mod listener;
mod others;
mod own_times;
mod reads;
mod reopened;
mod restarts;
mod sweeping;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use persistify::{
    CachingMap, CachingMapBuilder, Clock, ErrorKind, Memory, Op, Provider, RetryPolicy,
    testing::{Fault, Faulty, ManualClock, Method},
};

use crate::support::{open_caching, put, records, settle, start, stored_values, write_as_another};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn builder(store: &(impl Provider + Clone), clock: &ManualClock) -> CachingMapBuilder<u64> {
    CachingMap::builder(store.clone(), "map").clock(clock.clone())
}

async fn open(builder: CachingMapBuilder<u64>) -> CachingMap<u64> {
    builder.open().await.unwrap()
}

type Heard = Arc<Mutex<Vec<(String, u64)>>>;

fn listening(builder: CachingMapBuilder<u64>) -> (CachingMapBuilder<u64>, Heard) {
    let heard = Heard::default();
    let hearing = heard.clone();
    let builder = builder.on_expire(move |key, value| hearing.lock().push((key.to_owned(), value)));
    (builder, heard)
}

#[tokio::test]
async fn an_expired_entry_is_gone_for_every_call_swept_or_not() {
    for swept in [false, true] {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
        map.extend((0..20).map(|n| (format!("k{n}"), n)));
        map.insert_with_ttl("stays", 1, seconds(100));
        if swept {
            map.flush().await.unwrap();
        }
        clock.advance(Duration::from_millis(9_996));
        assert_eq!((map.len(), map.get("k0")), (21, Some(0)));
        clock.advance(Duration::from_millis(4));
        if swept {
            settle().await;
        }
        assert_eq!(map.get("k0"), None);
        assert_eq!(map.read("k0", |n| *n), None);
        assert!(!map.contains_key("k0"));
        assert_eq!((map.len(), map.is_empty()), (1, false));
        assert_eq!(map.expires_at("k0"), None);
        let only = HashMap::from([("stays".to_owned(), 1)]);
        assert_eq!(map.snapshot(), only);
        assert_eq!((map.iter().count(), map.keys().count()), (1, 1));
        map.for_each(|key, _| assert_eq!(key, "stays"));
        map.retain(|key, _| key == "stays");
        assert_eq!(map.remove("k1"), None);
        assert_eq!(map.remove_if("k2", |_| true), None);
        assert_eq!(map.update("k3", |n| *n += 1), None);
        assert_eq!(map.replace("k4", 1), None);
        assert_eq!(map.insert("k5", 50), None);
        assert_eq!(map.try_insert("k6", 60), Ok(()));
        assert_eq!(map.get_or_insert_with("k7", || 70), 70);
        map.upsert("k8", 80, |_| panic!("there is nothing to change"));
        let loaded = map.get_or_try_insert_with("k9", || async { Ok::<_, ()>(90) });
        assert_eq!(loaded.await, Ok(90));
        let fresh = [
            ("k5", 50),
            ("k6", 60),
            ("k7", 70),
            ("k8", 80),
            ("k9", 90),
            ("stays", 1),
        ];
        let fresh: HashMap<_, _> = fresh.map(|(key, n)| (key.to_owned(), n)).into();
        assert_eq!(map.snapshot(), fresh);
        settle().await;
        map.flush().await.unwrap();
        assert_eq!(map.snapshot(), fresh, "the sweeper took a fresh entry");
        assert_eq!(stored_values::<u64>(&store).await, fresh);
        clock.advance(seconds(10));
        assert_eq!(map.len(), 1);
        settle().await;
        map.flush().await.unwrap();
        assert_eq!(stored_values::<u64>(&store).await, only);
    }
}

#[tokio::test]
async fn the_time_to_live_counts_from_the_last_write_and_reads_do_not_matter() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    let ends_after = |map: &CachingMap<u64>, n| {
        let early = (start() + seconds(n)).duration_since(map.expires_at("a").unwrap());
        assert!(early.unwrap() <= Duration::from_millis(3));
    };
    map.insert("a", 1);
    ends_after(&map, 10);
    clock.advance(seconds(6));
    map.get("a");
    ends_after(&map, 10);
    map.update("a", |n| *n += 1);
    ends_after(&map, 16);
    clock.advance(seconds(6));
    map.insert("a", 3);
    settle().await;
    clock.advance(seconds(9));
    settle().await;
    assert_eq!(map.get("a"), Some(3));
    clock.advance(seconds(1));
    assert_eq!(map.get("a"), None);
}

#[tokio::test]
async fn the_time_to_idle_counts_from_the_last_read_or_write() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(10))).await;
    map.extend([
        ("get", 1),
        ("read", 1),
        ("contains", 1),
        ("update", 1),
        ("idle", 1),
    ]);
    for _ in 0..5 {
        clock.advance(seconds(9));
        settle().await;
        map.get("get");
        map.read("read", |_| ());
        map.contains_key("contains");
        map.update("update", |_| ());
        // None of these is a read.
        let _ = (map.len(), map.snapshot(), map.expires_at("idle"));
        map.for_each(|_, _| ());
    }
    let mut left: Vec<_> = map.keys().map(|key| key.to_string()).collect();
    left.sort();
    assert_eq!(left, ["contains", "get", "read", "update"]);
    clock.advance(seconds(10));
    assert!(map.is_empty());
}

#[tokio::test]
async fn an_entry_with_both_times_ends_with_the_earlier_one() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = builder(&store, &clock)
        .time_to_live(seconds(25))
        .time_to_idle(seconds(10));
    let map = open(times).await;
    map.extend([("idle", 1), ("busy", 1)]);
    for second in 1..25 {
        clock.advance(SECOND);
        settle().await;
        // An entry expires up to three milliseconds early, never late.
        assert_eq!(map.get("busy"), Some(1), "{second}");
        let idle = map.snapshot().contains_key("idle");
        assert_eq!(idle, second < 10, "{second}");
    }
    clock.advance(SECOND);
    assert_eq!(map.get("busy"), None);
}

#[tokio::test]
async fn an_entry_with_a_time_of_its_own_lives_that_long_whatever_is_read() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || builder(&store, &clock).time_to_idle(seconds(10));
    let map = open(times()).await;
    map.insert_with_ttl("short", 1, seconds(5));
    map.insert_with_ttl("long", 1, seconds(40));
    for _ in 0..4 {
        clock.advance(SECOND);
        assert_eq!((map.get("short"), map.get("long")), (Some(1), Some(1)));
    }
    clock.advance(SECOND);
    assert_eq!((map.get("short"), map.get("long")), (None, Some(1)));
    clock.advance(seconds(15));
    assert_eq!(map.get("long"), Some(1), "it may be idle for longer");
    map.close().await.unwrap();
    // After a restart, reads still do not extend it.
    let map = open(times()).await;
    for _ in 20..39 {
        clock.advance(SECOND);
        assert_eq!(map.get("long"), Some(1));
    }
    clock.advance(SECOND);
    assert_eq!(map.get("long"), None);
    // An update restarts the entry's own TTL.
    map.insert_with_ttl("a", 1, seconds(30));
    clock.advance(seconds(20));
    map.update("a", |n| *n += 1);
    clock.advance(seconds(29));
    assert_eq!(map.get("a"), Some(2));
    // After a plain insert, the entry has the times of the map.
    map.insert("a", 3);
    clock.advance(seconds(10));
    assert_eq!(map.get("a"), None);
}

#[tokio::test]
async fn a_restart_neither_revives_nor_extends() {
    type Times = fn(CachingMapBuilder<u64>) -> CachingMapBuilder<u64>;
    let all: [Times; 4] = [
        |map| map.time_to_live(seconds(10)),
        |map| map.time_to_idle(seconds(10)),
        |map| map.time_to_live(seconds(10)).time_to_idle(seconds(10)),
        |map| map,
    ];
    for times in all {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let map = open(times(builder(&store, &clock))).await;
        map.insert_with_ttl("short", 1, seconds(7));
        map.insert_with_ttl("long", 2, seconds(10));
        map.insert("map's", 3);
        let before = ["short", "long", "map's"].map(|key| map.expires_at(key));
        clock.advance(seconds(4));
        map.close().await.unwrap();
        clock.advance(seconds(2));
        let (again, heard) = listening(times(builder(&store, &clock)));
        let map = open(again).await;
        let after = ["short", "long", "map's"].map(|key| map.expires_at(key));
        assert_eq!(after, before);
        map.close().await.unwrap();
        clock.advance(seconds(2));
        // `short` has expired while the map was closed.
        let (again, heard_again) = listening(times(builder(&store, &clock)));
        let map = open(again).await;
        assert_eq!((map.len(), map.get("short")), (2, None));
        settle().await;
        assert_eq!(*heard_again.lock(), [("short".to_owned(), 1)]);
        map.flush().await.unwrap();
        assert!(!records(&store).await.contains_key("short"));
        clock.advance(seconds(2));
        assert_eq!(map.get("long"), None);
        assert!(heard.lock().is_empty());
    }
}

#[tokio::test]
async fn a_clear_takes_the_deadlines_with_it() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let (listened, heard) = listening(builder(&store, &clock).time_to_live(seconds(10)));
    let map = open(listened).await;
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    clock.advance(seconds(5));
    map.clear();
    map.insert("a", 2);
    clock.advance(seconds(9));
    settle().await;
    assert_eq!((map.get("a"), map.get("b")), (Some(2), None));
    map.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(&store).await, map.snapshot());
    clock.advance(SECOND);
    settle().await;
    map.flush().await.unwrap();
    assert!(records(&store).await.is_empty() && map.is_empty());
    assert_eq!(*heard.lock(), [("a".to_owned(), 2)]);
}
