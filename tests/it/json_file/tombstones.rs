//! Deletions, as a reader that follows a map receives them.

use persistify::{Cause, Deletion, PersistentMap, WriterId};

use super::*;

/// The answer to a load of all changes after a revision.
#[derive(Debug, PartialEq)]
struct Told {
    /// The keys with their revisions; tombstones also have their deletion.
    changes: Vec<(String, Revision, Option<Deletion>)>,
    cleared: Option<Revision>,
    pruned_to: Option<Revision>,
    horizon: Revision,
}

async fn told(files: &JsonFile, after: Revision) -> Told {
    let map = stock();
    let load = files.load(&map, Wanted::changed(after)).await.unwrap();
    let (cleared, pruned_to, horizon) = (load.cleared, load.pruned_to, load.horizon);
    let records = load.into_records().await.unwrap();
    let changes = records.into_iter();
    Told {
        changes: changes
            .map(|record| (record.key.to_string(), record.revision, record.deletion))
            .collect(),
        cleared,
        pruned_to,
        horizon,
    }
}

/// The revision of the answer.
fn revision(answer: Result<Committed>) -> Revision {
    answer.unwrap().revision.unwrap()
}

/// Puts `apple`, `pear` and `plum`; then `apple` is removed and `pear` expires. Returns the
/// revisions of the two commits.
async fn deleted(files: &JsonFile, writer: &mut Writer) -> [Revision; 2] {
    let three = ["apple", "pear", "plum"].map(|key| put(key, "1"));
    let first = files.commit(&writer.batch(three.into())).await;
    let expired = Change::delete("pear").because(Cause::Expired);
    let batch = writer.batch(vec![
        Change::delete("apple"),
        expired,
        Change::delete("none"),
    ]);
    [revision(first), revision(files.commit(&batch).await)]
}

fn tombstone(
    key: &str,
    at: Revision,
    cause: Cause,
    by: WriterId,
) -> (String, Revision, Option<Deletion>) {
    (key.to_owned(), at, Some(Deletion::new(cause, by)))
}

#[tokio::test]
async fn tombstones_after_a_crash_and_after_a_release_are_the_same() {
    let folder = TempDir::new().unwrap();
    let mut files = open(&folder).await;
    let mut writer = Writer::new();
    let [first, second] = deleted(&files, &mut writer).await;
    let by = writer.pen.id;
    for round in 0..4 {
        let found = told(&files, first).await;
        let expected = [
            tombstone("apple", second, Cause::Removed, by),
            tombstone("pear", second, Cause::Expired, by),
        ];
        assert_eq!(found.changes, expected, "round {round}");
        assert_eq!((found.cleared, found.pruned_to), (None, None));
        assert_eq!(told(&files, second).await.changes, []);
        if round == 1 {
            files.release(&stock()).await.unwrap();
        } else {
            drop(files);
            files = open(&folder).await;
        }
    }
    // A journal on top of the tombstones of the meta file.
    writer.put(&files, "more", "1").await.unwrap();
    writer.delete(&files, "more").await.unwrap();
    writer.put(&files, "more", "1").await.unwrap();
    writer.delete(&files, "plum").await.unwrap();
    drop(files);
    let found = told(&open(&folder).await, first).await.changes;
    let keys = found.iter().map(|(key, _, of)| (&**key, of.is_some()));
    let expected = [
        ("apple", true),
        ("pear", true),
        ("more", false),
        ("plum", true),
    ];
    assert_eq!(keys.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_key_that_is_put_again_has_no_tombstone() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let [first, _] = deleted(&files, &mut writer).await;
    let again = revision(writer.put(&files, "apple", "2").await);
    let found = told(&files, first).await.changes;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[1], ("apple".to_owned(), again, None));
}

