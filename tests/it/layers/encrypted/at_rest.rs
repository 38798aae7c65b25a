//! The files and tables of the stores: they contain no value, and moved values are unreadable.

use std::path::Path;

use super::*;
use crate::support::{as_it_is, open};

const MARKER: &str = "the very secret diagnosis";

/// Saves, overwrites, and sets aside values that contain the marker, and leaves the last one in
/// the journal or the WAL.
async fn write_secrets(store: impl Provider + Clone) -> PersistentMap<String> {
    let above = store.layer(layer());
    let map = open::<String>(above.clone(), "map", as_it_is).await;
    map.extend((0..50).map(|n| (n.to_string(), format!("{MARKER} {n}"))));
    map.flush().await.unwrap();
    map.insert_and_save("0", MARKER.repeat(1_000))
        .await
        .unwrap();
    map.remove_and_save("1").await.unwrap();
    map.insert_and_save("last", MARKER.to_owned())
        .await
        .unwrap();
    map
}

/// The names of all files that contain these bytes.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        if bytes.windows(needle.len()).any(|part| part == needle) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Also in base64, at each of the three alignments.
fn check_no_secret(folder: &Path) {
    assert_eq!(files_with(folder, MARKER.as_bytes()), [""; 0]);
    for base64 in ["dmVyeSBzZWNyZXQ", "Zlcnkgc2VjcmV0", "2ZXJ5IHNlY3JldC"] {
        assert_eq!(files_with(folder, base64.as_bytes()), [""; 0]);
    }
}

#[cfg(feature = "json")]
#[tokio::test]
async fn json_files_contain_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let store = persistify::JsonFile::open(folder.path()).await.unwrap();
    let map = write_secrets(store.clone()).await;
    check_no_secret(folder.path());
    assert!(!files_with(folder.path(), b"last").is_empty(), "no journal");
    map.close().await.unwrap();
    check_no_secret(folder.path());

    // The test finds the marker if there is no layer.
    let plain = open::<String>(store, "plain", as_it_is).await;
    plain.insert_and_save("a", MARKER.to_owned()).await.unwrap();
    assert_eq!(files_with(folder.path(), MARKER.as_bytes()).len(), 1);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_sqlite_file_and_its_wal_contain_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let store = persistify::Sqlite::open(&path).await.unwrap();
    let map = write_secrets(store.clone()).await;
    assert!(folder.path().join("maps.db-wal").exists());
    check_no_secret(folder.path());
    map.close().await.unwrap();
    check_no_secret(folder.path());

    let plain = open::<String>(store, "plain", as_it_is).await;
    plain.insert_and_save("a", MARKER.to_owned()).await.unwrap();
    assert!(!files_with(folder.path(), MARKER.as_bytes()).is_empty());
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn rows_that_are_swapped_in_sqlite_are_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open_store = async || persistify::Sqlite::open(&path).await.unwrap();
    let store = open_store().await;
    let map = open::<u32>(store.clone().layer(layer()), "map", as_it_is).await;
    map.extend([("a", 1), ("b", 2), ("c", 3)]);
    map.close().await.unwrap();
    store.close().await.unwrap();

    let other = rusqlite::Connection::open(&path).unwrap();
    let swap = "CREATE TEMP TABLE old AS SELECT key, value FROM map_map;
                UPDATE map_map SET value = (SELECT value FROM old WHERE key = 'b') WHERE key = 'a';
                UPDATE map_map SET value = (SELECT value FROM old WHERE key = 'a') WHERE key = 'b'";
    other.execute_batch(swap).unwrap();
    drop(other);

    let above = open_store().await.layer(layer());
    let error = opened(above.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let map = open::<u32>(above, "map", |map| map.allow_unreadable()).await;
    assert_eq!((map.len(), map.get("c")), (1, Some(3)));
    let mut keys: Vec<_> = map.unreadable().into_iter().map(|u| u.record.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a".into(), "b".into()]);
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_postgres_table_contains_no_value_and_swapped_rows_are_unreadable() {
    let database = crate::postgres::Database::fresh();
    let store = persistify::Postgres::connect(database.url()).await.unwrap();
    let map = write_secrets(store.clone()).await;
    map.close().await.unwrap();
    let witness = database.witness();
    let rows = |word: &str| {
        let bytes = "decode(value #>> '{}', 'base64')";
        let found = format!("position('{word}'::bytea IN {bytes}) > 0");
        witness.number(format!("SELECT count(*) FROM map_map WHERE {found}"))
    };
    assert_eq!(rows("secret"), 0);
    assert_eq!(rows("PfE"), 50);

    witness.execute(
        "UPDATE map_map SET value = (SELECT value FROM map_map AS other WHERE other.key =
         CASE map_map.key WHEN '2' THEN '3' ELSE '2' END) WHERE key IN ('2', '3')"
            .to_owned(),
    );
    let above = store.layer(layer());
    let map = open::<String>(above, "map", |map| map.allow_unreadable()).await;
    let mut keys: Vec<_> = map.unreadable().into_iter().map(|u| u.record.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["2".into(), "3".into()]);
}
