//! Files that are replaced by an older copy, or removed, while their map is open.

use persistify::{ErrorKind, Health, PersistentMap, Rewind};

use super::*;
use crate::rewind::decided::{
    DECISIONS, entries, goes_on_by_itself, open as open_map, save_lost, save_old,
    stops_and_goes_on, stored,
};

/// A copy of the files of a folder.
struct Copy(Vec<(String, Vec<u8>)>);

impl Copy {
    fn of(folder: &TempDir) -> Self {
        let read = |name: String| {
            let bytes = fs::read(folder.path().join(&name)).unwrap();
            (name, bytes)
        };
        Self(names(folder.path()).into_iter().map(read).collect())
    }

    fn nothing() -> Self {
        Self(Vec::new())
    }

    /// Replaces all files of the folder.
    fn put_back(&self, folder: &TempDir) {
        for name in names(folder.path()) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        for (name, bytes) in &self.0 {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
    }
}

/// Copies of a folder: their origin and their entries.
const COPIES: [(&str, &[(&str, u64)]); 3] = [
    ("a map at rest", &[("old", 1)]),
    ("a map in use", &[("old", 1)]),
    ("nothing", &[]),
];

/// A map that has saved both entries after such a copy was made.
async fn opened(
    folder: &TempDir,
    of: &str,
    rewind: Rewind,
) -> (JsonFile, PersistentMap<u64>, Copy) {
    let mut files = open(folder).await;
    let mut map = open_map(files.clone(), rewind).await;
    save_old(&map).await;
    if of == "a map at rest" {
        map.close().await.unwrap();
        files.close().await.unwrap();
    }
    let copy = Copy::of(folder);
    if of == "a map at rest" {
        files = open(folder).await;
        map = open_map(files.clone(), rewind).await;
    }
    save_lost(&map).await;
    let copy = if of == "nothing" {
        Copy::nothing()
    } else {
        copy
    };
    (files, map, copy)
}

/// An older copy of the files was restored under an open map, or they were removed. The error
/// was `Corrupt`, with the advice to restore files that no longer existed. Only a restart
/// helped, and it accepted the older files without a warning.
#[tokio::test]
async fn an_older_copy_of_the_files_stops_the_map_until_it_is_resolved() {
    for (of, remembered) in COPIES {
        for decision in DECISIONS {
            let folder = quick_folder();
            let (files, map, copy) = opened(&folder, of, Rewind::Stop).await;
            copy.put_back(&folder);
            stops_and_goes_on(&files, &map, decision, remembered).await;
            files.close().await.unwrap();
            // The files on disk match.
            let found = stored(&open(&folder).await).await;
            match decision {
                Rewind::Stop => assert_eq!(found, entries(remembered), "{of}"),
                _ => assert_eq!(found["pending"], 3, "{of}"),
            }
        }
    }
}

#[tokio::test]
async fn an_older_copy_under_a_map_with_on_rewind_is_resolved_by_the_map() {
    for (of, remembered) in COPIES {
        for decision in [Rewind::SaveAgain, Rewind::TakeStore] {
            let folder = quick_folder();
            let (files, map, copy) = opened(&folder, of, decision).await;
            copy.put_back(&folder);
            goes_on_by_itself(&files, &map, decision, remembered).await;
        }
    }
}

/// A ping checks the folder, not its maps, so the map probes with an empty batch.
#[tokio::test(start_paused = true)]
async fn a_stopped_map_without_pending_changes_stays_stopped() {
    for (of, _) in COPIES {
        let folder = quick_folder();
        let (files, map, copy) = opened(&folder, of, Rewind::Stop).await;
        copy.put_back(&folder);
        map.insert("pending", 3);
        assert_eq!(map.flush().await.unwrap_err().kind(), ErrorKind::Rewound);
        map.remove("pending");
        assert_eq!(map.pending(), 0);
        assert_eq!(map.flush().await.unwrap_err().kind(), ErrorKind::Rewound);
        assert!(matches!(*map.health().borrow(), Health::Rewound { .. }));
        drop(files);
    }
}

/// The folder no longer remembers the acknowledged commit, but the map knows its
/// incarnation.
#[tokio::test(start_paused = true)]
async fn removed_files_of_an_idle_map_are_detected() {
    let folder = quick_folder();
    let (files, map, _) = opened(&folder, "nothing", Rewind::Stop).await;
    tokio::time::advance(Duration::from_hours(20)).await;
    Copy::nothing().put_back(&folder);
    map.insert("pending", 3);
    assert_eq!(map.flush().await.unwrap_err().kind(), ErrorKind::Rewound);
    assert!(stored(&files).await.is_empty());
}

#[tokio::test]
async fn a_load_after_an_older_copy_returns_its_entries() {
    for (of, remembered) in COPIES {
        let folder = quick_folder();
        let (files, _map, copy) = opened(&folder, of, Rewind::Stop).await;
        copy.put_back(&folder);
        assert_eq!(stored(&files).await, entries(remembered), "{of}");
    }
}

/// The right files are restored after the map has stopped.
#[tokio::test(start_paused = true)]
async fn a_stopped_map_resumes_when_its_files_are_restored() {
    for (of, _) in COPIES {
        let folder = quick_folder();
        let (files, map, copy) = opened(&folder, of, Rewind::Stop).await;
        let newest = Copy::of(&folder);
        copy.put_back(&folder);
        map.insert("pending", 3);
        assert_eq!(map.flush().await.unwrap_err().kind(), ErrorKind::Rewound);
        newest.put_back(&folder);
        let mut health = map.health();
        health.wait_for(Health::is_healthy).await.unwrap();
        map.flush().await.unwrap();
        let all = entries(&[("lost", 2), ("old", 1), ("pending", 3)]);
        assert_eq!(stored(&files).await, all, "{of}");
    }
}

/// The only batch of the other journal has the same length; only the ids differ. Frames that
/// were appended to the wrong journal could not be read again.
#[tokio::test]
async fn another_journal_of_the_same_length_is_detected() {
    let folder = quick_folder();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    files.release(&stock()).await.unwrap();
    let at_rest = Copy::of(&folder);
    Writer::new().put(&files, "apple", "2").await.unwrap();
    let other = Copy::of(&folder);
    at_rest.put_back(&folder);
    let mut writer = Writer::new();
    writer.put(&files, "apple", "3").await.unwrap();
    let journal = |copy: &Copy| {
        copy.0
            .iter()
            .find(|(n, _)| n == "stock.journal")
            .unwrap()
            .1
            .len()
    };
    assert_eq!(journal(&other), journal(&Copy::of(&folder)));

    let own = Copy::of(&folder);
    fs::write(folder.path().join("stock.journal"), {
        let journal = other.0.iter().find(|(name, _)| name == "stock.journal");
        &journal.unwrap().1
    })
    .unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "2")]));
    Writer::new().put(&files, "pear", "4").await.unwrap();
    let all = pairs([("apple", "2"), ("pear", "4")]);
    assert_eq!(texts(&files).await.unwrap(), all);
    drop(files);
    let files = open(&folder).await;
    assert_eq!(texts(&files).await.unwrap(), all);
    drop(files);
    own.put_back(&folder);
    let files = open(&folder).await;
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "3")]));
}

