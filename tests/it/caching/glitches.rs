//! Wall clocks that were wrong for a while.

use std::time::{Duration, SystemTime};

use persistify::{CachingMap, Change, Memory, Payload, Provider, testing::ManualClock};

use super::{SECOND, builder, listening, open, seconds};
use crate::support::{settle, start, warnings_of, write_as_another};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn in_ten_years() -> SystemTime {
    start() + 3_652 * DAY
}

/// One save with the clock ten years ahead stopped time: the map's clock never went back behind the
/// time in the store. After the clock was corrected, entries did not expire while the map was
/// closed, for ten years.
async fn a_glitch_does_not_stop_time(store: impl Provider + Clone) {
    for idle in [false, true] {
        let times = |clock: &ManualClock| {
            let map = builder(&store, clock);
            if idle {
                map.time_to_idle(seconds(100))
            } else {
                map.time_to_live(seconds(100))
            }
        };
        let ahead = ManualClock::new(in_ten_years());
        let map = open(times(&ahead)).await;
        map.insert("map's", 1);
        map.insert_with_ttl("own", 1, seconds(50));
        map.close().await.unwrap();
        // The clock is correct again.
        let clock = ManualClock::new(start());
        let map = open(times(&clock)).await;
        // Entries get the TTL they were given, not ten years.
        assert_eq!((map.get("map's"), map.get("own")), (Some(1), Some(1)));
        map.insert("fresh", 1);
        assert!(map.expires_at("fresh").unwrap() <= start() + seconds(100));
        clock.advance(seconds(60));
        assert_eq!((map.get("map's"), map.get("own")), (Some(1), None));
        map.insert("later", 1);
        map.close().await.unwrap();
        // Time passes while the map is closed.
        clock.advance(seconds(60));
        let map = open(times(&clock)).await;
        assert_eq!((map.get("fresh"), map.get("later")), (None, Some(1)));
        map.clear_and_save().await.unwrap();
        map.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_glitch_does_not_stop_time_in_memory() {
    a_glitch_does_not_stop_time(Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_glitch_does_not_stop_time_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    a_glitch_does_not_stop_time(files).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_glitch_does_not_stop_time_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.db");
    let sqlite = persistify::Sqlite::open(&file).await.unwrap();
    a_glitch_does_not_stop_time(sqlite).await;
}

/// A clock that is behind the store's latest time by up to a day is overruled by that time, so
/// clocks with a wrong time zone or daylight saving revive nothing.
#[tokio::test]
async fn a_clock_that_was_set_back_by_up_to_a_day_revives_nothing() {
    for (back, counts) in [(DAY, true), (DAY + SECOND, false)] {
        let store = Memory::new();
        let written = |key, at: SystemTime| {
            let payload = Payload::json("1");
            Change::put(key, payload, Some(at + seconds(10))).written_at(Some(at))
        };
        let (first, last) = (start(), start() + seconds(11));
        let changes = vec![written("gone", first), written("last", last)];
        write_as_another(&store, changes).await;
        let behind = ManualClock::new(last - back);
        let map = open(builder(&store, &behind).time_to_live(seconds(10))).await;
        assert_eq!(map.get("last"), Some(1));
        assert_eq!(map.get("gone").is_none(), counts);
        // Neither entry outlives its TTL.
        behind.advance(seconds(10));
        assert_eq!(map.get("last"), None);
    }
}

/// A reload loads an entry that another process saved with a clock that was ahead. This map's time
/// neither jumps nor goes back, and expired entries stay expired.
#[tokio::test]
async fn a_glitch_of_another_process_moves_time_nowhere() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let (times, heard) = listening(builder(&store, &clock).time_to_live(seconds(10)));
    let map = open(times).await;
    map.insert_and_save("a", 1).await.unwrap();
    clock.advance(seconds(6));
    map.insert_and_save("b", 2).await.unwrap();
    clock.advance(seconds(5));
    settle().await;
    assert_eq!(*heard.lock(), [("a".to_owned(), 1)]);
    let ahead = ManualClock::new(in_ten_years());
    let other = open(builder(&store, &ahead)).await;
    other
        .insert_with_ttl_and_save("c", 3, seconds(10))
        .await
        .unwrap();
    map.reload().await.unwrap();
    assert_eq!(
        (map.get("a"), map.get("b"), map.get("c")),
        (None, Some(2), Some(3))
    );
    clock.advance(seconds(5));
    assert_eq!(
        (map.get("a"), map.get("b"), map.get("c")),
        (None, None, Some(3))
    );
    clock.advance(seconds(5));
    assert_eq!(map.get("c"), None);
}

/// The wrong clock is logged, once.
#[tokio::test]
async fn a_glitch_is_said_once() {
    let (store, right) = (Memory::new(), ManualClock::new(start()));
    let open = |clock: &ManualClock| {
        let map = CachingMap::<u64>::builder(store.clone(), "glitch").clock(clock.clone());
        map.time_to_live(seconds(100)).open()
    };
    assert!(warnings_of("glitch").is_empty());
    let map = open(&ManualClock::new(in_ten_years())).await.unwrap();
    map.extend((0..10).map(|n| (n.to_string(), n)));
    map.close().await.unwrap();
    assert!(warnings_of("glitch").is_empty());
    let map = open(&right).await.unwrap();
    assert_eq!(map.len(), 10);
    map.reload().await.unwrap();
    let said = warnings_of("glitch");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("clock"), "{said:?}");
}
