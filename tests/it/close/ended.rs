//! After the end of a map: its task, its values, and its hold on the store.

use super::*;

/// The losses that were logged for this map.
fn losses_of(map: &str) -> Vec<String> {
    let mut said = warnings_of(map);
    said.retain(|said| said.contains("lost="));
    said
}

#[tokio::test(start_paused = true)]
async fn a_map_dropped_without_a_close_warns_with_what_is_lost() {
    assert!(losses_of("left").is_empty());
    let store = store();
    let again = || open::<u32>(store.clone(), "left", as_it_is);
    let map = again().await;
    let other = map.clone();
    store.refuse(["bad"]);
    map.insert_and_save("bad", 1).await.unwrap_err();
    map.extend([("a", 1), ("b", 2)]);
    drop(map);
    assert!(losses_of("left").is_empty(), "a handle is left");
    drop(other);
    let said = losses_of("left").join("\n");
    assert!(said.contains("lost=3") && said.contains("close"), "{said}");
    let calls = store.calls(Method::Commit);
    tokio::time::sleep(HOUR).await;
    assert_eq!(store.calls(Method::Commit), calls, "the task has ended");

    let map = again().await;
    map.insert("a", 1);
    map.close().await.unwrap();
    drop(map);
    drop(again().await);
    assert_eq!(
        losses_of("left").len(),
        1,
        "nothing was lost, nothing is said"
    );
}

#[derive(Clone, Default, Deserialize, Serialize)]
struct Held {
    #[serde(skip)]
    held: Arc<()>,
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_and_lets_go_of_the_values() {
    let store = store();
    let map: PersistentMap<Held> =
        open(store.clone(), "map", |map| steady(map).batch(1, SECOND)).await;
    let value = Held::default();
    let _hang = store.hang_next();
    map.insert("a", value.clone());
    settle().await;
    let iterator = map.iter();
    drop(map);
    settle().await;
    assert_eq!(iterator.count(), 1);
    settle().await;
    assert_eq!(Arc::strong_count(&value.held), 1);
}

/// The task answered the close before it dropped its handle of the provider. A caller that
/// closed the only map of a folder and reopened it at once sometimes found it locked.
#[cfg(feature = "json")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_map_holds_its_folder_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let files = persistify::JsonFile::open(folder.path()).await.unwrap();
        let map: PersistentMap<u32> = open(files, "map", as_it_is).await;
        map.insert("round", round);
        map.close().await.unwrap();
    }
}

/// If releasing a map fails, the map is open again. Traces of the release in the store must not
/// prevent further saves.
async fn a_map_that_was_not_released_goes_on(store: impl persistify::Provider + Clone) {
    let unavailable = ErrorKind::Unavailable;
    for fault in [
        Fault::Before(unavailable),
        Fault::Lost(unavailable),
        Fault::After(unavailable),
        Fault::After(ErrorKind::Unusable),
    ] {
        let store = persistify::testing::Faulty::new(store.clone());
        let map = open::<u32>(store.clone(), "map", |map| {
            map.commit_timeout(Duration::MAX)
        })
        .await;
        map.clear();
        map.extend([("a", 1), ("b", 1), ("c", 1)]);
        store.fail_next_of(Method::Release, 2, fault);
        map.close().await.unwrap_err();
        map.insert_and_save("a", 2).await.unwrap();
        map.remove("b");
        map.flush().await.unwrap();
        map.close().await.unwrap_err();
        assert_eq!(map.get("a"), Some(2));
        // The same if nothing is written in between.
        map.reload().await.unwrap();
        map.insert("d", 4);
        map.close().await.unwrap();
        let again = open::<u32>(store.clone(), "map", as_it_is).await;
        assert_eq!(in_memory(&again), pairs([("a", 2), ("c", 1), ("d", 4)]));
        again.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_map_that_was_not_released_goes_on_in_memory() {
    a_map_that_was_not_released_goes_on(persistify::Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_map_that_was_not_released_goes_on_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    a_map_that_was_not_released_goes_on(files).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_map_that_was_not_released_goes_on_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = persistify::Sqlite::open(folder.path().join("maps.db")).await;
    a_map_that_was_not_released_goes_on(file.unwrap()).await;
}
