//! An entry's own TTL, across restarts and on its way to other stores.

use std::time::Duration;

use persistify::{
    CachingMap, CachingMapBuilder, Expect, Memory, OnConflict, Op, Provider, Transaction, copy,
    testing::{Faulty, ManualClock},
};

use super::{builder, open, seconds};
use crate::support::{records, start, write_as_another};

/// The resolution of a deadline. An entry expires early rather than late.
const SLACK: Duration = Duration::from_millis(4);

type Times = fn(CachingMapBuilder<u64>) -> CachingMapBuilder<u64>;

const TIMES: [Times; 4] = [
    |map| map,
    |map| map.time_to_live(seconds(1_000)),
    |map| map.time_to_idle(seconds(1_000)),
    |map| map.time_to_live(seconds(1_000)).time_to_idle(seconds(500)),
];

/// Asserts that after an update, the key lives for ten seconds, regardless of reads.
fn an_update_gives_ten_seconds(map: &CachingMap<u64>, clock: &ManualClock, key: &str) {
    assert!(map.update(key, |n| *n += 1).is_some(), "{key}");
    clock.advance(seconds(10).saturating_sub(SLACK));
    assert!(map.get(key).is_some(), "{key} ended too early");
    clock.advance(SLACK);
    assert_eq!(map.get(key), None, "{key} was extended");
}

/// A restart extended an entry: the map no longer knew that the entry had a TTL of its own, ten
/// seconds, and the next update gave it the map's thousand seconds.
async fn an_own_time_is_kept(store: impl Provider + Clone) {
    for (n, times) in TIMES.into_iter().enumerate() {
        let clock = ManualClock::new(start());
        let times = || times(builder(&store, &clock)).batch(1_000, seconds(3_600));
        let map = open(times()).await;
        map.insert_with_ttl("otp", 1, seconds(10));
        map.insert_with_ttl("odd", 1, Duration::from_millis(10_001));
        // It is saved later, but its TTL counts from the write.
        clock.advance(seconds(4));
        map.close().await.unwrap();
        // It is saved again each time the map is reopened.
        for _ in 0..5 {
            let map = open(times()).await;
            map.update("otp", |n| *n += 1);
            clock.advance(seconds(7));
            map.close().await.unwrap();
        }
        let map = open(times()).await;
        assert_eq!(map.get("otp"), Some(6), "times {n}");
        an_update_gives_ten_seconds(&map, &clock, "otp");
        map.clear_and_save().await.unwrap();
        map.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_own_time_is_kept_in_memory() {
    an_own_time_is_kept(Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn an_own_time_is_kept_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    an_own_time_is_kept(files).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_own_time_is_kept_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.db");
    an_own_time_is_kept(persistify::Sqlite::open(&file).await.unwrap()).await;
    // An adopted table without a column for it works, too.
    let adopted = folder.path().join("theirs.db");
    rusqlite::Connection::open(&adopted)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (key TEXT PRIMARY KEY, value TEXT, updated_at TEXT)")
        .unwrap();
    let sqlite = persistify::Sqlite::builder(&adopted).table("map", "theirs");
    an_own_time_is_kept(sqlite.open().await.unwrap()).await;
}

/// The own time to live of an entry was derived from its expiry at the commit, which an outage
/// may delay: it became shorter.
#[tokio::test]
async fn every_kind_of_write_keeps_an_own_time_across_a_restart() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || builder(&store, &clock).time_to_live(seconds(1_000));
    let map = open(times()).await;
    let ten = seconds(10);
    map.insert_with_ttl_and_save("save", 1, ten).await.unwrap();
    map.save_if_with_ttl("if", 1, Expect::Absent, ten)
        .await
        .unwrap();
    let mut batch = map.batch();
    batch.insert_with_ttl("batch", 1, ten);
    batch.commit().await.unwrap();
    let mut tx = Transaction::new(&store);
    tx.insert_with_ttl(&map, "tx", 1, ten);
    tx.commit().await.unwrap();
    map.close().await.unwrap();
    for key in ["save", "if", "batch", "tx"] {
        let clock = ManualClock::new(start());
        let map = open(builder(&store, &clock).time_to_live(seconds(1_000))).await;
        an_update_gives_ten_seconds(&map, &clock, key);
    }
}

/// An update in the store loads an entry that memory does not hold. It gave that entry the TTL of
/// the map.
#[tokio::test]
async fn an_update_in_the_store_keeps_an_own_time_that_it_loads() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || builder(&store, &clock).time_to_live(seconds(1_000));
    let (here, there) = (open(times()).await, open(times()).await);
    let ten = seconds(10);
    there.insert_with_ttl_and_save("a", 1, ten).await.unwrap();
    assert_eq!(here.update_in_store("a", |n| n + 1).await.unwrap(), Some(2));
    clock.advance(seconds(10));
    assert_eq!(here.get("a"), None);
}

/// An entry that another handle stored with its own TTL keeps that TTL here, after a reload and
/// after a merge.
#[tokio::test]
async fn an_own_time_comes_along_with_a_reload_and_a_merge() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || {
        builder(&store, &clock)
            .time_to_live(seconds(1_000))
            .conflicts(OnConflict::Merge(|mine, theirs| mine + theirs))
    };
    let (here, there) = (open(times()).await, open(times()).await);
    there
        .insert_with_ttl_and_save("a", 1, seconds(10))
        .await
        .unwrap();
    here.reload().await.unwrap();
    an_update_gives_ten_seconds(&here, &clock, "a");
    here.flush().await.unwrap();
    here.insert_with_ttl_and_save("b", 1, seconds(10))
        .await
        .unwrap();
    there.insert("b", 2);
    here.update("b", |n| *n += 10);
    there.flush().await.unwrap();
    here.flush().await.unwrap();
    assert_eq!(here.get("b"), Some(14));
    an_update_gives_ten_seconds(&here, &clock, "b");
}

