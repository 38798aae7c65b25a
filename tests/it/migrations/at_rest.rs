//! Schema versions on disk.

use persistify::{PersistentMap, Provider};

use super::{Three, schemas, steps, text, three};
use crate::support::{as_it_is, open};

/// Opens the store with an older program, which has no schema version, and then with a newer one.
async fn outlives<P: Provider + Clone>(provider: impl AsyncFn() -> P) {
    let store = provider().await;
    let map: PersistentMap<u64> = open(store.clone(), "map", as_it_is).await;
    map.extend([("a", 1), ("b", 2)]);
    map.close().await.unwrap();
    store.close().await.unwrap();

    let store = provider().await;
    let map = steps(PersistentMap::builder(store.clone(), "map"));
    let map = map.open().await.unwrap();
    assert_eq!(
        (map.get("a"), map.get("b")),
        (Some(three(1)), Some(three(2)))
    );
    map.insert("b", three(20));
    map.close().await.unwrap();
    store.close().await.unwrap();

    let store = provider().await;
    let expected = [("a", (0, text(0, 1))), ("b", (3, text(3, 20)))];
    let expected = expected
        .map(|(key, schema)| (key.to_owned(), schema))
        .into();
    assert_eq!(schemas(&store).await, expected);
    let map = steps(PersistentMap::builder(store.clone(), "map"));
    let map = map.rewrite_on_load().open().await.unwrap();
    assert_eq!(
        (map.get("a"), map.get("b")),
        (Some(three(1)), Some(three(20)))
    );
    map.close().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(schemas(&provider().await).await["a"], (3, text(3, 1)));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_sqlite_file_keeps_the_schema_version_of_each_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    outlives(async || persistify::Sqlite::open(&path).await.unwrap()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn json_files_keep_the_schema_version_of_each_entry() {
    let folder = tempfile::tempdir().unwrap();
    outlives(async || persistify::JsonFile::open(&folder).await.unwrap()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_file_that_was_written_by_hand_has_schema_version_0() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("map.json"), "{\n  \"a\": 1\n}\n").unwrap();
    let files = persistify::JsonFile::open(&folder).await.unwrap();
    let map = steps(PersistentMap::builder(files, "map"));
    let map: PersistentMap<Three> = map.open().await.unwrap();
    assert_eq!(map.get("a"), Some(three(1)));
}

/// A value that was edited by hand lost its schema version, and the map did not open any more,
/// although the edited value was of the current schema.
#[cfg(feature = "json")]
#[tokio::test]
async fn edits_by_hand_keep_the_schema_version() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || persistify::JsonFile::open(&folder).await.unwrap();
    let numbered = |files| PersistentMap::<Three>::builder(files, "map").schema(3);
    let map = numbered(open().await).open().await.unwrap();
    map.extend([("a", three(1)), ("b", three(2))]);
    map.close().await.unwrap();
    drop(map);
    let path = folder.path().join("map.json");
    let before = std::fs::read_to_string(&path).unwrap();
    let edited = before.replace("\"count\":1", "\"count\":10");
    let added = format!("{{\n  \"c\": {},\n{}", text(3, 30), &edited[2..]);
    std::fs::write(&path, added).unwrap();
    for _ in 0..2 {
        let map = numbered(open().await).open().await.unwrap();
        let found = ["a", "b", "c"].map(|key| map.get(key).map(|value| value.count));
        assert_eq!(found, [Some(10), Some(2), Some(30)]);
        map.close().await.unwrap();
    }
    assert_eq!(schemas(&open().await).await["c"].0, 3);
}
