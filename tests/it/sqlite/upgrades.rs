//! Files written by an earlier version.

use persistify::{Expect, Otherwise, Provider};

use super::{
    tombstones::{delete, told},
    *,
};

/// A file of format 1, with the map `m` and the answer to a batch that skipped a change.
const FORMAT_1: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE persistify_meta (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL);
    INSERT INTO persistify_meta VALUES ('format', 1), ('revision', 9), ('incarnation', 77);
    CREATE TABLE persistify_maps (name TEXT PRIMARY KEY NOT NULL,
        table_name TEXT NOT NULL COLLATE NOCASE UNIQUE, companion TEXT COLLATE NOCASE UNIQUE);
    INSERT INTO persistify_maps VALUES ('m', 'map_m', NULL);
    CREATE TABLE persistify_writers (writer TEXT PRIMARY KEY NOT NULL,
        sequence INTEGER NOT NULL, revision INTEGER NOT NULL, at INTEGER NOT NULL);
    CREATE TABLE persistify_skipped (writer TEXT NOT NULL, position INTEGER NOT NULL,
        map TEXT NOT NULL, key TEXT NOT NULL, value, updated_at INTEGER, revision INTEGER,
        expires_at INTEGER, schema INTEGER, PRIMARY KEY (writer, position));
    CREATE TABLE map_m (key TEXT PRIMARY KEY NOT NULL, value TEXT, updated_at INTEGER,
        revision INTEGER DEFAULT 0, expires_at INTEGER, schema INTEGER DEFAULT 0);
    INSERT INTO map_m VALUES ('a', '1', 5, 7, NULL, 0), ('b', '2', 5, 9, NULL, 3);
";

fn old_file() -> Place {
    let place = Place::new();
    place.other().execute_batch(FORMAT_1).unwrap();
    place
}

/// The file has no record of deletions before the upgrade.
#[tokio::test]
async fn a_reader_from_before_tombstones_is_told_to_load_all_records() {
    let (place, map, mut pen) = (old_file(), name("m"), Pen::new());
    for _ in 0..2 {
        let sqlite = place.open().await;
        let expected = [("a".into(), "1".into()), ("b".into(), "2".into())];
        assert_eq!(pairs(&all(&sqlite, &map).await), expected);
        for known in [0, 8] {
            let of = told(&sqlite, &map, Wanted::changed(Revision::new(known))).await;
            let pruned = Some(Revision::new(9));
            assert_eq!((of.keys.len(), of.pruned_to), (0, pruned), "{known}");
        }
        let of = told(&sqlite, &map, Wanted::changed(Revision::new(9))).await;
        assert_eq!((of.keys.len(), of.pruned_to), (0, None));
        sqlite.close().await.unwrap();
    }
    let sqlite = place.open().await;
    pen.write(&sqlite, &map, delete(&["a"])).await.unwrap();
    let of = told(&sqlite, &map, Wanted::changed(Revision::new(9))).await;
    assert_eq!((of.keys, of.pruned_to), (vec!["-a".to_owned()], None));
}

#[tokio::test]
async fn an_upgraded_file_keeps_its_incarnation_and_what_it_knows_of_writers() {
    let (place, map, mut pen) = (old_file(), name("m"), Pen::new());
    let late = pen.changes(&map, vec![put("a", "late")]);
    let repeated = pen.changes(&map, vec![put("a", "repeated")]);
    let sql = "INSERT INTO persistify_writers VALUES (?1, 2, 9, ?2)";
    let now = pen.at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    place
        .other()
        .execute(sql, (pen.id.to_string(), now))
        .unwrap();
    let sqlite = place.open().await;
    assert_eq!(sqlite.ping().await.unwrap().unwrap().get(), 77);
    let failed = error(sqlite.commit(&late).await);
    assert_eq!(failed.kind(), persistify::ErrorKind::Superseded);
    let answer = sqlite.commit(&repeated).await.unwrap();
    assert_eq!(answer.revision, Some(Revision::new(9)));
    let skip = put("a", "2").expect(Expect::Absent, Otherwise::Skip);
    let batch = pen.changes(&map, vec![skip]);
    let answer = sqlite.commit(&batch).await.unwrap();
    assert_eq!(answer.skipped.len(), 1);
    assert_eq!(sqlite.commit(&batch).await.unwrap(), answer);
}

/// A process that runs an earlier version would delete without leaving tombstones.
#[tokio::test]
async fn an_earlier_version_cannot_commit_to_a_file_that_was_upgraded() {
    let place = old_file();
    let earlier = place.other();
    let note = "DELETE FROM persistify_skipped WHERE writer = 'w'";
    earlier.execute_batch(note).unwrap();
    drop(place.open().await);
    earlier.execute_batch(note).unwrap_err();
}

#[tokio::test]
async fn several_processes_upgrade_a_file_once() {
    let place = old_file();
    let opened = (0..6).map(|_| tokio::spawn(Sqlite::open(place.path())));
    for opened in opened.collect::<Vec<_>>() {
        let sqlite = opened.await.unwrap().unwrap();
        let of = told(&sqlite, &name("m"), Wanted::changed(Revision::ZERO)).await;
        assert_eq!(of.pruned_to, Some(Revision::new(9)));
    }
}
