//! Expiry: expired is gone, at once, everywhere, and across restarts.

mod fixed_windows;
mod glitches;
mod listener;
mod others;
mod own_times;
mod reopened;
mod restarts;

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
async fn expired_is_gone_from_everything_at_once_swept_or_not() {
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
        // Three milliseconds early at the most, never late.
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
    assert_eq!(stored_values::<u64>(store.inner()).await["a"], 1);
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
        stored_values::<u64>(store.inner()).await,
        HashMap::from([("a".to_owned(), 1)])
    );
    assert_eq!(
        records(store.inner()).await["a"].expires_at,
        map.expires_at("a")
    );
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
        stored_values::<u64>(store.inner()).await,
        HashMap::from([("k".to_owned(), 2)])
    );
    map.reload().await.unwrap();
    assert_eq!(map.get("k"), Some(2));
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
        let map = open_caching::<u64>(Memory::new(), "map", |map| {
            map.clock(clock).time_to_live(seconds(10))
        })
        .await;
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
    let policy = RetryPolicy::default().max_attempts(1).probe_delay(SECOND);
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
        stored_values::<u64>(store.inner()).await,
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
    assert_eq!(stored_values::<u64>(&store).await, map.snapshot());
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
    let map = open_caching::<u64>(store.clone(), "map", |map| map.batch(10, soon)).await;
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
    assert_eq!(map.snapshot(), stored_values(&store).await);
    assert_eq!(map.len(), 4);
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
        let map = open_caching::<u64>(Memory::new(), "map", |map| map.clock(jumping)).await;
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
    let map = open_caching(store.clone(), "map", |map| map.clock(clock.clone())).await;
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