#[tokio::test]
async fn a_clear_is_one_revision_and_a_drop_is_a_clear() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let [first, second] = deleted(&files, &mut writer).await;
    let mut batch = writer.batch(vec![put("fig", "1"), Change::delete("plum")]);
    batch.maps = [batch.maps[0].clone().clearing(true)].into();
    let cleared = revision(files.commit(&batch).await);
    let fig = ("fig".to_owned(), cleared, None);
    for round in 0..2 {
        let found = told(&files, first).await;
        assert_eq!(found.changes, std::slice::from_ref(&fig), "round {round}");
        assert_eq!((found.cleared, found.pruned_to), (Some(cleared), None));
        files.release(&stock()).await.unwrap();
    }
    files.drop_map(&stock()).await.unwrap();
    let found = told(&files, second).await;
    assert_eq!(found.changes, []);
    assert!(found.cleared > Some(cleared), "{found:?}");
    assert!(Some(found.horizon) >= found.cleared, "{found:?}");
    assert_eq!(told(&files, found.horizon).await.cleared, None);
}

/// An adopted file keeps its entries, so a drop is not a clear. The writer's clock is ahead, so
/// its revisions exceed the one that the entries get from the modification time.
#[tokio::test]
async fn a_reader_of_a_file_that_was_detached_loads_all() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("Other.json"), "{\"a\": 1}").unwrap();
    let builder = JsonFile::builder(folder.path()).file("stock", "Other.json");
    let files = builder.open().await.unwrap();
    let mut writer = Writer::new();
    writer.pen.at = SystemTime::now() + Duration::from_secs(3_600);
    let known = revision(writer.put(&files, "b", "2").await);
    files.drop_map(&stock()).await.unwrap();
    let found = told(&files, known).await;
    assert_eq!((found.changes, found.cleared), (Vec::new(), None));
    assert!(found.pruned_to > Some(known));
    assert_eq!(told(&files, found.horizon).await.pruned_to, None);
    assert_eq!(
        texts(&files).await.unwrap(),
        pairs([("a", "1"), ("b", "2")])
    );
}

#[tokio::test]
async fn old_tombstones_are_pruned_and_readers_are_told_so() {
    let folder = TempDir::new().unwrap();
    let builder = || JsonFile::builder(folder.path()).keep_tombstones(Duration::from_secs(16));
    let mut files = builder().open().await.unwrap();
    let mut writer = Writer::new();
    writer.pen.at = time(1_000);
    let [first, second] = deleted(&files, &mut writer).await;
    writer.pen.at = time(10_000);
    let third = revision(writer.delete(&files, "plum").await);
    writer.pen.at = time(19_000);
    writer.put(&files, "fig", "1").await.unwrap();
    for round in 0..3 {
        let found = told(&files, first).await;
        assert_eq!((found.changes.len(), found.pruned_to), (0, Some(second)));
        let found = told(&files, second).await;
        assert_eq!((found.changes.len(), found.pruned_to), (2, None), "{round}");
        assert_eq!(found.changes[0].1, third);
        files.close().await.unwrap();
        files = builder().open().await.unwrap();
    }
    let meta = fs::read_to_string(folder.path().join("stock.meta")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let kept = meta["tombstones"]["by_key"].as_object().unwrap();
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["plum"]);
}

/// An edit by hand leaves no tombstones.
#[tokio::test]
async fn a_reader_from_before_an_edit_by_hand_loads_all() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let [_, known] = deleted(&files, &mut writer).await;
    files.close().await.unwrap();
    write_by_hand(&folder, "{\"fig\": 1}");
    let mut files = open(&folder).await;
    let edited = told(&files, Revision::ZERO).await.pruned_to.unwrap();
    assert!(edited > known);
    for _ in 0..2 {
        let found = told(&files, known).await;
        assert_eq!((found.changes.len(), found.pruned_to), (0, Some(edited)));
        assert_eq!(found.horizon, edited);
        drop(files);
        files = open(&folder).await;
    }
    // From then on, the reader receives deletions again.
    let deleted = revision(writer.delete(&files, "fig").await);
    let found = told(&files, edited).await;
    assert_eq!(found.changes[0].1, deleted);
    assert_eq!(found.pruned_to, None);
}

