//! Expiry: expired is gone, at once, everywhere, and across restarts.

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
    CachingMap, CachingMapBuilder, Change, Clock, ErrorKind, Expect, Memory, Op, Provider,
    RetryPolicy,
    testing::{Fault, Faulty, Hang, ManualClock, Method},
};

use crate::stored::{put, records, settle, start, stored, write_as_another};

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

/// Every expired entry as the listener was told of it.
type Heard = Arc<Mutex<Vec<(String, u64)>>>;

fn listening(builder: CachingMapBuilder<u64>) -> (CachingMapBuilder<u64>, Heard) {
    let heard = Heard::default();
    let hearing = heard.clone();
    let builder = builder.on_expire(move |key, value| hearing.lock().push((key.to_owned(), value)));
    (builder, heard)
}

#[tokio::test]
async fn expired_is_gone_from_everything_at_once_swept_or_not() {
    for swept in [false, true] {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
        map.extend((0..20).map(|n| (format!("k{n}"), n)));
        map.insert_with_ttl("stays", 1, seconds(100));
        if swept {
            map.flush().await.unwrap();
        }
        clock.advance(Duration::from_millis(9_999));
        assert_eq!((map.len(), map.get("k0")), (21, Some(0)));
        clock.advance(Duration::from_millis(1));
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
        assert_eq!(stored::<u64>(&store).await, fresh);
        clock.advance(seconds(10));
        assert_eq!(map.len(), 1);
        settle().await;
        map.flush().await.unwrap();
        assert_eq!(stored::<u64>(&store).await, only);
    }
}

#[tokio::test]
async fn the_time_to_live_counts_from_the_last_write_and_reads_do_not_matter() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    map.insert("a", 1);
    assert_eq!(map.expires_at("a"), Some(start() + seconds(10)));
    clock.advance(seconds(6));
    map.get("a");
    assert_eq!(map.expires_at("a"), Some(start() + seconds(10)));
    map.update("a", |n| *n += 1);
    assert_eq!(map.expires_at("a"), Some(start() + seconds(16)));
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
async fn with_both_times_whichever_ends_first() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = builder(&store, &clock)
        .time_to_live(seconds(25))
        .time_to_idle(seconds(10));
    let map = open(times).await;
    map.extend([("idle", 1), ("busy", 1)]);
    for second in 1..25 {
        clock.advance(SECOND);
        settle().await;
        // Two milliseconds early at the most, never late.
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
    // Not after a restart either: read every second, it ends when it ends.
    let map = open(times()).await;
    for _ in 20..39 {
        clock.advance(SECOND);
        assert_eq!(map.get("long"), Some(1));
    }
    clock.advance(SECOND);
    assert_eq!(map.get("long"), None);
    // An update begins the same time anew.
    map.insert_with_ttl("a", 1, seconds(30));
    clock.advance(seconds(20));
    map.update("a", |n| *n += 1);
    clock.advance(seconds(29));
    assert_eq!(map.get("a"), Some(2));
    // A plain insert is an entry by the times of the map.
    map.insert("a", 3);
    clock.advance(seconds(10));
    assert_eq!(map.get("a"), None);
}

/// After a restart the map no longer knew that an entry's time was its own, and
/// the first update made it live for ever.
#[tokio::test]
async fn an_update_after_a_restart_begins_the_entrys_own_time_anew() {
    for idle in [false, true] {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let times = || {
            let map = builder(&store, &clock);
            if idle {
                map.time_to_idle(seconds(10))
            } else {
                map
            }
        };
        let map = open(times()).await;
        map.insert_with_ttl("a", 1, seconds(30));
        map.close().await.unwrap();
        clock.advance(seconds(20));
        let map = open(times()).await;
        map.update("a", |n| *n += 1);
        clock.advance(seconds(29));
        assert_eq!(map.get("a"), Some(2));
        clock.advance(SECOND);
        assert_eq!(map.get("a"), None);
    }
}

