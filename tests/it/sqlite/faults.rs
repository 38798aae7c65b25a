//! Files that are missing, damaged, read-only or not databases.

use std::{fs, io::Write, path::Path};

use persistify::{ErrorKind, Provider};

use super::*;

async fn refused_at_open(path: &Path, kind: ErrorKind) -> String {
    let failed = error(Sqlite::open(path).await);
    assert_eq!(failed.kind(), kind, "{failed}");
    failed.to_string()
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_not_opened_and_not_changed() {
    let place = Place::new();
    let text = "a list of things to do, and nothing else at all. ".repeat(100);
    fs::write(place.path(), &text).unwrap();
    refused_at_open(&place.path(), ErrorKind::Corrupt).await;
    assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
}

#[tokio::test]
async fn a_folder_that_is_a_file_is_named() {
    let place = Place::new();
    fs::write(place.path(), "x").unwrap();
    let message = refused_at_open(&place.path().join("a.db"), ErrorKind::Unusable).await;
    assert!(message.contains("maps.db"), "{message}");
}

#[tokio::test]
async fn a_damaged_file_is_reported() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let rows = (0..2_000).map(|n| put(&n.to_string(), "\"xxxxxxxxxxxxxxxxxxxx\""));
    pen.write(&sqlite, &map, rows.collect()).await.unwrap();
    sqlite.close().await.unwrap();
    let mut bytes = fs::read(place.path()).unwrap();
    // Overwrites everything after the pages of the meta tables.
    let from = bytes.len() / 2;
    bytes[from..].fill(0xa5);
    fs::write(place.path(), bytes).unwrap();
    let sqlite = place.open().await;
    let failed = error(load(&sqlite, &map, Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Corrupt, "{failed:?}");
    assert_eq!(failed.map(), Some("m"));
}

/// SQLite opens a file whose header names a later version read-only, also for root.
#[tokio::test]
async fn a_read_only_file_is_unusable() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[18] = 3;
    fs::write(place.path(), &bytes).unwrap();
    let message = refused_at_open(&place.path(), ErrorKind::Unusable).await;
    assert!(message.contains("write"), "{message}");
    assert_eq!(fs::read(place.path()).unwrap(), bytes);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_without_permission_is_unusable() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.open().await.close().await.unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(place.path()).is_ok() {
        // Root may open every file.
        return;
    }
    refused_at_open(&place.path(), ErrorKind::Unusable).await;
}

#[tokio::test]
async fn a_later_format_is_refused_with_both_numbers() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    place
        .other()
        .execute_batch("UPDATE persistify_meta SET value = 12 WHERE name = 'format'")
        .unwrap();
    let message = refused_at_open(&place.path(), ErrorKind::Unusable).await;
    assert!(message.contains("format 12"), "{message}");
    assert!(message.contains("up to 2"), "{message}");
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused() {
    let place = Place::new();
    place
        .other()
        .execute_batch("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (x)")
        .unwrap();
    let message = refused_at_open(&place.path(), ErrorKind::Unusable).await;
    assert!(message.contains("UTF-16"), "{message}");
}

#[tokio::test]
async fn a_missing_table_or_column_is_unusable_until_it_is_back() {
    let breaks = [
        (
            "ALTER TABLE map_m RENAME TO gone",
            "ALTER TABLE gone RENAME TO map_m",
        ),
        (
            "ALTER TABLE map_m RENAME COLUMN value TO gone",
            "ALTER TABLE map_m RENAME COLUMN gone TO value",
        ),
        (
            "ALTER TABLE map_m RENAME COLUMN revision TO gone",
            "ALTER TABLE map_m RENAME COLUMN gone TO revision",
        ),
        (
            "ALTER TABLE persistify_writers RENAME TO gone",
            "ALTER TABLE gone RENAME TO persistify_writers",
        ),
    ];
    for (broken, mended) in breaks {
        let place = Place::new();
        let (map, mut pen) = (name("m"), Pen::new());
        let sqlite = place.open().await;
        pen.put(&sqlite, &map, "k", "1").await;
        let other = place.other();
        other.execute_batch(broken).unwrap();
        let batch = pen.changes(&map, vec![put("k", "2")]);
        let failed = error(sqlite.commit(&batch).await);
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{broken}: {failed:?}");
        assert!(failed.keys().is_empty(), "{failed}");
        assert!(!failed.may_have_applied());
        if broken.contains("map_m") {
            assert_eq!(failed.map(), Some("m"), "{failed:?}");
            let failed = error(load(&sqlite, &map, Wanted::All).await);
            assert_eq!(failed.kind(), ErrorKind::Unusable, "{broken}: {failed:?}");
        }
        other.execute_batch(mended).unwrap();
        sqlite.commit(&batch).await.unwrap();
        assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "2");
    }
}

