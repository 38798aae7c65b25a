//! The shortest and the longest TTLs.

use super::*;

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
    // An entry may have a TTL of zero. It expires immediately.
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

/// A TTL that is out of range becomes a distant expiry or none, in every store.
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
        // A store may have a limit of its own. Later expiries become distant ones or none.
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