#[tokio::test]
async fn a_restart_neither_revives_nor_prolongs() {
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
        // One has expired while the map was closed.
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
async fn a_wall_clock_that_was_set_back_revives_and_prolongs_nothing() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    map.insert_and_save("gone", 1).await.unwrap();
    clock.advance(seconds(9));
    map.insert_and_save("fresh", 2).await.unwrap();
    clock.advance(seconds(2));
    // Not closed: the store still has what has expired.
    map.insert_and_save("late", 3).await.unwrap();
    drop(map);
    let back = ManualClock::new(start() - seconds(3_600));
    let map = open(builder(&store, &back).time_to_live(seconds(10))).await;
    assert_eq!(map.get("gone"), None);
    assert_eq!((map.get("fresh"), map.get("late")), (Some(2), Some(3)));
    back.advance(seconds(8));
    assert_eq!((map.get("fresh"), map.get("late")), (None, Some(3)));
    map.insert("new", 4);
    back.advance(seconds(2));
    assert_eq!((map.get("late"), map.get("new")), (None, Some(4)));
    back.advance(seconds(8));
    settle().await;
    assert!(map.is_empty());
    map.flush().await.unwrap();
    assert!(records(&store).await.is_empty());
}

fn touches(store: &Faulty<Memory>) -> (usize, usize) {
    let batches = store.batches();
    let changes = batches
        .iter()
        .flat_map(|b| b.maps.iter().flat_map(|part| &part.changes));
    let (touches, others): (Vec<_>, Vec<_>) =
        changes.partition(|change| matches!(change.op, Op::Touch { .. }));
    (touches.len(), others.len())
}

#[tokio::test]
async fn the_store_hears_of_an_idle_deadline_that_moved_by_a_tenth_and_not_of_each_read() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    map.insert_and_save("a", 1).await.unwrap();
    for second in 1..=100 {
        clock.advance(SECOND);
        for _ in 0..10 {
            map.get("a");
        }
        map.flush().await.unwrap();
        let (touches, puts) = touches(&store);
        assert_eq!(puts, 1);
        assert!(
            (second / 11..=second / 10).contains(&touches),
            "{second}: {touches}"
        );
        let told = records(store.inner()).await["a"].expires_at.unwrap();
        let real = map.expires_at("a").unwrap();
        assert!(told <= real && real <= told + seconds(10), "{second}");
    }
    assert_eq!(records(store.inner()).await["a"].updated_at, Some(start()));
}

#[tokio::test]
async fn after_a_crash_an_entry_ends_a_tenth_early_at_most_and_never_late() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || builder(&store, &clock).time_to_idle(seconds(100));
    let mut map = open(times()).await;
    map.insert_and_save("a", 1).await.unwrap();
    for n in 0..200_u64 {
        clock.advance(Duration::from_millis(137 * (n * n % 61)));
        map.get("a");
        let real = map.expires_at("a").unwrap();
        map.flush().await.unwrap();
        if n % 7 == 0 {
            drop(map);
            map = open(times()).await;
            let told = map.expires_at("a").unwrap();
            assert!(
                told <= real && real <= told + seconds(10),
                "{n}: {real:?} {told:?}"
            );
        }
    }
}

/// A read that moved the deadline while the entry's commit was in flight was
/// thought to be part of that commit, whose bytes were made before: the store
/// was told nothing, and after a crash the entry ended long before its time.
#[tokio::test]
async fn a_read_during_a_commit_is_told_to_the_store_after_it() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    let hang = store.hang_next();
    let saving = tokio::spawn({
        let map = map.clone();
        async move { map.insert_and_save("a", 1).await }
    });
    hang.hangs().await;
    clock.advance(seconds(25));
    map.get("a");
    hang.release();
    saving.await.unwrap().unwrap();
    map.flush().await.unwrap();
    let told = records(store.inner()).await["a"].expires_at;
    assert_eq!(told, map.expires_at("a"));
    assert_eq!(stored::<u64>(store.inner()).await["a"], 1);
}