/// A compaction does not touch files that replaced those of the map.
#[tokio::test]
async fn a_release_beside_an_older_copy_overwrites_nothing() {
    for (of, _) in COPIES {
        let folder = quick_folder();
        let (files, map, copy) = opened(&folder, of, Rewind::Stop).await;
        copy.put_back(&folder);
        let name = name("map");
        let failed = files.release(&name).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Corrupt, "{of}: {failed:?}");
        assert_eq!(Copy::of(&folder).0, copy.0, "{of}");
        drop(map);
    }
}

/// A meta file that had a mark, but no journal, got another mark. It was then unreadable, and
/// acknowledged commits were lost.
#[tokio::test]
async fn a_meta_file_without_its_journal_is_not_appended_to() {
    let folder = quick_folder();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    let meta = folder.path().join("stock.meta");
    files.release(&stock()).await.unwrap();
    load(&files).await.unwrap();
    let at_rest = Copy::of(&folder);
    writer.put(&files, "apple", "2").await.unwrap();
    let marked = fs::read(&meta).unwrap();
    at_rest.put_back(&folder);
    load(&files).await.unwrap();
    fs::write(&meta, &marked).unwrap();
    let failed = writer.put(&files, "apple", "3").await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Corrupt, "{failed:?}");
    assert_eq!(fs::read(&meta).unwrap(), marked);
}

/// Files of the copy mixed with current files are neither the old nor the new state.
#[tokio::test]
async fn a_part_of_an_older_copy_is_corrupt_and_nothing_is_overwritten() {
    let folder = quick_folder();
    let (files, map, copy) = opened(&folder, "a map at rest", Rewind::SaveAgain).await;
    files.release(&name("map")).await.unwrap();
    map.insert_and_save("more", 4).await.unwrap();
    let newest = Copy::of(&folder);
    for (name, bytes) in &copy.0 {
        newest.put_back(&folder);
        fs::write(folder.path().join(name), bytes).unwrap();
        let before = Copy::of(&folder);
        let failed = map.insert_and_save("k", 5).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Corrupt, "{name}: {failed:?}");
        assert_eq!(Copy::of(&folder).0, before.0, "{name}");
    }
    newest.put_back(&folder);
    map.flush().await.unwrap();
    assert_eq!(stored(&files).await.len(), 4);
}
