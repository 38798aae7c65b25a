//! Files in the folder after a map is dropped.

use persistify::{ErrorKind, PersistentMap};

use super::*;

fn files_in(folder: &TempDir) -> Vec<String> {
    let names = std::fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_files_of_a_dropped_map_are_gone() {
    let folder = TempDir::new().unwrap();
    let files = JsonFile::open(folder.path()).await.unwrap();
    let map = MapName::new("map").unwrap();
    let open = PersistentMap::<u32>::builder(files.clone(), "map");
    let open = open.open().await.unwrap();
    open.insert_and_save("a", 1).await.unwrap();
    assert!(!files_in(&folder).is_empty());
    files.drop_map(&map).await.unwrap();
    assert_eq!(files_in(&folder), Vec::<String>::new());
    let refused = open.insert_and_save("b", 2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rewound, "{refused:?}");
    assert_eq!(files_in(&folder), Vec::<String>::new());
}

/// The file belongs to another program, so a drop must not remove it.
#[tokio::test]
async fn an_adopted_file_is_detached_and_keeps_its_entries() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("Other.json"), r#"{"a": 1}"#).unwrap();
    let files = JsonFile::builder(folder.path()).file("map", "Other.json");
    let files = files.open().await.unwrap();
    let map = MapName::new("map").unwrap();
    let open = async || {
        let map = PersistentMap::<u32>::builder(files.clone(), "map");
        map.open().await.unwrap()
    };
    let old = open().await;
    old.insert_and_save("b", 2).await.unwrap();
    files.drop_map(&map).await.unwrap();
    assert_eq!(files_in(&folder), ["Other.json"]);
    let text = std::fs::read_to_string(folder.path().join("Other.json")).unwrap();
    assert_eq!(text, "{\n  \"a\": 1,\n  \"b\": 2\n}\n");
    let new = open().await;
    assert_eq!((new.get("a"), new.get("b")), (Some(1), Some(2)));
    new.insert_and_save("c", 3).await.unwrap();
    let refused = old.insert_and_save("d", 4).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rewound, "{refused:?}");
    new.close().await.unwrap();
}