/// The same, where that commit fails: the value is still to be saved, and not
/// its expiry alone.
#[tokio::test]
async fn a_read_during_a_commit_that_fails_does_not_lose_the_value() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    map.insert("a", 1);
    let (reader, time) = (map.clone(), clock.clone());
    store.set_rule(move |call| {
        if call.method != Method::Commit || call.number > 1 {
            return Fault::None;
        }
        time.advance(seconds(25));
        reader.get("a");
        Fault::Before(ErrorKind::Unavailable)
    });
    let flushing = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    while !flushing.is_finished() {
        clock.advance(Duration::from_millis(50));
        settle().await;
    }
    flushing.await.unwrap().unwrap();
    assert_eq!(
        stored::<u64>(store.inner()).await,
        HashMap::from([("a".to_owned(), 1)])
    );
    assert_eq!(
        records(store.inner()).await["a"].expires_at,
        map.expires_at("a")
    );
}

/// The same, where another process takes the key over meanwhile: its value is
/// taken, and our touch does not lengthen it.
#[tokio::test]
async fn a_touch_that_lost_to_another_process_takes_its_value_also_when_read_meanwhile() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    map.insert_and_save("a", 1).await.unwrap();
    clock.advance(seconds(25));
    let hang = store.hang_next();
    map.get("a");
    let flushing = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    write_as_another(store.inner(), vec![put("a", "2")]).await;
    clock.advance(seconds(25));
    map.get("a");
    hang.release();
    flushing.await.unwrap().unwrap();
    map.flush().await.unwrap();
    assert_eq!((map.get("a"), map.expires_at("a")), (Some(2), None));
    assert_eq!(records(store.inner()).await["a"].expires_at, None);
    assert_eq!(map.pending(), 0);
}

#[tokio::test]
async fn a_sweep_never_removes_what_another_process_has_written() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || builder(&store, &clock).time_to_live(seconds(10));
    let (first, heard) = listening(times());
    let a = open(first).await;
    a.insert_and_save("k", 1).await.unwrap();
    a.insert_and_save("mine", 1).await.unwrap();
    let b = open(times()).await;
    clock.advance(seconds(9));
    b.insert_and_save("k", 2).await.unwrap();
    clock.advance(SECOND);
    settle().await;
    assert_eq!(a.get("k"), None, "a knows of its own entry only");
    a.flush().await.unwrap();
    assert_eq!(
        stored::<u64>(&store).await,
        HashMap::from([("k".to_owned(), 2)])
    );
    assert_eq!(a.get("k"), Some(2));
    assert_eq!(a.expires_at("k"), b.expires_at("k"));
    assert_eq!((a.len(), a.pending()), (1, 0));
    let mut heard = heard.lock().clone();
    heard.sort();
    assert_eq!(heard, [("k".to_owned(), 1), ("mine".to_owned(), 1)]);
    clock.advance(seconds(9));
    settle().await;
    assert_eq!((a.get("k"), a.len()), (None, 0));
}

/// An entry that expired while its first commit was in flight left a tombstone
/// with no revision to compare; when the commit failed, its removal was told
/// without a condition, and hit another process's fresh value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_never_reached_the_store_expires_without_touching_it() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let (listened, heard) = listening(builder(&store, &clock));
    let map = open(listened).await;
    let (inner, swept) = (store.inner().clone(), heard.clone());
    store.set_rule(move |call| {
        if call.method != Method::Commit || call.number > 1 {
            return Fault::None;
        }
        let theirs = write_as_another(&inner, vec![put("k", "2")]);
        theirs.now_or_never().expect("memory does not wait");
        // The sweeper may wait for its turn on this very thread.
        tokio::task::block_in_place(|| {
            while swept.lock().is_empty() {
                std::thread::yield_now();
            }
        });
        Fault::Before(ErrorKind::Unavailable)
    });
    map.insert_with_ttl("k", 1, seconds(10));
    let flushing = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    store.begun(Method::Commit, 1).await;
    clock.advance(seconds(10));
    while !flushing.is_finished() {
        clock.advance(Duration::from_millis(50));
        tokio::task::yield_now().await;
    }
    flushing.await.unwrap().unwrap();
    assert_eq!(
        stored::<u64>(store.inner()).await,
        HashMap::from([("k".to_owned(), 2)])
    );
    map.reload().await.unwrap();
    assert_eq!(map.get("k"), Some(2));
}

