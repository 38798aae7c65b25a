//! Files that are replaced by an older copy, or removed, while their map is open.

use persistify::{ErrorKind, Health, PersistentMap, Rewind};

use super::*;
use crate::rewind::decided::{
    DECISIONS, entries, goes_on_by_itself, open as open_map, save_lost, save_old,
    stops_and_goes_on, stored,
};

/// The files of a folder at some time.
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

    /// In the place of all that is in the folder.
    fn put_back(&self, folder: &TempDir) {
        for name in names(folder.path()) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        for (name, bytes) in &self.0 {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
    }
}

/// Copies of a folder: what they are of, what they hold, and what they are
/// followed by.
const COPIES: [(&str, &[(&str, u64)]); 3] = [
    ("a map at rest", &[("old", 1)]),
    ("a map in use", &[("old", 1)]),
    ("nothing", &[]),
];

/// A map that has saved both entries since there was a copy like that.
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

/// An older copy of the files was put back under an open map, or they were removed.
/// That was `Corrupt`, with the advice to put back files that nobody had any more;
/// nothing but a restart of the program helped, and it took the older ones without a
/// word.
#[tokio::test]
async fn an_older_copy_or_none_of_the_files_stops_the_map_until_it_is_decided() {
    for (of, remembered) in COPIES {
        for decision in DECISIONS {
            let folder = quick_folder();
            let (files, map, copy) = opened(&folder, of, Rewind::Stop).await;
            copy.put_back(&folder);
            stops_and_goes_on(&files, &map, decision, remembered).await;
            files.close().await.unwrap();
            // It is so on the disk, too.
            let found = stored(&open(&folder).await).await;
            match decision {
                Rewind::Stop => assert_eq!(found, entries(remembered), "{of}"),
                _ => assert_eq!(found["pending"], 3, "{of}"),
            }
        }
    }
}

#[tokio::test]
async fn a_map_goes_on_by_itself_with_other_files_if_it_was_opened_to() {
    for (of, remembered) in COPIES {
        for decision in [Rewind::SaveAgain, Rewind::TakeStore] {
            let folder = quick_folder();
            let (files, map, copy) = opened(&folder, of, decision).await;
            copy.put_back(&folder);
            goes_on_by_itself(&files, &map, decision, remembered).await;
        }
    }
}

/// A ping of a folder knows nothing of its maps: the map asks with a batch that changes
/// nothing.
#[tokio::test(start_paused = true)]
async fn a_map_that_has_nothing_pending_stays_stopped() {
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

/// The folder has forgotten that it ever acknowledged something, and the map knows
/// its incarnation.
#[tokio::test(start_paused = true)]
async fn a_map_that_was_idle_for_long_notices_that_its_files_are_gone() {
    let folder = quick_folder();
    let (files, map, _) = opened(&folder, "nothing", Rewind::Stop).await;
    tokio::time::advance(Duration::from_hours(20)).await;
    Copy::nothing().put_back(&folder);
    map.insert("pending", 3);
    assert_eq!(map.flush().await.unwrap_err().kind(), ErrorKind::Rewound);
    assert!(stored(&files).await.is_empty());
}

#[tokio::test]
async fn a_load_answers_with_what_the_files_hold_that_were_put_back() {
    for (of, remembered) in COPIES {
        let folder = quick_folder();
        let (files, _map, copy) = opened(&folder, of, Rewind::Stop).await;
        copy.put_back(&folder);
        assert_eq!(stored(&files).await, entries(remembered), "{of}");
    }
}

/// The map has stopped, and somebody puts the right files back.
#[tokio::test(start_paused = true)]
async fn files_that_are_put_back_as_they_were_let_the_map_go_on_by_itself() {
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

/// Its only batch is as long as that of the journal in whose place it comes: only
/// the id tells them apart. What was added to the wrong one could not be read again.
#[tokio::test]
async fn a_journal_of_the_same_length_is_told_from_the_own() {
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

/// A fold of the journal that is known does not touch the files that are in its
/// place.
#[tokio::test]
async fn a_release_overwrites_nothing_of_an_older_copy() {
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

/// A meta file that tells of a journal, which is not there, was marked once more: after
/// that it could not be read, nor what was acknowledged.
#[tokio::test]
async fn nothing_is_added_to_a_meta_file_that_misses_its_journal() {
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

/// Some files of the copy, beside those that are there, are neither the one state
/// nor the other.
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
