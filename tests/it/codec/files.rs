//! Files and tables with deeply nested texts, written by people and other programs.

use std::fs;

use persistify::{ErrorKind, JsonFile, Memory, PersistentMap, copy};
use serde_json::{Value as Json, value::RawValue};

use super::depth::{DEEP, deep_text};
use crate::support::{as_it_is, open};

/// A deeply nested text makes one record unreadable. Reading it does not recurse.
#[tokio::test]
async fn a_file_with_a_text_of_any_depth_opens_but_for_that_entry() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.json");
    let deep = deep_text();
    fs::write(&file, format!("{{\"a\": {deep},\n\"b\": [\n1]}}")).unwrap();
    let files = JsonFile::open(folder.path()).await.unwrap();
    let builder = || PersistentMap::<Json>::builder(files.clone(), "map");
    let error = builder().open().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Corrupt, 1));
    let map = builder().allow_unreadable().open().await.unwrap();
    assert_eq!((map.len(), map.unreadable().len()), (1, 1));
    map.insert("c", Json::Null);
    map.close().await.unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains(&deep));

    let target = Memory::new();
    copy(&files, &target, ["map"], |_, _| {}).await.unwrap();
    let raw: PersistentMap<Box<RawValue>> = open(target, "map", as_it_is).await;
    assert_eq!(raw.read("a", |text| text.get().len()), Some(2 * DEEP));
}

#[tokio::test]
async fn a_file_that_is_nothing_but_deep_is_corrupt() {
    for text in [deep_text(), "{\"a\":".repeat(DEEP), "[".repeat(DEEP)] {
        for name in ["map.json", "map.meta"] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), &text).unwrap();
            let files = JsonFile::open(folder.path()).await.unwrap();
            let map = PersistentMap::<Json>::builder(files, "map").open().await;
            if name == "map.json" {
                assert_eq!(map.unwrap_err().kind(), ErrorKind::Corrupt);
            }
        }
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_row_with_a_text_of_any_depth_is_one_unreadable_record() {
    use persistify::Sqlite;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let file = async || Sqlite::open(&path).await.unwrap();
    let map: PersistentMap<Json> = open(file().await, "map", as_it_is).await;
    map.insert("a", Json::Null);
    map.insert("b", Json::Null);
    map.close().await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    let update = "UPDATE map_map SET value = ?1 WHERE key = 'a'";
    assert_eq!(other.execute(update, [deep_text()]).unwrap(), 1);
    let map = PersistentMap::<Json>::builder(file().await, "map");
    let error = map.open().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Corrupt, 1));
}
