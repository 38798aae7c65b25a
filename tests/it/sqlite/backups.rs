//! Backups of a file in use, and restores.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use persistify::{ErrorKind, PersistentMap, Provider, Sqlite, Wanted};
use rusqlite::Connection;

use super::Place;

const MAP: &str = "map";

async fn map(file: &Sqlite) -> PersistentMap<u64> {
    let map = PersistentMap::builder(file.clone(), MAP);
    map.batch(1, Duration::from_millis(1)).open().await.unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap();
    let name = |file: fs::DirEntry| file.file_name().into_string().unwrap();
    let mut names: Vec<_> = files.map(|file| name(file.unwrap())).collect();
    names.sort();
    names
}

impl Place {
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Writes some megabytes, so that a copy takes a while.
async fn fill(file: &Sqlite) {
    let map: PersistentMap<String> = PersistentMap::builder(file.clone(), "large")
        .open()
        .await
        .unwrap();
    map.extend((0..3_000).map(|n| (n.to_string(), "x".repeat(5_000))));
    map.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_backup_under_load_has_all_that_was_acknowledged_before_it() {
    let place = Place::new();
    let file = place.open().await;
    fill(&file).await;
    let map = map(&file).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let (writer, count, stop) = (map.clone(), acknowledged.clone(), done.clone());
    let writing = tokio::spawn(async move {
        for n in 1.. {
            if stop.load(SeqCst) {
                break;
            }
            writer.insert_and_save("n", n).await.unwrap();
            writer.insert_and_save(n.to_string(), n).await.unwrap();
            count.store(n, SeqCst);
        }
    });
    let mut during = 0;
    for round in 0..2 {
        let path = place.beside(&format!("backups/{round}.db"));
        let before = acknowledged.load(SeqCst);
        file.backup(&path).await.unwrap();
        during += acknowledged.load(SeqCst) - before;
        assert_eq!(
            names(path.parent().unwrap()).len(),
            round + 1,
            "one file each"
        );

        let check = Connection::open(&path).unwrap();
        let found: String =
            { check.query_row("PRAGMA integrity_check", [], |row| row.get(0)) }.unwrap();
        assert_eq!(found, "ok");
        drop(check);
        let copy = Sqlite::open(&path).await.unwrap();
        let copied = self::map(&copy).await;
        let newest = copied.get("n").unwrap_or_default();
        assert!(newest >= before, "{newest} < {before}");
        // The copy is one state of the file: everything up to the newest, nothing after.
        for n in 1..newest {
            assert_eq!(copied.get(n.to_string()), Some(n));
        }
        assert_eq!(copied.get((newest + 1).to_string()), None);
        copied.close().await.unwrap();
        copy.close().await.unwrap();
    }
    done.store(true, SeqCst);
    writing.await.unwrap();
    assert!(during > 0, "commits waited for the backup");
}

#[tokio::test]
async fn a_backup_replaces_an_older_one_and_nothing_else() {
    let place = Place::new();
    let file = place.open().await;
    let map = map(&file).await;
    let backup = place.beside("backup.db");
    for n in 1..=2 {
        map.insert_and_save("n", n).await.unwrap();
        file.backup(&backup).await.unwrap();
        let copy = Sqlite::open(&backup).await.unwrap();
        assert_eq!(self::map(&copy).await.get("n"), Some(n));
        if n == 2 {
            let error = file.backup(&backup).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "it is open");
        }
        copy.close().await.unwrap();
    }
    let letter = place.beside("letter.txt");
    fs::write(&letter, "dear diary ".repeat(1_000)).unwrap();
    let before = fs::read(&letter).unwrap();
    // Another program's database was replaced as if it had been a backup.
    let foreign = place.beside("foreign.db");
    let other = Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(other);
    for path in [&letter, &foreign, &place.path(), place.folder.path()] {
        let error = file.backup(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
    assert_eq!(fs::read(&letter).unwrap(), before);
    let other = Connection::open(&foreign).unwrap();
    assert!(other.prepare("SELECT * FROM t").is_ok());
    drop(other);
    fs::remove_file(&foreign).unwrap();
    let error = file.backup(letter.join("below")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
    map.insert_and_save("n", 3).await.unwrap();
    file.close().await.unwrap();
    let error = file.backup(&backup).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    place.wait_until_free();
    assert_eq!(
        names(place.folder.path()),
        ["backup.db", "letter.txt", "maps.db"]
    );
}

#[tokio::test]
async fn a_backup_that_is_given_up_leaves_the_path_as_it_was() {
    let place = Place::new();
    let file = place.open().await;
    fill(&file).await;
    let backup = place.beside("backups/backup.db");
    file.backup(&backup).await.unwrap();
    let before = fs::metadata(&backup).unwrap().modified().unwrap();
    for _ in 0..2 {
        let given_up = tokio::time::timeout(Duration::from_millis(1), file.backup(&backup)).await;
        given_up.unwrap_err();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while names(backup.parent().unwrap()) != ["backup.db"] {
        assert!(Instant::now() < deadline, "something was left behind");
        std::thread::yield_now();
    }
    assert_eq!(fs::metadata(&backup).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn a_restored_file_goes_on_with_higher_revisions() {
    let place = Place::new();
    let file = place.open().await;
    let map = map(&file).await;
    map.insert_and_save("a", 1).await.unwrap();
    let backup = place.beside("backup.db");
    file.backup(&backup).await.unwrap();
    map.insert_and_save("a", 2).await.unwrap();
    // A writer with a clock that is far ahead.
    let far = persistify::Revision::new(1 << 60);
    let id = persistify::BatchId::new(persistify::WriterId::random(), 1);
    let part = persistify::MapBatch::new(MAP.try_into().unwrap(), vec![]);
    let batch = persistify::Batch::new(id, far, std::time::SystemTime::now(), [part]);
    let last = file.commit(&batch).await.unwrap().revision.unwrap();
    let open = Sqlite::restore_over(&backup, place.path())
        .await
        .unwrap_err();
    assert_eq!(open.kind(), ErrorKind::Invalid, "{open:?}");
    assert_eq!(map.get("a"), Some(2));
    map.close().await.unwrap();
    file.close().await.unwrap();

    let there = Sqlite::restore(&backup, place.path()).await.unwrap_err();
    assert_eq!(there.kind(), ErrorKind::Invalid, "{there:?}");
    Sqlite::restore_over(&backup, place.path()).await.unwrap();
    assert_eq!(names(place.folder.path()), ["backup.db", "maps.db"]);
    let file = place.open().await;
    let map = self::map(&file).await;
    assert_eq!(map.get("a"), Some(1));
    map.insert_and_save("a", 3).await.unwrap();
    let name = MAP.try_into().unwrap();
    let load = file.load(&name, Wanted::All).await.unwrap();
    let records = load.into_records().await.unwrap();
    assert!(records[0].revision > last);

    // The backup is unchanged.
    let again = place.beside("folder/again.db");
    Sqlite::restore(&backup, &again).await.unwrap();
    let again = Sqlite::open(again).await.unwrap();
    assert_eq!(self::map(&again).await.get("a"), Some(1));
}

#[tokio::test]
async fn a_file_that_is_not_a_whole_backup_is_not_restored() {
    let place = Place::new();
    let file = place.open().await;
    fill(&file).await;
    let (good, bad) = (place.beside("good.db"), place.beside("bad.db"));
    file.backup(&good).await.unwrap();
    file.close().await.unwrap();
    let whole = fs::read(&good).unwrap();

    let mut holed = whole.clone();
    holed[100_000..200_000].fill(0x55);
    let cut = whole[..whole.len() / 2].to_vec();
    let text = b"dear diary ".repeat(1_000);
    let foreign = place.beside("foreign.db");
    let other = Connection::open(&foreign).unwrap();
    other
        .execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        .unwrap();
    drop(other);
    let foreign = fs::read(foreign).unwrap();
    let before = fs::read(place.path()).unwrap();
    for (bytes, kind) in [
        (Some(holed), ErrorKind::Corrupt),
        (Some(cut), ErrorKind::Corrupt),
        (Some(text), ErrorKind::Corrupt),
        (Some(vec![]), ErrorKind::Invalid),
        (Some(foreign), ErrorKind::Invalid),
        (None, ErrorKind::Invalid),
    ] {
        fs::remove_file(&bad).ok();
        if let Some(bytes) = bytes {
            fs::write(&bad, bytes).unwrap();
        }
        let error = Sqlite::restore_over(&bad, place.path()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains("bad.db"), "{error}");
        let error = Sqlite::restore(&bad, place.beside("new.db"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(!place.beside("new.db").exists());
        assert!(fs::read(place.path()).unwrap() == before);
    }
    let error = Sqlite::restore_over(&good, &good).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    fs::remove_file(&bad).ok();
    assert_eq!(
        names(place.folder.path()),
        ["foreign.db", "good.db", "maps.db"]
    );
}

/// The log that a crash left must not be applied to the restored file.
#[tokio::test]
async fn a_file_is_replaced_together_with_its_log() {
    for damaged in [false, true] {
        let place = Place::new();
        let file = place.open().await;
        let map = map(&file).await;
        map.insert_and_save("a", 1).await.unwrap();
        let backup = place.beside("backup.db");
        file.backup(&backup).await.unwrap();
        map.insert_and_save("a", 2).await.unwrap();
        let log = place.beside("maps.db-wal");
        let left = fs::read(&log).unwrap();
        map.close().await.unwrap();
        file.close().await.unwrap();
        place.wait_until_free();
        fs::write(&log, left).unwrap();
        if damaged {
            // The file is no longer a database, and the log is truncated.
            fs::write(place.path(), "dear diary ".repeat(1_000)).unwrap();
            fs::write(&log, "dear diary").unwrap();
            Sqlite::open(place.path()).await.unwrap_err();
        }
        Sqlite::restore_over(&backup, place.path()).await.unwrap();
        assert_eq!(names(place.folder.path()), ["backup.db", "maps.db"]);
        let file = place.open().await;
        assert_eq!(self::map(&file).await.get("a"), Some(1));
    }
}

/// A file was deleted by hand, but not its log. SQLite applied the log to the restored file,
/// which then held commits to the old file, or a mixture of the two.
#[tokio::test]
async fn a_log_without_its_file_is_not_taken_for_that_of_a_restored_one() {
    let place = Place::new();
    let file = place.open().await;
    let map = map(&file).await;
    map.insert_and_save("a", 1).await.unwrap();
    let backup = place.beside("backup.db");
    file.backup(&backup).await.unwrap();
    map.insert_and_save("a", 2).await.unwrap();
    let log = place.beside("maps.db-wal");
    let left = fs::read(&log).unwrap();
    map.close().await.unwrap();
    file.close().await.unwrap();
    place.wait_until_free();
    fs::remove_file(place.path()).unwrap();
    fs::write(&log, &left).unwrap();

    let error = Sqlite::restore(&backup, place.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("maps.db-wal"), "{error}");
    assert_eq!(fs::read(&log).unwrap(), left);
    assert_eq!(names(place.folder.path()), ["backup.db", "maps.db-wal"]);

    Sqlite::restore_over(&backup, place.path()).await.unwrap();
    assert_eq!(names(place.folder.path()), ["backup.db", "maps.db"]);
    let file = place.open().await;
    assert_eq!(self::map(&file).await.get("a"), Some(1));
}
