//! The incarnation of a map: created, renewed, and durable at every step.

use std::io::ErrorKind as Io;

use persistify::{Acknowledged, BatchId, ErrorKind, Incarnation, MapBatch};

use super::{
    shaky_disk::{Loss, Plan, ShakyDisk},
    *,
};

async fn incarnation(files: &JsonFile) -> Option<Incarnation> {
    files.load(&stock(), Wanted::All).await.unwrap().incarnation
}

#[tokio::test]
async fn the_first_commit_gives_a_map_its_incarnation_and_it_stays() {
    for by_hand in [false, true] {
        let folder = quick_folder();
        if by_hand {
            write_by_hand(&folder, "{\"apple\": 1}");
        }
        let files = open(&folder).await;
        assert_eq!(incarnation(&files).await, None);
        let answer = Writer::new().put(&files, "pear", "2").await.unwrap();
        assert!(answer.incarnation.is_some());
        for round in 0..3 {
            assert_eq!(incarnation(&files).await, answer.incarnation, "{round}");
            files.release(&stock()).await.unwrap();
            Writer::new().put(&files, "pear", "3").await.unwrap();
        }
        drop(files);
        let files = open(&folder).await;
        assert_eq!(incarnation(&files).await, answer.incarnation);
        files.close().await.unwrap();
        // An edit by hand is not a loss of commits.
        write_by_hand(&folder, "{\"apple\": 7}");
        let files = open(&folder).await;
        assert_eq!(incarnation(&files).await, answer.incarnation);
    }
}

/// The incarnation of a new map is in its meta file, so the journal needs no frame for it.
#[tokio::test]
async fn the_first_commit_of_a_new_map_writes_one_frame() {
    let folder = quick_folder();
    let disk = ShakyDisk::with(Plan::Healthy);
    let builder = JsonFile::builder(folder.path()).disk(disk.shared());
    let files = builder.open().await.unwrap();
    Writer::new().put(&files, "apple", "1").await.unwrap();
    let log = disk.take_log();
    let appended = log.iter().filter(|line| *line == "append to stock.journal");
    assert_eq!(appended.count(), 1, "{log:?}");
}

/// The meta file is not rewritten: the journal holds the incarnation until the next compaction.
#[tokio::test]
async fn a_map_of_an_earlier_version_gets_an_incarnation_with_its_next_commit() {
    let folder = quick_folder();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    files.close().await.unwrap();
    rewrite_meta(&folder, |text| {
        let lines = text.split_inclusive('\n');
        let kept = lines.filter(|line| !line.starts_with("\"incarnation\""));
        kept.collect::<String>()
            .replace("\"format\": 2", "\"format\": 1")
    });

    let files = open(&folder).await;
    assert_eq!(incarnation(&files).await, None);
    let answer = Writer::new().put(&files, "pear", "2").await.unwrap();
    assert!(answer.incarnation.is_some());
    drop(files);
    let files = open(&folder).await;
    assert_eq!(incarnation(&files).await, answer.incarnation);
    files.release(&stock()).await.unwrap();
    assert_eq!(incarnation(&files).await, answer.incarnation);
    let all = pairs([("apple", "1"), ("pear", "2")]);
    assert_eq!(texts(&files).await.unwrap(), all);
}

/// The files that exist when a writer claims a later acknowledged commit.
#[derive(Clone, Copy, Debug)]
enum Left {
    Journal,
    AtRest,
    Nothing,
}

/// A provider with the map open, and a batch that claims a commit the store does not have.
async fn lossy(disk: &ShakyDisk, folder: &TempDir, left: Left) -> (JsonFile, Batch) {
    let builder = JsonFile::builder(folder.path()).disk(disk.shared());
    let files = builder.open().await.unwrap();
    let mut pen = Pen::new();
    let first = pen.changes(&stock(), vec![put("apple", "1")]);
    let answer = files.commit(&first).await.unwrap();
    if !matches!(left, Left::Journal) {
        files.release(&stock()).await.unwrap();
        load(&files).await.unwrap();
    }
    if matches!(left, Left::Nothing) {
        for name in names(folder.path()) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
    let acknowledged = Acknowledged::new(BatchId::new(pen.id, 7), pen.at);
    let part = MapBatch::new(stock(), vec![put("pear", "2")])
        .in_incarnation(answer.incarnation)
        .after_acknowledged(Some(acknowledged));
    let id = BatchId::new(pen.id, 8);
    (files, Batch::new(id, Revision::ZERO, pen.at, [part]))
}

/// Checks that nothing of the batch was applied, that the map has the answered incarnation, if
/// there was an answer, and that the batch is refused again.
async fn check(
    disk: &ShakyDisk,
    folder: &TempDir,
    claim: &Batch,
    told: Option<Incarnation>,
    left: Left,
) {
    let builder = JsonFile::builder(folder.path()).disk(disk.shared());
    let files = builder.open().await.unwrap();
    let expected = match left {
        Left::Nothing => pairs([]),
        Left::Journal | Left::AtRest => pairs([("apple", "1")]),
    };
    assert_eq!(texts(&files).await.unwrap(), expected, "{left:?}");
    if told.is_some() {
        assert_eq!(incarnation(&files).await, told, "{left:?}");
    }
    let failed = files.commit(claim).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Rewound, "{left:?}");
    assert_eq!(texts(&files).await.unwrap(), expected, "{left:?}");
}

#[tokio::test]
async fn a_crash_at_any_operation_of_a_renewal_keeps_the_answered_incarnation() {
    for left in [Left::Journal, Left::AtRest, Left::Nothing] {
        for loss in [Loss::Nothing, Loss::First, Loss::Last, Loss::Everything] {
            for after in 0.. {
                let folder = quick_folder();
                let disk = ShakyDisk::with(Plan::Healthy);
                let (files, claim) = lossy(&disk, &folder, left).await;
                let at = disk.count() + after;
                disk.set(Plan::Stop { at });
                let failed = files.commit(&claim).await.unwrap_err();
                let told = failed.rewound().and_then(|states| states.found);
                let is_done = disk.count() < at;
                drop(files);
                disk.lose(loss);
                disk.set(Plan::Healthy);
                check(&disk, &folder, &claim, told, left).await;
                if is_done {
                    assert!(told.is_some() && after > 1, "{left:?}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_fault_at_any_operation_of_a_renewal_is_overcome() {
    for left in [Left::Journal, Left::AtRest, Left::Nothing] {
        for late in [false, true] {
            for after in 0.. {
                let folder = quick_folder();
                let disk = ShakyDisk::with(Plan::Healthy);
                let (files, claim) = lossy(&disk, &folder, left).await;
                let (at, with) = (disk.count() + after, Io::StorageFull);
                disk.set(if late {
                    Plan::FailLate { at, with }
                } else {
                    Plan::Fail { at, with }
                });
                let mut failed = files.commit(&claim).await.unwrap_err();
                let is_done = disk.count() <= at;
                if failed.kind() != ErrorKind::Rewound {
                    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
                    assert!(!failed.may_have_applied(), "{failed:?}");
                    failed = files.commit(&claim).await.unwrap_err();
                }
                let told = failed.rewound().unwrap().found;
                assert_eq!(incarnation(&files).await, told);
                drop(files);
                disk.lose(Loss::Everything);
                disk.set(Plan::Healthy);
                check(&disk, &folder, &claim, told, left).await;
                if is_done {
                    break;
                }
            }
        }
    }
}