#[tokio::test]
async fn the_listener_hears_of_each_expired_entry_once() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let (listened, heard) = listening(builder(&store, &clock).time_to_live(seconds(10)));
    let map = open(listened).await;
    map.extend((0..300).map(|n| (n.to_string(), n)));
    map.remove("0");
    map.insert("1", 1_001);
    clock.advance(seconds(10));
    // Three are found expired by writers before the sweeper comes.
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
    // The sweeper outlives it.
    opened.insert_with_ttl("later", 1, seconds(10));
    clock.advance(seconds(10));
    settle().await;
    assert!(opened.contains_key("after later"));
    opened.flush().await.unwrap();
    assert_eq!(stored::<u64>(&store).await, opened.snapshot());
    map.lock().take();
}

/// A clock that can be counted.
#[derive(Debug)]
struct Counted {
    clock: ManualClock,
    _count: Arc<()>,
}

impl Clock for Counted {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(deadline)
    }
}

/// The sweeper holds the map's clock: while it lives, so does the clock.
#[tokio::test]
async fn the_sweeper_ends_with_the_map() {
    for closed in [false, true] {
        let count = Arc::new(());
        let clock = Counted {
            clock: ManualClock::new(start()),
            _count: count.clone(),
        };
        let map = CachingMap::<u64>::builder(Memory::new(), "map").clock(clock);
        let map = map.time_to_live(seconds(10)).open().await.unwrap();
        map.insert("a", 1);
        settle().await;
        if closed {
            map.close().await.unwrap();
        }
        drop(map);
        settle().await;
        assert_eq!(Arc::strong_count(&count), 1, "closed: {closed}");
    }
}

#[tokio::test]
async fn what_expires_while_the_store_is_down_is_gone_and_leaves_it_later() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let policy = RetryPolicy::default().max_attempts(1).max_delay(SECOND);
    let map = open(
        builder(&store, &clock)
            .time_to_live(seconds(10))
            .retry(policy),
    )
    .await;
    map.extend((0..100).map(|n| (n.to_string(), n)));
    map.flush().await.unwrap();
    store.down(ErrorKind::Unavailable);
    // These never get there: they leave nothing behind.
    map.extend((100..200).map(|n| (n.to_string(), n)));
    clock.advance(seconds(10));
    settle().await;
    assert_eq!((map.len(), map.pending()), (0, 100));
    map.insert("0", 1_000);
    store.up();
    for _ in 0..5 {
        clock.advance(SECOND);
        settle().await;
    }
    map.flush().await.unwrap();
    assert_eq!(
        stored::<u64>(store.inner()).await,
        HashMap::from([("0".to_owned(), 1_000)])
    );
    assert_eq!(map.pending(), 0);
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
    assert_eq!(stored::<u64>(&store).await, map.snapshot());
    clock.advance(SECOND);
    settle().await;
    map.flush().await.unwrap();
    assert!(records(&store).await.is_empty() && map.is_empty());
    assert_eq!(*heard.lock(), [("a".to_owned(), 2)]);
}