/// The times of the map may change between two runs. An entry that has the old map TTL has none of
/// its own: after its next write, it has the new map TTL.
#[tokio::test]
async fn another_time_of_the_map_is_not_taken_for_an_own_one() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    map.extend([("kept", 1), ("written", 1)]);
    map.close().await.unwrap();
    let map = open(builder(&store, &clock).time_to_live(seconds(100))).await;
    map.update("written", |n| *n += 1);
    clock.advance(seconds(10));
    assert_eq!((map.get("kept"), map.get("written")), (None, Some(2)));
    clock.advance(seconds(90).saturating_sub(SLACK));
    assert_eq!(map.get("written"), Some(2));
}

/// A copy restarted the TTL of each entry.
#[tokio::test]
async fn an_own_time_is_copied() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = |store: &Memory| {
        builder(store, &clock)
            .time_to_live(seconds(1_000))
            .time_to_idle(seconds(500))
    };
    let map = open(times(&store)).await;
    map.insert_with_ttl("own", 1, seconds(10));
    map.insert("map's", 1);
    map.close().await.unwrap();
    let to = Memory::new();
    copy(&store, &to, ["map"], |_, _| {}).await.unwrap();
    let map = open(times(&to)).await;
    an_update_gives_ten_seconds(&map, &clock, "own");
    // The copy does not extend entries that have the times of the map either.
    for _ in 0..9 {
        clock.advance(seconds(110));
        assert_eq!(map.get("map's").is_some(), clock_is_before(&clock, 1_000));
    }
}

fn clock_is_before(clock: &ManualClock, second: u64) -> bool {
    use persistify::Clock as _;
    clock.now() < start() + seconds(second)
}

/// An export contained when an entry ends, but not how long it lives. An imported entry got
/// the default time to live at its next update.
#[tokio::test]
async fn an_own_time_is_exported_and_imported() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = |store: &Memory| builder(store, &clock).time_to_live(seconds(1_000));
    let map = open(times(&store)).await;
    map.insert_with_ttl("own", 1, seconds(10));
    map.insert("map's", 1);
    clock.advance(seconds(4));
    let mut lines = Vec::new();
    map.export(&mut lines).await.unwrap();
    let other = Memory::new();
    let map = open(times(&other)).await;
    map.import(&lines[..]).await.unwrap();
    assert_eq!(map.expires_at("own"), Some(start() + seconds(10)));
    an_update_gives_ten_seconds(&map, &clock, "own");
    map.update("map's", |n| *n += 1);
    clock.advance(seconds(999));
    assert_eq!(map.get("map's"), Some(2));
}

/// An expiry beyond the representable range was stored as none, so the entry could not be told from
/// an entry without a TTL of its own.
#[tokio::test]
async fn an_own_time_without_an_end_outlives_the_time_of_the_map() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || builder(&store, &clock).time_to_live(seconds(10));
    let map = open(times()).await;
    map.insert_with_ttl("a", 1, Duration::MAX);
    assert_eq!(map.expires_at("a"), None);
    map.close().await.unwrap();
    for n in 1..4 {
        let map = open(times()).await;
        clock.advance(seconds(1_000));
        assert_eq!((map.get("a"), map.expires_at("a")), (Some(n), None));
        map.update("a", |n| *n += 1);
        map.close().await.unwrap();
    }
}

/// Entries of an earlier version or of other programs may have no time of writing. An update then
/// gives them the TTL of the map, like any other entry.
#[tokio::test]
async fn an_entry_whose_time_of_writing_is_unknown_is_updated_by_the_map() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(100))).await;
    map.insert_with_ttl_and_save("a", 1, seconds(10))
        .await
        .unwrap();
    let puts = store.batches();
    let Op::Put {
        payload,
        expires_at,
    } = &puts[0].maps[0].changes[0].op
    else {
        panic!("no put");
    };
    // Written by another process, by whose clock the entry has expired.
    let theirs = persistify::Change::put("b", payload.clone(), *expires_at);
    write_as_another(store.inner(), vec![theirs]).await;
    let map = open(builder(&store, &clock).time_to_live(seconds(100))).await;
    assert_eq!(map.expires_at("b"), Some(start() + seconds(10)));
    map.update("b", |n| *n += 1);
    clock.advance(seconds(99));
    assert_eq!(map.get("b"), Some(2));
    map.flush().await.unwrap();
    assert_eq!(records(store.inner()).await.len(), 2);
}
