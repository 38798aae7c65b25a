//! The times of entries after a restart.

use std::time::Duration;

use persistify::{CachingMap, Memory, Provider, testing::ManualClock};

use super::{SECOND, builder, open, seconds};
use crate::support::{records, settle, start};

/// After a restart, the map no longer knew that an entry had its own TTL, and the first update made
/// it live forever.
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
async fn a_wall_clock_that_was_set_back_revives_and_extends_nothing() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    map.insert_and_save("gone", 1).await.unwrap();
    clock.advance(seconds(9));
    map.insert_and_save("fresh", 2).await.unwrap();
    clock.advance(seconds(2));
    // The map is not closed, so the expired entry is still in the store.
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

/// After a restart the TTL was counted from the commit. An entry that was kept alive by reads lived
/// longer by the delay of its commit.
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
    // As above in an adopted table, whose time column is a number or a text.
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

/// A read moves the deadline in the store, but not the stored time of writing. After the wall clock
/// was set back, the entry lived on for as long as it had been read.
#[tokio::test]
async fn a_wall_clock_that_was_set_back_does_not_extend_what_was_read() {
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

/// Another program stored the time of writing in microseconds. The map took it for the current
/// time, and all of its entries expired, in the store as well.
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
