//! The cost of commits and compactions, and compactions in the background.

use super::{
    shaky_disk::{Plan, ShakyDisk},
    *,
};

async fn many(files: &JsonFile, writer: &mut Writer, entries: usize) {
    let value = "\"0123456789012345678901234567890123456789\"";
    let changes = (0..entries).map(|n| put(&format!("{n:05}"), value));
    let batch = writer.batch(changes.collect());
    files.commit(&batch).await.unwrap();
    files.release(&stock()).await.unwrap();
}

#[tokio::test]
async fn a_commit_costs_o_of_its_changes() {
    let mut costs = Vec::new();
    for entries in [10, 5_000] {
        let folder = TempDir::new().unwrap();
        let disk = ShakyDisk::with(Plan::Healthy);
        let builder = JsonFile::builder(folder.path()).disk(disk.shared());
        let files = builder.open().await.unwrap();
        let mut writer = Writer::new();
        many(&files, &mut writer, entries).await;
        let size = || {
            fs::metadata(folder.path().join("stock.journal"))
                .unwrap()
                .len()
        };
        writer.put(&files, "00001", "1").await.unwrap();
        let before = size();
        disk.take_log();
        writer.put(&files, "00002", "2").await.unwrap();
        let log = disk.take_log();
        assert_eq!(log, ["append to stock.journal", "sync stock.journal"]);
        costs.push(size() - before);
    }
    assert_eq!(costs[0], costs[1]);
    assert!(costs[0] < 200, "{costs:?}");
}

#[tokio::test]
async fn a_release_without_changes_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let disk = ShakyDisk::with(Plan::Healthy);
    let builder = JsonFile::builder(folder.path()).disk(disk.shared());
    let files = builder.open().await.unwrap();
    many(&files, &mut Writer::new(), 10).await;
    disk.take_log();
    load(&files).await.unwrap();
    files.release(&stock()).await.unwrap();
    files.release(&stock()).await.unwrap();
    assert_eq!(disk.take_log(), [""; 0]);
}

/// A commit or a release waits for a running compaction.
#[tokio::test]
async fn a_journal_that_outgrows_its_snapshot_is_compacted_in_the_background() {
    let folder = TempDir::new().unwrap();
    let disk = ShakyDisk::with(Plan::Healthy);
    let builder = JsonFile::builder(folder.path()).disk(disk.shared());
    let files = builder.max_journal(2_048).open().await.unwrap();
    let mut writer = Writer::new();
    many(&files, &mut writer, 500).await;
    let snapshot = fs::metadata(folder.path().join("stock.json"))
        .unwrap()
        .len();
    disk.take_log();
    let value = format!("\"{}\"", "x".repeat(1_000));
    let mut compactions = Vec::new();
    for n in 0..100_u64 {
        writer.put(&files, "big", &value).await.unwrap();
        // Runs after the compaction, if there is one.
        writer.delete(&files, "none").await.unwrap();
        if disk.take_log().contains(&"replace stock.json".to_owned()) {
            compactions.push(n);
        }
    }
    assert!(
        (2..=5).contains(&compactions.len()),
        "{compactions:?} of {snapshot}"
    );
    assert!(
        (compactions[0] + 1) * 1_300 > snapshot - 2_000,
        "{compactions:?} of {snapshot}"
    );
    let journal = fs::metadata(folder.path().join("stock.journal"))
        .unwrap()
        .len();
    assert!(journal < snapshot + 4_000, "{journal} of {snapshot}");
    let found = load(&files).await.unwrap();
    assert_eq!(found.len(), 501);
    // Waits for the background task and unlocks the folder.
    files.close().await.unwrap();
    assert_eq!(load(&open(&folder).await).await.unwrap(), found);
}

#[tokio::test]
async fn a_failed_background_compaction_is_retried_and_fails_no_call() {
    let folder = TempDir::new().unwrap();
    let disk = ShakyDisk::with(Plan::Healthy);
    let builder = JsonFile::builder(folder.path()).disk(disk.shared());
    let files = builder.max_journal(1_024).open().await.unwrap();
    let mut writer = Writer::new();
    let value = format!("\"{}\"", "x".repeat(400));
    writer.put(&files, "apple", &value).await.unwrap();
    writer.put(&files, "apple", &value).await.unwrap();
    let with = std::io::ErrorKind::StorageFull;
    let what = "create stock.json";
    disk.set(Plan::FailAt { what, with });
    disk.take_log();
    for n in 0..20 {
        writer.put(&files, &format!("{n}"), &value).await.unwrap();
    }
    // Waits for the background task, and finds nothing left to do.
    files.release(&stock()).await.unwrap();
    let log = disk.take_log();
    let compactions = log.iter().filter(|done| *done == "replace stock.json");
    assert!(compactions.count() > 1, "{log:?}");
    assert_eq!(load(&files).await.unwrap().len(), 21);
    files.close().await.unwrap();
    assert_eq!(names(folder.path()), ["stock.json", "stock.meta"]);
}

#[tokio::test]
async fn a_load_with_concurrent_commits_returns_each_key_once() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    many(&files, &mut writer, 3_500).await;
    let map = stock();
    let mut load = files.load(&map, Wanted::All).await.unwrap();
    let mut seen = BTreeMap::new();
    let mut pages = 0;
    while let Some(page) = futures_util::TryStreamExt::try_next(&mut load.pages)
        .await
        .unwrap()
    {
        assert!(page.len() <= persistify::PAGE_RECORDS);
        for record in page {
            let text = text(&record).to_owned();
            assert_eq!(seen.insert(record.key.clone(), text), None);
        }
        pages += 1;
        // Between pages, keys are deleted and changed, and the journal is compacted.
        writer.delete(&files, "03000").await.unwrap();
        writer.put(&files, "03001", "7").await.unwrap();
        writer.put(&files, "00000", "7").await.unwrap();
        files.release(&stock()).await.unwrap();
    }
    assert_eq!(pages, 4);
    assert_eq!(seen.len(), 3_499);
    assert_eq!(seen["03001"], "7");
    assert_ne!(seen["00000"], "7");
}