#[tokio::test]
async fn a_time_of_zero_is_an_error_that_names_the_option() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let short = [Duration::ZERO, Duration::from_micros(999)];
    for time in short {
        let cases = [
            (builder(&store, &clock).time_to_live(time), "time_to_live"),
            (builder(&store, &clock).time_to_idle(time), "time_to_idle"),
        ];
        for (builder, named) in cases {
            let error = builder.open().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
    // An entry may have a time of zero: it has expired already.
    let (listened, heard) = listening(builder(&store, &clock));
    let map = open(listened).await;
    map.insert_and_save("a", 1).await.unwrap();
    assert_eq!(map.insert_with_ttl("a", 2, Duration::ZERO), Some(1));
    assert_eq!(map.get("a"), None);
    settle().await;
    map.insert_with_ttl_and_save("b", 3, Duration::ZERO)
        .await
        .unwrap();
    settle().await;
    map.flush().await.unwrap();
    assert!(records(&store).await.is_empty());
    assert_eq!(*heard.lock(), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
}

/// Every time that does not fit is for ever, or far away; in every store.
async fn huge_times_do_not_overflow(store: impl Provider + Clone) {
    let clock = ManualClock::new(start());
    let now = u64::try_from(
        start()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    );
    let room = u64::MAX - now.unwrap();
    let huge = [
        Duration::MAX,
        Duration::from_millis(u64::MAX),
        Duration::from_millis(room),
        Duration::from_millis(room - 1),
        Duration::from_millis(room - 5),
        Duration::from_millis(i64::MAX as u64),
        Duration::from_hours(80_000_000),
    ];
    for time in huge {
        let times = || {
            builder(&store, &clock)
                .time_to_live(time)
                .time_to_idle(time)
        };
        let map = open(times()).await;
        map.insert("a", 1);
        map.insert_with_ttl("b", 2, time);
        map.get("a");
        clock.advance(seconds(1));
        settle().await;
        assert_eq!(map.len(), 2, "{time:?}");
        map.flush().await.unwrap();
        let before = ["a", "b"].map(|key| map.expires_at(key));
        map.close().await.unwrap();
        let map = open(times()).await;
        assert_eq!((map.get("a"), map.get("b")), (Some(1), Some(2)), "{time:?}");
        let after = ["a", "b"].map(|key| map.expires_at(key));
        // A store may have an end of time of its own: far away, or for ever.
        let end = SystemTime::UNIX_EPOCH + Duration::from_millis(i64::MAX as u64 - 2);
        for (before, after) in before.into_iter().zip(after) {
            let far = before.map_or(end, |before| before.min(end));
            assert!(
                after.is_none_or(|after| after >= far),
                "{time:?}: {before:?} {after:?}"
            );
        }
        map.clear_and_save().await.unwrap();
        map.close().await.unwrap();
    }
}

#[tokio::test]
async fn huge_times_do_not_overflow_in_memory() {
    huge_times_do_not_overflow(Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn huge_times_do_not_overflow_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    huge_times_do_not_overflow(files).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn huge_times_do_not_overflow_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = persistify::Sqlite::open(folder.path().join("maps.db"))
        .await
        .unwrap();
    huge_times_do_not_overflow(file).await;
}

/// What overwrites an expired entry is a fresh one, and stays, however close the
/// sweeper is.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_fresh_entry_in_the_place_of_an_expired_one_is_never_lost() {
    let store = Memory::new();
    let soon = Duration::from_millis(1);
    let map = CachingMap::<u64>::builder(store.clone(), "map").batch(10, soon);
    let map = map.open().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = |n: u64| {
        let (map, done) = (map.clone(), done.clone());
        tokio::task::spawn_blocking(move || {
            let key = format!("k{n}");
            for round in 0..400 {
                let ttl = Duration::from_millis(round % 3);
                map.insert_with_ttl(&key, 0, ttl);
                // Some are swept by now, some are not.
                (0..round % 7 * 40).for_each(|_| std::thread::yield_now());
                map.insert(&key, round + 1);
                for _ in 0..50 {
                    assert_eq!(map.get(&key), Some(round + 1));
                    std::thread::yield_now();
                }
            }
            done.store(true, SeqCst);
        })
    };
    for writer in (0..4).map(writer).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    map.flush().await.unwrap();
    assert_eq!(map.snapshot(), stored(&store).await);
    assert_eq!(map.len(), 4);
}

/// What another process removes is gone here once our own sweep, or a reload,
/// finds out; and its touch is taken by a reload.
#[tokio::test]
async fn a_reload_takes_the_expiry_that_another_process_gave() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    let later = start() + seconds(60);
    let theirs = vec![Change::touch("a", Some(later)), Change::touch("b", None)];
    write_as_another(&store, theirs).await;
    map.reload().await.unwrap();
    assert_eq!(map.expires_at("a"), Some(later));
    assert_eq!((map.get("b"), map.expires_at("b")), (Some(1), None));
}

/// After a restart the time to live was counted from the commit: an entry that
/// was read again and again lived longer by as much as it had waited for it.
async fn a_restart_counts_from_the_write(store: impl Provider + Clone) {
    let clock = ManualClock::new(start());
    let times = || {
        builder(&store, &clock)
            .time_to_live(seconds(25))
            .time_to_idle(seconds(10))
            .batch(1_000, seconds(3_600))
    };
    let map = open(times()).await;
    map.insert("a", 1);
    clock.advance(seconds(5));
    map.insert("b", 1);
    map.flush().await.unwrap();
    for _ in 0..4 {
        clock.advance(seconds(2));
        assert_eq!((map.get("a"), map.get("b")), (Some(1), Some(1)));
    }
    map.close().await.unwrap();
    let map = open(times()).await;
    for second in 14..=30 {
        clock.advance(SECOND);
        assert_eq!(map.get("a").is_some(), second < 25, "{second}");
        assert_eq!(map.get("b").is_some(), second < 30, "{second}");
    }
    map.close().await.unwrap();
}

#[tokio::test]
async fn a_restart_counts_from_the_write_in_memory() {
    a_restart_counts_from_the_write(Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_restart_counts_from_the_write_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    a_restart_counts_from_the_write(files).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_restart_counts_from_the_write_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.db");
    let sqlite = persistify::Sqlite::open(&file).await.unwrap();
    a_restart_counts_from_the_write(sqlite).await;
    // The same in a table of another program, however it keeps the time.
    for kept in ["INTEGER", "TEXT"] {
        let adopted = folder.path().join(kept);
        let columns = format!("key TEXT PRIMARY KEY, value TEXT, updated_at {kept}");
        rusqlite::Connection::open(&adopted)
            .unwrap()
            .execute_batch(&format!("CREATE TABLE theirs ({columns})"))
            .unwrap();
        let sqlite = persistify::Sqlite::builder(&adopted).table("map", "theirs");
        a_restart_counts_from_the_write(sqlite.open().await.unwrap()).await;
    }
}

/// A `clear` and a `reload` dropped entries that had expired and were not swept
/// yet, and the listener never heard of them.
#[tokio::test]
async fn the_listener_hears_of_what_a_clear_or_a_reload_takes_away() {
    for by_clear in [true, false] {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let (times, heard) = listening(builder(&store, &clock).time_to_live(seconds(10)));
        let map = open(times).await;
        map.insert("replaced", 1);
        map.insert("removed", 2);
        map.flush().await.unwrap();
        // Another process's clock is ahead, and it has swept already.
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
        // The sweeper gets no turn between the two.
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

/// An entry whose commit was of unknown fate expired, and its removal went to
/// the store without a condition: it hit what another process had written there
/// meanwhile.
#[tokio::test]
async fn what_may_have_been_saved_expires_without_hitting_anothers_value() {
    for (landed, theirs) in [(false, true), (true, true), (true, false), (false, false)] {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let map = open(builder(&store, &clock).retry(RetryPolicy::default().jitter(false))).await;
        let unknown = if landed { Fault::After } else { Fault::Lost };
        store.fail_next(1, unknown(ErrorKind::Unavailable));
        store.fail_nth(2, Fault::Before(ErrorKind::Superseded));
        map.insert_with_ttl("a", 1, seconds(100));
        let flush = tokio::spawn({
            let map = map.clone();
            async move { map.flush().await }
        });
        settle().await;
        clock.advance(SECOND);
        // Of unknown fate for good, and still pending.
        let failed = flush.await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Superseded);
        // It lives less long than what may be in the store.
        map.insert_with_ttl("a", 2, SECOND);
        if theirs {
            write_as_another(store.inner(), vec![put("a", "3")]).await;
        }
        clock.advance(SECOND);
        settle().await;
        assert_eq!(map.get("a"), None);
        clock.advance(seconds(60));
        settle().await;
        map.flush().await.unwrap();
        let expected = theirs.then_some(3);
        assert_eq!(
            stored::<u64>(store.inner()).await.get("a").copied(),
            expected
        );
        assert_eq!(map.get("a"), expected, "landed: {landed}");
    }
}

/// Another process wrote while the removal of what had expired was under way, and
/// so did this one, for a short time. The removal at the end of that time was sent
/// on the condition that the store holds what the other process had written, and
/// took it away.
#[tokio::test]
async fn what_expires_twice_never_takes_anothers_value_along() {
    for fails in [false, true] {
        for expires_in_flight in [false, true] {
            let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
            let retry = RetryPolicy::default().max_attempts(1);
            let retry = retry.max_delay(seconds(10)).jitter(false);
            let map = open(builder(&store, &clock).retry(retry)).await;
            map.insert_with_ttl("a", 1, SECOND);
            map.flush().await.unwrap();
            clock.advance(SECOND);
            settle().await;
            let hang = store.hang_next();
            if fails {
                store.fail_nth(2, Fault::Before(ErrorKind::Unavailable));
            }
            let flush = tokio::spawn({
                let map = map.clone();
                async move { map.flush().await }
            });
            hang.hangs().await;
            write_as_another(store.inner(), vec![put("a", "3")]).await;
            map.insert_with_ttl("a", 2, SECOND);
            if expires_in_flight {
                clock.advance(SECOND);
                settle().await;
            }
            hang.release();
            let flushed = flush.await.unwrap();
            let written_later = !fails && !expires_in_flight;
            assert_eq!(flushed.is_err(), fails && !expires_in_flight);
            clock.advance(SECOND);
            settle().await;
            // The store is well again, and asked again.
            clock.advance(seconds(10));
            settle().await;
            map.flush().await.unwrap();
            // The one that did reach the store was the later write.
            let expected = (!written_later).then_some(3);
            let stored = stored::<u64>(store.inner()).await;
            assert_eq!(
                stored.get("a").copied(),
                expected,
                "{fails} {expires_in_flight}"
            );
            assert_eq!(map.get("a"), expected, "{fails} {expires_in_flight}");
        }
    }
}

/// What expired, or was read, while a reload was under way was taken for a change
/// that somebody had made, and was then told of the value that another process had
/// written: that was removed from the store, or given the time of the old one.
#[tokio::test]
async fn what_expires_or_is_read_during_a_reload_leaves_anothers_value_alone() {
    for is_read in [false, true] {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let map = open(builder(&store, &clock).time_to_idle(seconds(10))).await;
        map.insert_and_save("a", 1).await.unwrap();
        let hang = Hang::new();
        store.fail_next_of(Method::Load, 1, Fault::Hang(hang.clone()));
        write_as_another(store.inner(), vec![put("a", "2")]).await;
        let reload = tokio::spawn({
            let map = map.clone();
            async move { map.reload().await }
        });
        hang.hangs().await;
        if is_read {
            clock.advance(seconds(5));
            assert_eq!(map.get("a"), Some(1));
        } else {
            clock.advance(seconds(10));
            settle().await;
            assert_eq!(map.get("a"), None);
        }
        hang.release();
        reload.await.unwrap().unwrap();
        map.flush().await.unwrap();
        let stored = records(store.inner()).await;
        let theirs = stored.get("a").map(|record| record.expires_at);
        assert_eq!(theirs, Some(None), "read: {is_read}");
        assert_eq!(map.get("a"), Some(2), "read: {is_read}");
        assert_eq!(map.expires_at("a"), None, "read: {is_read}");
        assert_eq!((map.len(), map.pending()), (1, 0), "read: {is_read}");
    }
}

/// A clock that goes on by a millisecond when it is asked for the n-th time.
#[derive(Clone, Debug)]
struct Jumping {
    clock: ManualClock,
    left: Arc<AtomicUsize>,
}

impl Clock for Jumping {
    fn now(&self) -> SystemTime {
        let count = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(SeqCst, SeqCst, count) == Ok(1) {
            self.clock.advance(Duration::from_millis(1));
        }
        self.clock.now()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(deadline)
    }
}

/// An `upsert` found an entry that expired before it could be changed, and did
/// nothing at all; a `replace` wrote, and answered that there was nothing.
#[tokio::test]
async fn what_expires_in_the_middle_of_a_write_does_not_lose_it() {
    let mut jumps = 0;
    for nth in 1..10 {
        let clock = ManualClock::new(start());
        let left = Arc::new(AtomicUsize::new(0));
        let jumping = Jumping {
            clock: clock.clone(),
            left: left.clone(),
        };
        let builder = CachingMap::<u64>::builder(Memory::new(), "map").clock(jumping);
        let map = builder.open().await.unwrap();
        map.insert_with_ttl("a", 1, SECOND);
        map.insert_with_ttl("b", 1, SECOND);
        clock.advance(Duration::from_millis(999));
        left.store(nth, SeqCst);
        map.upsert("a", 5, |n| *n += 1);
        jumps += usize::from(left.swap(0, SeqCst) == 0);
        assert!(
            matches!(map.get("a"), Some(2 | 5)),
            "{nth}: {:?}",
            map.get("a")
        );
        if map.get("b").is_none() {
            continue;
        }
        left.store(nth, SeqCst);
        let replaced = map.replace("b", 6);
        left.store(0, SeqCst);
        assert_eq!(map.get("b"), replaced.map(|_| 6), "{nth}");
        map.close().await.unwrap();
    }
    assert!(jumps >= 2, "{jumps}");
}

/// A value whose `Drop` panics ended the sweeper, if nobody listened: what
/// expired after it stayed in memory and in the store.
#[tokio::test]
async fn a_value_that_panics_when_it_is_dropped_does_not_end_the_sweeper() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Touchy(bool);
    impl Drop for Touchy {
        fn drop(&mut self) {
            assert!(!self.0, "dropped");
        }
    }
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = CachingMap::builder(store.clone(), "map").clock(clock.clone());
    let map = map.open().await.unwrap();
    map.insert_with_ttl("bad", Touchy(true), SECOND);
    map.insert_with_ttl("good", Touchy(false), seconds(2));
    map.flush().await.unwrap();
    for _ in 0..2 {
        clock.advance(SECOND);
        settle().await;
    }
    map.flush().await.unwrap();
    assert!(records(&store).await.is_empty());
}

/// A read moves the deadline in the store, which keeps no time of it: after the
/// wall clock was set back, the entry lived on for as long as it had been read.
#[tokio::test]
async fn a_wall_clock_that_was_set_back_does_not_prolong_what_was_read() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = |clock| builder(&store, clock).time_to_idle(seconds(10));
    let map = open(times(&clock)).await;
    map.insert_and_save("a", 1).await.unwrap();
    for _ in 0..100 {
        clock.advance(seconds(5));
        assert_eq!(map.get("a"), Some(1));
    }
    map.close().await.unwrap();
    let back = ManualClock::new(start());
    let map = open(times(&back)).await;
    back.advance(seconds(9));
    assert_eq!(map.len(), 1);
    back.advance(SECOND);
    assert_eq!(map.len(), 0);
    settle().await;
    map.flush().await.unwrap();
    assert!(records(&store).await.is_empty());
}

/// Another program kept the time of writing in microseconds: the map took it for
/// what time it is, and all of its entries had expired, also in the store.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_time_of_writing_in_another_unit_ends_no_entries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    let table = "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT, updated_at INTEGER)";
    other.execute_batch(table).unwrap();
    let store = persistify::Sqlite::builder(&path).table("map", "t");
    let store = store.open().await.unwrap();
    let clock = ManualClock::new(start());
    let times = || CachingMap::<u64>::builder(store.clone(), "map").clock(clock.clone());
    let map = times().time_to_live(seconds(60)).open().await.unwrap();
    map.insert("a", 1);
    map.insert("b", 2);
    map.close().await.unwrap();
    let micros = "UPDATE t SET updated_at = updated_at * 1000 WHERE key = 'a'";
    other.execute_batch(micros).unwrap();
    let map = times().open().await.unwrap();
    settle().await;
    assert_eq!((map.get("a"), map.get("b")), (Some(1), Some(2)));
    clock.advance(seconds(61));
    assert!(map.is_empty());
    map.close().await.unwrap();
}

/// While a conditional save was on its way, its key was written, and that expired.
/// The save met the value that both had come after: with that answer memory took
/// it back, although it was written over long ago.
#[tokio::test]
async fn what_was_written_over_does_not_come_back_when_that_has_expired() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock)).await;
    map.insert_and_save("a", 1).await.unwrap();
    let hang = store.hang_next();
    let late = map.clone();
    let late = tokio::spawn(async move { late.save_if("a", 2, Expect::Absent).await });
    hang.hangs().await;
    map.insert_with_ttl("a", 3, SECOND);
    clock.advance(2 * SECOND);
    settle().await;
    hang.release();
    let error = late.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(map.get("a"), None);
    map.flush().await.unwrap();
    assert!(records(store.inner()).await.is_empty());
}