#[tokio::test]
async fn a_table_that_happens_to_have_the_name_is_left_alone() {
    let place = Place::new();
    let other = place.other();
    other
        .execute_batch("CREATE TABLE MAP_m (x); INSERT INTO MAP_m VALUES (1)")
        .unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let failed = error(pen.write(&sqlite, &map, vec![put("k", "1")]).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    assert!(failed.to_string().contains(".table("), "{failed}");
    let count = other.query_row("SELECT count(*) FROM map_m", [], |row| row.get::<_, i64>(0));
    assert_eq!(count.unwrap(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn nothing_is_written_to_a_file_that_was_deleted_or_replaced() {
    let place = Place::new();
    let aside = place.folder.path().join("aside.db");
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "1").await;
    let batch = pen.changes(&map, vec![put("k", "2")]);
    let is_noticed = async || {
        let errors = [
            error(sqlite.commit(&batch).await),
            error(sqlite.ping().await),
            error(load(&sqlite, &map, Wanted::All).await),
        ];
        for failed in errors {
            assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
            assert!(!failed.may_have_applied());
        }
    };
    fs::rename(place.path(), &aside).unwrap();
    is_noticed().await;
    assert!(!place.path().exists());
    fs::File::create(place.path())
        .unwrap()
        .write_all(b"")
        .unwrap();
    is_noticed().await;
    fs::rename(&aside, place.path()).unwrap();
    sqlite.commit(&batch).await.unwrap();
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "2");
}

/// Commits continued into a log that was already deleted, and were lost when the program was
/// killed. Another process that opened the file did not see them, or wrote to the file without
/// a shared lock.
#[cfg(unix)]
#[tokio::test]
async fn nothing_is_written_to_a_log_that_was_deleted_or_replaced() {
    let place = Place::new();
    let aside = place.folder.path().join("aside");
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "1").await;
    for end in ["wal", "shm"] {
        let log = place.folder.path().join(format!("maps.db-{end}"));
        fs::rename(&log, &aside).unwrap();
        let batch = pen.changes(&map, vec![put("k", "2")]);
        for replaced in [false, true] {
            if replaced {
                fs::write(&log, "").unwrap();
            }
            let errors = [
                error(sqlite.commit(&batch).await),
                error(sqlite.ping().await),
                error(load(&sqlite, &map, Wanted::All).await),
            ];
            for failed in errors {
                assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
                assert!(failed.to_string().contains(end), "{failed}");
                assert!(!failed.may_have_applied());
            }
        }
        fs::rename(&aside, &log).unwrap();
        sqlite.commit(&batch).await.unwrap();
    }
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "2");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_may_be_a_symbolic_link_until_it_leads_elsewhere() {
    let (place, real) = (Place::new(), Place::new());
    let link = |to: &Place| std::os::unix::fs::symlink(to.path(), place.path()).unwrap();
    drop(real.open().await);
    link(&real);
    let sqlite = place.open().await;
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&sqlite, &map, "k", "1").await;
    fs::remove_file(place.path()).unwrap();
    let other = Place::new();
    drop(other.open().await);
    link(&other);
    let failed = error(pen.write(&sqlite, &map, vec![put("k", "2")]).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    drop(sqlite);
    let sqlite = real.open().await;
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "1");
}

/// A trigger of another program refuses one key. The error names that key, and nothing of
/// the batch is committed.
#[tokio::test]
async fn a_change_that_breaks_a_rule_is_refused_by_its_key() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "1").await;
    let rule = "CREATE TRIGGER rule BEFORE INSERT ON map_m WHEN NEW.value = 'bad'
        BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    place.other().execute_batch(rule).unwrap();
    let batch = pen.changes(
        &map,
        vec![put("good", "1"), put("k", "bad"), put("other", "1")],
    );
    let failed = error(sqlite.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Refused, "{failed:?}");
    assert_eq!(failed.keys(), [Arc::from("k")]);
    assert_eq!(failed.map(), Some("m"));
    assert!(!failed.may_have_applied());
    assert_eq!(pairs(&all(&sqlite, &map).await), [("k".into(), "1".into())]);
    let batch = pen.changes(&map, vec![put("good", "1"), put("other", "1")]);
    sqlite.commit(&batch).await.unwrap();
}

/// When one statement put many entries, the error did not name the key that violated the
/// constraint.
#[tokio::test]
async fn one_of_many_changes_that_breaks_a_rule_is_refused_by_its_key() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "0").await;
    let rule = "CREATE UNIQUE INDEX rule ON map_m (value)";
    place.other().execute_batch(rule).unwrap();
    let mut changes: Vec<_> = (1..100)
        .map(|n| put(&format!("{n:02}"), &n.to_string()))
        .collect();
    changes[49] = put("50", "0");
    let batch = pen.changes(&map, changes.clone());
    let failed = error(sqlite.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Refused, "{failed:?}");
    assert_eq!(failed.keys(), [Arc::from("50")]);
    assert!(!failed.may_have_applied());
    assert_eq!(all(&sqlite, &map).await.len(), 1);
    changes.remove(49);
    pen.write(&sqlite, &map, changes).await.unwrap();
    assert_eq!(all(&sqlite, &map).await.len(), 99);
}

/// A statement for many entries had a conflict clause, which SQLite also applies to the
/// statements of triggers, overriding theirs.
#[tokio::test]
async fn many_changes_leave_triggers_as_they_are() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "1").await;
    let log = "CREATE TABLE log (schema INTEGER UNIQUE);
        CREATE TRIGGER seen AFTER INSERT ON \"MAP_m\"
        BEGIN INSERT OR IGNORE INTO log VALUES (NEW.schema); END";
    place.other().execute_batch(log).unwrap();
    let changes = (0..100).map(|n| put(&n.to_string(), "1"));
    pen.write(&sqlite, &map, changes.collect()).await.unwrap();
    let count = place
        .other()
        .query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0));
    assert_eq!(count.unwrap(), 1);
}
