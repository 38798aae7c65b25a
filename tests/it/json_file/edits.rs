//! Edits by hand: while a map is closed, while it is open, and beside a journal that a
//! crash left.

use persistify::ErrorKind;

use super::*;

/// Stores `apple`, and `pear` with an expiry and a schema version; then closes the folder.
/// Returns the records.
async fn two(folder: &TempDir) -> BTreeMap<String, Record> {
    let files = open(folder).await;
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    let pear = Change::put(
        "pear",
        Payload::json("[2]").with_schema(3),
        Some(time(5_000)),
    );
    files.commit(&writer.batch(vec![pear])).await.unwrap();
    let found = load(&files).await.unwrap();
    files.release(&stock()).await.unwrap();
    files.close().await.unwrap();
    found
}

#[tokio::test]
async fn changed_keys_get_new_revisions_and_others_are_unchanged() {
    let folder = TempDir::new().unwrap();
    let before = two(&folder).await;
    write_by_hand(&folder, "{\"pear\":\n[\n2\n], \"apple\": 7, \"plum\": 8}");
    let files = open(&folder).await;
    let after = load(&files).await.unwrap();
    let highest = before.values().map(|r| r.revision).max().unwrap();
    for key in ["apple", "plum"] {
        assert!(after[key].revision > highest);
        assert_eq!(after[key].expires_at, None);
        assert_eq!(after[key].updated_at, None);
    }
    assert_eq!(text(&after["pear"]), "[2]");
    assert_eq!(after["pear"].revision, before["pear"].revision);
    assert_eq!(after["pear"].expires_at, Some(time(5_000)));
    assert_eq!(after["pear"].value.as_ref().unwrap().schema, 3);
    assert_eq!(texts(&files).await.unwrap()["apple"], "7");

    // The revisions survive a crash, and a commit gets a higher one.
    drop(files);
    let files = open(&folder).await;
    assert_eq!(load(&files).await.unwrap(), after);
    let answer = Writer::new().put(&files, "nut", "9").await.unwrap();
    assert!(answer.revision > Some(after["apple"].revision));
    drop(files);
    let files = open(&folder).await;
    files.release(&stock()).await.unwrap();
    let mut last = load(&files).await.unwrap();
    last.remove("nut");
    assert_eq!(last, after);
}

/// A JSON formatter sorts fields and may write numbers and characters differently. Its output
/// was mistaken for changed values: each got a new revision and lost its expiry.
#[tokio::test]
async fn a_value_that_is_formatted_is_unchanged() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let value = r#"{"z": [1e2, -0.50], "a": "é", "on": {"y": 1, "x": null}}"#;
    let plum = Change::put("plum", Payload::json(value), Some(time(5_000)));
    let batch = Writer::new().batch(vec![plum, put("nut", "10")]);
    files.commit(&batch).await.unwrap();
    let before = load(&files).await.unwrap();
    files.release(&stock()).await.unwrap();

    let formatted = "{ \"nut\": 1.0E1,\n \"plum\": {\n  \"a\": \"\\u00e9\", \
                     \"on\": {\"x\": null, \"y\": 1.0}, \"z\": [100, -0.5]}}";
    write_by_hand(&folder, formatted);
    let after = load(&files).await.unwrap();
    assert_eq!(after["plum"].expires_at, Some(time(5_000)));
    for key in ["plum", "nut"] {
        assert_eq!(after[key].revision, before[key].revision, "{key}");
    }
    assert_eq!(text(&after["nut"]), "1.0E1");
    files.release(&stock()).await.unwrap();

    write_by_hand(&folder, &formatted.replace("-0.5", "-0.51"));
    let edited = load(&files).await.unwrap();
    assert_eq!(edited["plum"].expires_at, None);
    assert_eq!(edited["nut"].revision, before["nut"].revision);
}

/// The edits follow each other with the same modification time.
#[tokio::test]
async fn each_edit_gets_new_revisions() {
    let folder = TempDir::new().unwrap();
    two(&folder).await;
    let mut last = Revision::ZERO;
    for n in 0..3 {
        write_by_hand(&folder, &format!("{{\"apple\": {}}}", 10 + n));
        let file = fs::File::options()
            .write(true)
            .open(folder.path().join("stock.json"));
        file.unwrap().set_modified(time(77_000)).unwrap();
        let files = open(&folder).await;
        let found = load(&files).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(found["apple"].revision > last);
        last = found["apple"].revision;
    }
}

