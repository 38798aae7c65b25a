//! Plain maps and adopted tables that are reopened as caching maps.

use persistify::{
    CachingMap, CachingMapBuilder, Memory, PersistentMap, Provider,
    testing::{Faulty, ManualClock, Method},
};

use super::{SECOND, builder, listening, open, seconds};
use crate::support::{put, records, settle, start, stored_values, write_as_another};

type Times = fn(CachingMapBuilder<u64>) -> CachingMapBuilder<u64>;

/// Each expires entries that were not read for 100 seconds.
const TIMES: [Times; 3] = [
    |map| map.time_to_live(seconds(100)),
    |map| map.time_to_idle(seconds(100)),
    |map| map.time_to_live(seconds(300)).time_to_idle(seconds(100)),
];

async fn plain(store: &(impl Provider + Clone), clock: &ManualClock) -> PersistentMap<u64> {
    let map = PersistentMap::builder(store.clone(), "map").clock(clock.clone());
    map.open().await.unwrap()
}

/// Entries of a plain map that was reopened as a caching map lived forever, because they had no
/// deadline. They now get the times of the map when it is first opened. Later openings do not
/// extend them.
async fn what_was_there_gets_the_times_of_the_map(store: impl Provider + Clone) {
    for times in TIMES {
        let clock = ManualClock::new(start());
        let map = plain(&store, &clock).await;
        map.extend([("a", 1), ("b", 2)]);
        map.close().await.unwrap();
        // The entries were written long ago.
        clock.advance(seconds(10_000));
        let times = || times(builder(&store, &clock));
        for _ in 0..9 {
            let map = open(times()).await;
            assert_eq!(map.len(), 2);
            map.close().await.unwrap();
            clock.advance(seconds(10));
        }
        let (listened, heard) = listening(times());
        let map = open(listened).await;
        clock.advance(seconds(9));
        assert_eq!(map.len(), 2);
        // With both times set, the idle time counts from the opening: the last read is unknown.
        clock.advance(seconds(211));
        assert_eq!(map.len(), 0);
        settle().await;
        assert_eq!(heard.lock().len(), 2);
        map.flush().await.unwrap();
        assert!(records(&store).await.is_empty());
        map.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_of_an_older_map_gets_the_maps_times_in_memory() {
    what_was_there_gets_the_times_of_the_map(Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn an_entry_of_an_older_map_gets_the_maps_times_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    what_was_there_gets_the_times_of_the_map(files).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_entry_of_an_older_map_gets_the_maps_times_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.db");
    let sqlite = persistify::Sqlite::open(&file).await.unwrap();
    what_was_there_gets_the_times_of_the_map(sqlite).await;
}

#[tokio::test]
async fn an_entry_of_an_older_map_ends_with_the_maps_time() {
    for (n, times) in TIMES.into_iter().enumerate() {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let map = plain(&store, &clock).await;
        map.insert_and_save("a", 1).await.unwrap();
        clock.advance(seconds(10_000));
        let times = || times(builder(&store, &clock));
        let map = open(times()).await;
        clock.advance(seconds(60));
        map.close().await.unwrap();
        let map = open(times()).await;
        assert_eq!(map.len(), 1);
        clock.advance(seconds(40));
        // With both times set, the idle time counts from the last opening.
        assert_eq!(map.len(), usize::from(n == 2));
        clock.advance(seconds(60));
        assert_eq!(map.len(), 0);
    }
}

/// Reads extend a reopened entry like any other, but not beyond the time to live, counted from
/// the first opening, however often the map is reopened.
#[tokio::test]
async fn an_entry_of_an_older_map_is_extended_by_reads_and_not_by_restarts() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = plain(&store, &clock).await;
    map.insert_and_save("a", 1).await.unwrap();
    clock.advance(seconds(10_000));
    for n in 0..30 {
        let map = open(TIMES[2](builder(&store, &clock))).await;
        assert_eq!(map.get("a"), Some(1), "{n}");
        clock.advance(seconds(9));
        assert_eq!(map.get("a"), Some(1), "{n}");
        map.close().await.unwrap();
        clock.advance(SECOND);
    }
    let map = open(TIMES[2](builder(&store, &clock))).await;
    assert_eq!(map.get("a"), None);
}

/// An overwritten entry gets the times of the map, like any other.
#[tokio::test]
async fn an_entry_of_an_older_map_that_is_written_again_begins_anew() {
    for times in TIMES {
        let (store, clock) = (Memory::new(), ManualClock::new(start()));
        let map = plain(&store, &clock).await;
        map.insert_and_save("a", 1).await.unwrap();
        clock.advance(seconds(10_000));
        let times = || times(builder(&store, &clock));
        let map = open(times()).await;
        clock.advance(seconds(60));
        map.update("a", |n| *n += 1);
        map.close().await.unwrap();
        clock.advance(seconds(60));
        let map = open(times()).await;
        assert_eq!(map.get("a"), Some(2));
    }
}

/// Only the new expiry is written to the store. Values are not rewritten, and entries that another
/// process has written meanwhile are not touched.
#[tokio::test]
async fn the_store_hears_of_the_time_and_keeps_the_value() {
    let store = Faulty::new(Memory::new());
    let clock = ManualClock::new(start());
    write_as_another(store.inner(), vec![put("mine", " 1 "), put("theirs", "1")]).await;
    for times in TIMES {
        let map = open(times(builder(&store, &clock)).batch(1_000, seconds(3_600))).await;
        write_as_another(store.inner(), vec![put("theirs", "2")]).await;
        map.flush().await.unwrap();
        let now = records(store.inner()).await;
        assert_eq!(&*now["mine"].value.as_ref().unwrap().bytes, b" 1 ");
        assert!(now["mine"].expires_at.is_some());
        assert_eq!(now["theirs"].expires_at, None);
        assert_eq!(
            (map.get("theirs"), map.expires_at("theirs")),
            (Some(2), None)
        );
        // The store has the expiry, so a second opening writes nothing.
        let commits = store.calls(Method::Commit);
        let again = open(times(builder(&store, &clock)).batch(1_000, seconds(3_600))).await;
        assert_eq!(again.pending(), 1);
        assert_eq!(store.calls(Method::Commit), commits);
        assert_eq!(stored_values::<u64>(store.inner()).await["mine"], 1);
        write_as_another(store.inner(), vec![put("mine", " 1 ")]).await;
    }
}

/// Without a time of the map, entries live until they are removed.
#[tokio::test]
async fn a_map_without_times_leaves_what_was_there() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = plain(&store, &clock).await;
    map.insert_and_save("a", 1).await.unwrap();
    let map: CachingMap<u64> = open(builder(&store, &clock)).await;
    clock.advance(seconds(1_000_000));
    assert_eq!((map.get("a"), map.pending()), (Some(1), 0));
}

/// An adopted table has no column for deadlines: they are stored beside it. Its rows stay as the
/// other program wrote them, even if they have fields that this type does not read.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn rows_of_another_program_get_times_and_stay_as_they_are() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Narrow {
        n: u64,
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    let table = "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT, updated_at INTEGER);
        INSERT INTO t VALUES ('a', '{\"n\": 1, \"more\": 2}', 5), ('b', '{\"n\": 2}', NULL)";
    other.execute_batch(table).unwrap();
    let rows = || -> Vec<(String, Option<i64>)> {
        let mut rows = other
            .prepare("SELECT value, updated_at FROM t ORDER BY key")
            .unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    let before = rows();
    let store = persistify::Sqlite::builder(&path).table("map", "t");
    let store = store.open().await.unwrap();
    let clock = ManualClock::new(start());
    let times = || {
        let map = CachingMap::<Narrow>::builder(store.clone(), "map").clock(clock.clone());
        map.time_to_live(seconds(300)).time_to_idle(seconds(100))
    };
    for _ in 0..5 {
        let map = times().open().await.unwrap();
        assert!(map.get("a").is_some_and(|a| a.n == 1));
        map.close().await.unwrap();
        assert_eq!(rows(), before);
        clock.advance(seconds(59));
    }
    let map = times().open().await.unwrap();
    assert_eq!(map.len(), 2);
    clock.advance(seconds(5));
    assert!(map.is_empty());
    settle().await;
    map.close().await.unwrap();
    assert!(rows().is_empty());
}
