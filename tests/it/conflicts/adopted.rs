//! Stores that are also written without a map: files edited by hand, and tables of other programs.

use persistify::{JsonFile, Sqlite};
use rusqlite::Connection;

use super::*;
use crate::support::open;

async fn open_in(store: impl Provider) -> PersistentMap<u32> {
    open(store, "map", |map| map.conflicts(OnConflict::StoreWins)).await
}

#[tokio::test]
async fn a_file_written_by_hand_is_no_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.json");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(r#"{"a": 1, "b": 1}"#);
    for edited in [None, Some(r#"{"a": 7, "b": 8, "c": 9}"#)] {
        edited.into_iter().for_each(write);
        let files = JsonFile::open(folder.path()).await.unwrap();
        let map = open_in(files.clone()).await;
        map.insert("a", 2);
        map.remove("b");
        map.insert("c", 2);
        map.flush().await.unwrap();
        map.insert("b", 3);
        map.close().await.unwrap();
        files.close().await.unwrap();
        assert_eq!(map.stats().conflicts, 0);
        let text = std::fs::read_to_string(&file).unwrap();
        let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(stored, serde_json::json!({"a": 2, "b": 3, "c": 2}));
    }
}

#[tokio::test]
async fn a_write_to_an_adopted_table_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("theirs.db");
    let other = Connection::open(&file).unwrap();
    other
        .execute_batch(
            "CREATE TABLE theirs (key TEXT PRIMARY KEY, value TEXT);
             INSERT INTO theirs VALUES ('a', '1'), ('b', '1'), ('c', '1')",
        )
        .unwrap();
    let sqlite = Sqlite::builder(&file)
        .table("map", "theirs")
        .columns("key", "value", "at");
    let map = open_in(sqlite.open().await.unwrap()).await;
    // The row is unchanged since the map was opened: no conflict.
    map.insert("a", 2);
    map.flush().await.unwrap();
    assert_eq!(map.stats().conflicts, 0);
    other
        .execute_batch(
            "UPDATE theirs SET value = '5' WHERE key IN ('a', 'b');
             DELETE FROM theirs WHERE key = 'c'; INSERT INTO theirs VALUES ('d', '5')",
        )
        .unwrap();
    let lost = map.insert_and_save("a", 3).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    map.extend([("b", 3), ("c", 3), ("d", 3)]);
    map.flush().await.unwrap();
    assert_eq!(map.stats().conflicts, 4);
    let held = ["a", "b", "c", "d"].map(|key| map.get(key));
    assert_eq!(held, [Some(5), Some(5), None, Some(5)]);
}