#[tokio::test]
async fn an_edit_beside_a_journal_is_corrupt_and_nothing_is_overwritten() {
    let folder = TempDir::new().unwrap();
    two(&folder).await;
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "2").await.unwrap();
    drop(files);
    let path = |name: &str| folder.path().join(name);
    let good = ["stock.json", "stock.meta"].map(|name| fs::read(path(name)).unwrap());
    let journal = fs::read(path("stock.journal")).unwrap();

    for name in ["stock.json", "stock.meta"] {
        for edit in [Some("{\"apple\": 5}"), None] {
            match edit {
                Some(text) if name == "stock.json" => fs::write(path(name), text).unwrap(),
                // A valid meta file of another folder.
                Some(_) => fs::write(path(name), other_meta().await).unwrap(),
                None => fs::remove_file(path(name)).unwrap(),
            }
            let files = open(&folder).await;
            let error = load(&files).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
            let message = error.to_string();
            assert!(
                message.contains(name) && message.contains("stock.journal"),
                "{message}"
            );
            let error = Writer::new().put(&files, "apple", "6").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            files.release(&stock()).await.unwrap();
            files.close().await.unwrap();
            assert_eq!(fs::read(path("stock.journal")).unwrap(), journal);
            fs::write(path("stock.json"), &good[0]).unwrap();
            fs::write(path("stock.meta"), &good[1]).unwrap();
        }
    }
    // With its files restored, the map opens.
    let files = open(&folder).await;
    assert_eq!(texts(&files).await.unwrap()["apple"], "2");
}

async fn other_meta() -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    two(&folder).await;
    fs::read(folder.path().join("stock.meta")).unwrap()
}

#[tokio::test]
async fn an_edit_while_the_map_is_open_is_corrupt_and_not_overwritten() {
    let folder = TempDir::new().unwrap();
    two(&folder).await;
    let files = open(&folder).await;
    load(&files).await.unwrap();
    Writer::new().put(&files, "plum", "3").await.unwrap();
    let edit = "{\"apple\": 77, \"pear\": [77]}";
    write_by_hand(&folder, edit);
    let error = load(&files).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(
        error.to_string().contains("while the map was open"),
        "{error}"
    );
    let error = files.release(&stock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(
        fs::read_to_string(folder.path().join("stock.json")).unwrap(),
        edit
    );
}

/// All entries of the map are in its journal when the file appears.
#[tokio::test]
async fn a_file_created_while_the_map_is_open_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    write_by_hand(&folder, "{}");
    let error = files.release(&stock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(
        names(folder.path()),
        ["stock.journal", "stock.json", "stock.meta"]
    );
    let text = fs::read_to_string(folder.path().join("stock.json")).unwrap();
    assert_eq!(text, "{}");
}

/// A crash before the last step of a compaction leaves an obsolete journal, which must not
/// prevent an edit.
#[tokio::test]
async fn an_edit_beside_a_compacted_journal_is_accepted() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    let journal = folder.path().join("stock.journal");
    let bytes = fs::read(&journal).unwrap();
    files.release(&stock()).await.unwrap();
    fs::write(&journal, bytes).unwrap();
    write_by_hand(&folder, "{\"apple\": 2}");
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "2")]));
    assert!(!journal.exists());
}

/// A batch after an edit was written to a journal that no longer matched the file, and was
/// acknowledged. The map could not be opened again, and only the edited file was left.
#[tokio::test]
async fn a_commit_after_an_edit_is_refused() {
    for has_journal in [false, true] {
        let folder = TempDir::new().unwrap();
        two(&folder).await;
        let files = open(&folder).await;
        load(&files).await.unwrap();
        let mut writer = Writer::new();
        if has_journal {
            writer.put(&files, "plum", "3").await.unwrap();
        }
        let path = folder.path().join("stock.json");
        let before = fs::read(&path).unwrap();
        let edit = "{\"apple\": 77}";
        write_by_hand(&folder, edit);
        let batch = writer.batch(vec![put("plum", "4")]);
        let error = files.commit(&batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(!error.may_have_applied());
        assert_eq!(fs::read_to_string(&path).unwrap(), edit);
        if !has_journal {
            // Without a journal, the edit counts as an edit of a closed map.
            files.release(&stock()).await.unwrap();
            assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "77")]));
            files.release(&stock()).await.unwrap();
        }
        // The restored file is accepted, although its modification time differs.
        fs::write(&path, before).unwrap();
        files.commit(&batch).await.unwrap();
        files.release(&stock()).await.unwrap();
        assert_eq!(texts(&files).await.unwrap()["plum"], "4");
    }
}