/// A file without a meta file, or with one of an earlier version, has no record of earlier
/// deletions.
#[tokio::test]
async fn a_reader_from_before_the_meta_file_loads_all() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let [first, second] = deleted(&files, &mut writer).await;
    files.close().await.unwrap();
    rewrite_meta(&folder, |text| {
        let lines = text.split_inclusive('\n');
        let kept = lines.filter(|line| !line.starts_with("\"tombstones\""));
        kept.collect::<String>()
            .replace("\"format\": 2", "\"format\": 1")
    });
    let files = open(&folder).await;
    assert_eq!(told(&files, first).await.pruned_to, Some(second));
    assert_eq!(told(&files, second).await.pruned_to, None);
    files.close().await.unwrap();
    fs::remove_file(folder.path().join("stock.meta")).unwrap();
    let files = open(&folder).await;
    let found = told(&files, Revision::ZERO).await;
    assert_eq!(found.pruned_to, Some(found.horizon));
}

#[tokio::test]
async fn a_reader_that_catches_up_in_steps_sees_whole_commits() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    deleted(&files, &mut writer).await;
    for n in 0..5 {
        let keys = [format!("{n} a"), format!("{n} b"), format!("{n} c")];
        let changes = keys.iter().map(|key| put(key, "1")).collect();
        files.commit(&writer.batch(changes)).await.unwrap();
        let gone = Change::delete(keys[0].clone());
        files
            .commit(&writer.batch(vec![gone, put("last", "1")]))
            .await
            .unwrap();
    }
    // The last changes are puts, without a tombstone after them.
    for key in ["x", "y", "z"] {
        writer.put(&files, key, "1").await.unwrap();
    }
    let all = told(&files, Revision::ZERO).await;
    let map = stock();
    for limit in 1..=all.changes.len() + 1 {
        let (mut known, mut seen) = (Revision::ZERO, Vec::new());
        while known < all.horizon {
            let load = files
                .load(&map, Wanted::some_changed(known, limit))
                .await
                .unwrap();
            assert!(load.horizon > known, "{limit}");
            known = load.horizon;
            let records = load.into_records().await.unwrap();
            assert!(records.iter().all(|record| record.revision <= known));
            seen.extend(
                records
                    .into_iter()
                    .map(|r| (r.key.to_string(), r.revision, r.deletion)),
            );
        }
        assert_eq!(seen, all.changes, "{limit}");
    }
}

/// A map stores the cause of each deletion.
#[tokio::test]
async fn a_map_that_removes_leaves_a_tombstone_of_its_writer() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let map = PersistentMap::<u32>::builder(files.clone(), "stock")
        .open()
        .await
        .unwrap();
    map.insert_and_save("apple", 1).await.unwrap();
    map.remove_and_save("apple").await.unwrap();
    let found = told(&files, Revision::ZERO).await.changes;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].2.unwrap().cause, Cause::Removed);
    map.close().await.unwrap();
}

/// In a small map with many tombstones, each kilobyte of journal caused a compaction that
/// rewrote all tombstones.
#[tokio::test]
async fn many_tombstones_do_not_make_compactions_more_frequent() {
    let folder = quick_folder();
    let builder = JsonFile::builder(folder.path()).max_journal(1_024);
    let files = builder.open().await.unwrap();
    let mut writer = Writer::new();
    let keys: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    let changes = keys.iter().map(|key| put(key, "1")).collect();
    files.commit(&writer.batch(changes)).await.unwrap();
    let changes = keys.iter().map(|key| Change::delete(key.clone())).collect();
    files.commit(&writer.batch(changes)).await.unwrap();
    files.release(&stock()).await.unwrap();
    let meta = || {
        fs::metadata(folder.path().join("stock.meta"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let value = format!("\"{}\"", "x".repeat(500));
    writer.put(&files, "apple", &value).await.unwrap();
    let before = meta();
    for _ in 0..20 {
        writer.put(&files, "apple", &value).await.unwrap();
        files.maps().await.unwrap();
    }
    assert_eq!(meta(), before, "a compaction");
    assert_eq!(told(&files, Revision::ZERO).await.changes.len(), 501);
}
