//! Files that are missing although other files refer to them.

use persistify::ErrorKind;

use super::*;

/// Leaves `apple` in the journal, as a crash does.
async fn crashed(folder: &TempDir) {
    let files = open(folder).await;
    Writer::new().put(&files, "apple", "2").await.unwrap();
}

async fn refused(folder: &TempDir, missing: &str) -> String {
    let before = names(folder.path());
    let files = open(folder).await;
    for _ in 0..2 {
        let error = load(&files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        let error = Writer::new().put(&files, "pear", "3").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(!error.may_have_applied());
    }
    files.release(&stock()).await.unwrap();
    files.close().await.unwrap();
    assert_eq!(names(folder.path()), before, "nothing was written");
    let error = load(&open(folder).await).await.unwrap_err().to_string();
    assert!(
        error.contains(missing) && error.contains("stock.meta"),
        "{error}"
    );
    error
}

/// A journal was removed because it looked like a leftover. Acknowledged commits were lost
/// with it, and the map opened without an error.
#[tokio::test]
async fn a_missing_journal_in_use_is_corrupt() {
    for at_rest in ["nothing", "a file", "a file of another program"] {
        let folder = TempDir::new().unwrap();
        match at_rest {
            "a file" => {
                let files = open(&folder).await;
                Writer::new().put(&files, "apple", "1").await.unwrap();
                files.close().await.unwrap();
            }
            "a file of another program" => write_by_hand(&folder, "{\"apple\": 1}"),
            _ => {}
        }
        crashed(&folder).await;
        let journal = folder.path().join("stock.journal");
        let bytes = fs::read(&journal).unwrap();
        fs::remove_file(&journal).unwrap();
        let error = refused(&folder, "stock.journal").await;
        assert!(error.contains("last line"), "{error}");

        // With the journal restored, the map is complete.
        fs::write(&journal, bytes).unwrap();
        let files = open(&folder).await;
        assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "2")]));
        drop(files);

        // The remedy in the message: continue without the journal.
        fs::remove_file(&journal).unwrap();
        let meta = folder.path().join("stock.meta");
        let text = fs::read_to_string(&meta).unwrap();
        let (rest, last) = text.trim_end().rsplit_once('\n').unwrap();
        assert!(last.contains("journal"), "{last}");
        fs::write(&meta, format!("{rest}\n")).unwrap();
        let found = texts(&open(&folder).await).await.unwrap();
        let expected = match at_rest {
            "nothing" => pairs([]),
            _ => pairs([("apple", "1")]),
        };
        assert_eq!(found, expected, "{at_rest}");
    }
}

/// A closed map has no journal, and its meta file refers to none.
#[tokio::test]
async fn a_closed_map_needs_no_journal() {
    let folder = TempDir::new().unwrap();
    crashed(&folder).await;
    let files = open(&folder).await;
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "2")]));
    files.close().await.unwrap();
    assert_eq!(names(folder.path()), ["stock.json", "stock.meta"]);
    let meta = fs::read_to_string(folder.path().join("stock.meta")).unwrap();
    assert!(!meta.contains("in use"), "{meta}");
    serde_json::from_str::<serde_json::Value>(&meta).unwrap();
}

/// A power loss leaves a part of the mark, or null bytes in its place, beside a journal without
/// frames.
#[tokio::test]
async fn a_torn_mark_is_ignored_and_removed() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    files.release(&stock()).await.unwrap();
    let meta = folder.path().join("stock.meta");
    let whole = fs::read(&meta).unwrap();
    Writer::new().put(&files, "apple", "2").await.unwrap();
    drop(files);
    let marked = fs::read(&meta).unwrap();
    let journal = folder.path().join("stock.journal");
    let bytes = fs::read(&journal).unwrap();
    let header = bytes.windows(6).position(|w| w == b"\xffPFRAM").unwrap();
    for length in whole.len()..=marked.len() {
        for has_nulls in [false, true] {
            let mut cut = marked[..length].to_vec();
            if has_nulls {
                cut.resize(marked.len(), 0);
            }
            fs::write(&meta, cut).unwrap();
            fs::write(&journal, &bytes[..header]).unwrap();
            let files = open(&folder).await;
            assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "1")]));
            assert_eq!(fs::read(&meta).unwrap(), whole, "{length}");
            assert_eq!(names(folder.path()), ["stock.json", "stock.meta"]);
        }
    }
    let more = [&whole[..], b"{\"journal\": \"lost"].concat();
    fs::write(&meta, more).unwrap();
    let error = load(&open(&folder).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

/// If a file was missing beside its meta file, by accident or in a partial restore, the map
/// opened empty, and the next compaction lost the expiries of its entries.
#[tokio::test]
async fn a_missing_file_beside_its_meta_file_is_corrupt() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    files.close().await.unwrap();
    let json = folder.path().join("stock.json");
    let text = fs::read(&json).unwrap();
    fs::remove_file(&json).unwrap();
    let error = refused(&folder, "stock.json").await;
    assert!(error.contains("empty"), "{error}");

    fs::write(&json, text).unwrap();
    let files = open(&folder).await;
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "1")]));
    files.close().await.unwrap();
    // The remedy in the message: start with an empty map.
    fs::remove_file(&json).unwrap();
    fs::remove_file(folder.path().join("stock.meta")).unwrap();
    assert!(load(&open(&folder).await).await.unwrap().is_empty());
}

/// Each run of a program is a new writer, and all were kept for days: 300 runs of a small tool
/// left 22 kilobytes beside a file of 15 bytes.
#[tokio::test]
async fn the_meta_file_does_not_grow_with_each_run() {
    let folder = quick_folder();
    let meta = folder.path().join("stock.meta");
    let mut sizes = Vec::new();
    for _ in 0..60 {
        let files = open(&folder).await;
        let mut writer = Writer::new();
        let batch = writer.batch(vec![put("apple", "1")]);
        let answer = files.commit(&batch).await.unwrap();
        files.close().await.unwrap();
        // A writer that lost its answer at the end of a run gets it in the next run.
        let files = open(&folder).await;
        assert_eq!(files.commit(&batch).await.unwrap(), answer);
        files.close().await.unwrap();
        sizes.push(fs::metadata(&meta).unwrap().len());
    }
    // The random numbers in a writer's record vary in length.
    assert!(sizes[59] <= sizes[20] + 16, "{sizes:?}");
    assert!(sizes[59] < 1_500, "{sizes:?}");
}

/// An idle writer must not be forgotten in favor of newer ones.
#[tokio::test]
async fn writers_of_this_opening_are_all_remembered() {
    let folder = quick_folder();
    let files = open(&folder).await;
    let mut quiet = Writer::new();
    let batch = quiet.batch(vec![put("apple", "1")]);
    let answer = files.commit(&batch).await.unwrap();
    for _ in 0..40 {
        Writer::new().put(&files, "pear", "2").await.unwrap();
        files.release(&stock()).await.unwrap();
    }
    assert_eq!(files.commit(&batch).await.unwrap(), answer);
}

/// A link into an unmounted volume was reported as a file of another name, and following the
/// advice in the error created an empty map in its place.
#[cfg(unix)]
#[tokio::test]
async fn a_dangling_symbolic_link_is_unusable_and_stays() {
    let folder = TempDir::new().unwrap();
    let link = folder.path().join("stock.json");
    std::os::unix::fs::symlink("/nowhere/stock.json", &link).unwrap();
    let error = load(&open(&folder).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
}
