//! Tombstones: how readers follow deletions, clears and drops.

use persistify::{Cause, Deletion, ErrorKind, Provider};

use super::{
    adopted::{adopt, foreign},
    *,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The result of a load of changes.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    /// The keys in the order of the load; those of tombstones start with `-`.
    pub(super) keys: Vec<String>,
    pub(super) horizon: Revision,
    pub(super) cleared: Option<Revision>,
    pub(super) pruned_to: Option<Revision>,
}

pub(super) async fn told(from: &Sqlite, map: &MapName, wanted: Wanted) -> Told {
    let load = from.load(map, wanted).await.unwrap();
    let (horizon, cleared, pruned_to) = (load.horizon, load.cleared, load.pruned_to);
    let keys = load
        .into_records()
        .await
        .unwrap()
        .into_iter()
        .map(|record| {
            let sign = if record.value.is_some() { "" } else { "-" };
            format!("{sign}{}", record.key)
        });
    Told {
        keys: keys.collect(),
        horizon,
        cleared,
        pruned_to,
    }
}

pub(super) fn delete(keys: &[&str]) -> Vec<Change> {
    keys.iter().map(|key| Change::delete(*key)).collect()
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

async fn kept_for(place: &Place, time: Duration) -> Sqlite {
    let builder = Sqlite::builder(place.path()).keep_tombstones(time);
    builder.open().await.unwrap()
}

fn count(place: &Place) -> i64 {
    let sql = "SELECT count(*) FROM persistify_tombstones";
    place.other().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn tombstones_carry_cause_and_writer_across_a_reopen() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    let keys = ["a", "b", "c", "d"];
    let changes = keys.map(|key| put(key, "1")).into();
    let known = pen.write(&sqlite, &map, changes).await.unwrap();
    let mut changes = delete(&["a", "none"]);
    changes.push(Change::delete("b").because(Cause::Expired));
    let deleted = pen.write(&sqlite, &map, changes).await.unwrap();
    // A key that is put again, and one that is deleted twice.
    pen.write(&sqlite, &map, delete(&["c", "d"])).await.unwrap();
    let last = vec![put("c", "2"), put("d", "2")];
    pen.write(&sqlite, &map, last).await.unwrap();
    pen.write(&sqlite, &map, delete(&["d"])).await.unwrap();
    sqlite.close().await.unwrap();

    let sqlite = place.open().await;
    let wanted = Wanted::changed(known.revision.unwrap());
    let records = load(&sqlite, &map, wanted).await.unwrap();
    let keys: Vec<_> = records.iter().map(|record| &*record.key).collect();
    assert_eq!(keys, ["a", "b", "c", "d"]);
    for (record, cause) in records.iter().zip([Cause::Removed, Cause::Expired]) {
        let deletion = Deletion::new(cause, pen.id);
        let expected = Record::deleted(record.key.clone(), deleted.revision.unwrap(), deletion);
        assert_eq!(*record, expected.with_updated_at(Some(pen.at)));
    }
    assert!(records[2].deletion.is_none() && records[3].deletion.is_some());
}

/// Many deletions take several statements. Each key must get its own tombstone.
#[tokio::test]
async fn many_deletions_leave_a_tombstone_each() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    for number in [1, 2, 3, 127, 128, 129, 300] {
        let keys: Vec<_> = (0..number).map(|n| format!("{n:03}\0'")).collect();
        let changes = keys.iter().map(|key| put(key, "1")).collect();
        let known = pen.write(&sqlite, &map, changes).await.unwrap();
        let changes = keys.iter().map(|key| Change::delete(key.as_str()));
        let changes = changes.chain([Change::delete("none")]).collect();
        pen.write(&sqlite, &map, changes).await.unwrap();
        let told = told(&sqlite, &map, Wanted::changed(known.revision.unwrap())).await;
        let expected: Vec<_> = keys.iter().map(|key| format!("-{key}")).collect();
        assert_eq!(told.keys, expected);
        assert!(all(&sqlite, &map).await.is_empty());
    }
}

#[tokio::test]
async fn a_limit_ends_with_a_commit_also_among_tombstones() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    let keys = ["a", "b", "c", "d"];
    let changes = keys.map(|key| put(key, "1")).into();
    let first = pen.write(&sqlite, &map, changes).await.unwrap();
    let second = pen.write(&sqlite, &map, delete(&["a", "b"])).await.unwrap();
    let changes = vec![put("x", "1"), Change::delete("c")];
    let third = pen.write(&sqlite, &map, changes).await.unwrap();
    let [first, second, third] = [first, second, third].map(|done| done.revision.unwrap());
    for (limit, keys, horizon) in [
        (0, &[][..], first),
        (1, &["-a", "-b"], second),
        (2, &["-a", "-b"], second),
        (3, &["-a", "-b", "x", "-c"], third),
        (usize::MAX, &["-a", "-b", "x", "-c"], third),
    ] {
        let told = told(&sqlite, &map, Wanted::some_changed(first, limit)).await;
        assert_eq!(
            (&*told.keys, told.horizon),
            (&*owned(keys), horizon),
            "{limit}"
        );
    }
}

#[tokio::test]
async fn a_clear_and_a_drop_are_one_revision_and_leave_no_tombstones() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    let other = name("other");
    let both =
        [&map, &other].map(|map| MapBatch::new(map.clone(), vec![put("a", "1"), put("b", "1")]));
    let batch = pen.batch(both.into());
    let known = sqlite.commit(&batch).await.unwrap().revision.unwrap();
    for map in [&map, &other] {
        pen.write(&sqlite, map, delete(&["a"])).await.unwrap();
    }
    let clear = MapBatch::new(map.clone(), vec![put("c", "1")]).clearing(true);
    let batch = pen.batch(vec![clear]);
    let cleared = sqlite.commit(&batch).await.unwrap().revision;
    for end in ["open", "reopened"] {
        let sqlite = place.open().await;
        let of = told(&sqlite, &map, Wanted::changed(known)).await;
        assert_eq!(
            (&*of.keys, of.cleared),
            (&["c".to_owned()][..], cleared),
            "{end}"
        );
        let later = told(&sqlite, &map, Wanted::changed(cleared.unwrap())).await;
        assert_eq!((later.keys.len(), later.cleared), (0, None), "{end}");
        sqlite.close().await.unwrap();
    }
    sqlite.drop_map(&map).await.unwrap();
    let of = told(&sqlite, &map, Wanted::changed(known)).await;
    assert!(of.keys.is_empty() && of.cleared > cleared, "{of:?}");
    pen.put(&sqlite, &map, "d", "1").await;
    let again = told(&sqlite, &map, Wanted::changed(known)).await;
    assert_eq!(
        (again.keys, again.cleared),
        (vec!["d".to_owned()], of.cleared)
    );
    // The other map is unchanged.
    let of = told(&sqlite, &other, Wanted::changed(known)).await;
    assert_eq!((of.keys, of.cleared), (vec!["-a".to_owned()], None));
}

#[tokio::test]
async fn old_tombstones_are_pruned_whole_commits_at_a_time() {
    let place = Place::new();
    let sqlite = kept_for(&place, HOUR).await;
    let (map, other, mut pen) = (name("m"), name("other"), Pen::new());
    let now = pen.at;
    let keys = || ["a", "b", "c"].map(|key| put(key, "1")).into();
    let both = [&map, &other].map(|map| MapBatch::new(map.clone(), keys()));
    let batch = pen.batch(both.into());
    let first = sqlite.commit(&batch).await.unwrap().revision.unwrap();
    pen.at = now - 2 * HOUR;
    let both = [&map, &other].map(|map| MapBatch::new(map.clone(), delete(&["a", "b"])));
    let batch = pen.batch(both.into());
    let old = sqlite.commit(&batch).await.unwrap().revision.unwrap();
    pen.at = now;
    pen.write(&sqlite, &map, delete(&["c"])).await.unwrap();
    assert_eq!(count(&place), 5);
    let before = told(&sqlite, &map, Wanted::changed(first)).await;
    assert_eq!((before.keys.len(), before.pruned_to), (3, None));

    sqlite.release(&map).await.unwrap();
    assert_eq!(count(&place), 1);
    sqlite.close().await.unwrap();
    let sqlite = kept_for(&place, HOUR).await;
    for map in [&map, &other] {
        let of = told(&sqlite, map, Wanted::changed(first)).await;
        assert_eq!((of.keys.len(), of.pruned_to), (0, Some(old)));
    }
    let of = told(&sqlite, &map, Wanted::changed(old)).await;
    assert_eq!((of.keys, of.pruned_to), (vec!["-c".to_owned()], None));
    let of = told(&sqlite, &other, Wanted::changed(old)).await;
    assert_eq!((of.keys.len(), of.pruned_to), (0, None));
}

#[tokio::test]
async fn commits_prune_once_in_a_while() {
    let place = Place::new();
    let sqlite = kept_for(&place, HOUR).await;
    let (map, mut pen) = (name("m"), Pen::new());
    pen.at -= 2 * HOUR;
    pen.write(&sqlite, &map, vec![put("a", "1"), put("b", "1")])
        .await
        .unwrap();
    pen.write(&sqlite, &map, delete(&["a"])).await.unwrap();
    assert_eq!(count(&place), 1, "too early");
    sqlite.close().await.unwrap();

    // The first commit of each handle prunes, and every commit does if no tombstones are kept.
    let sqlite = kept_for(&place, HOUR).await;
    pen.put(&sqlite, &map, "c", "1").await;
    assert_eq!(count(&place), 0);
    sqlite.close().await.unwrap();
    let sqlite = kept_for(&place, Duration::ZERO).await;
    for key in ["b", "c"] {
        let deleted = pen.write(&sqlite, &map, delete(&[key])).await.unwrap();
        assert_eq!(count(&place), 0);
        let of = told(&sqlite, &map, Wanted::changed(Revision::ZERO)).await;
        assert_eq!((of.keys.len(), of.pruned_to), (0, deleted.revision));
    }
    sqlite.close().await.unwrap();
    let sqlite = kept_for(&place, Duration::MAX).await;
    pen.put(&sqlite, &map, "d", "1").await;
    pen.write(&sqlite, &map, delete(&["d"])).await.unwrap();
    sqlite.release(&map).await.unwrap();
    assert_eq!(count(&place), 1);
}

/// The first load of changes creates the indexes that such loads need.
#[tokio::test]
async fn a_map_is_indexed_by_revision_once_its_changes_are_loaded() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("Maps"), Pen::new());
    pen.write(&sqlite, &map, vec![put("a", "1"), put("b", "1")])
        .await
        .unwrap();
    let first = pen.write(&sqlite, &map, delete(&["a"])).await.unwrap();
    let other = place.other();
    let indexes = || {
        let sql =
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name";
        let mut statement = other.prepare(sql).unwrap();
        let names = statement
            .query_map([], |row| row.get::<_, String>(0))
            .unwrap();
        names.map(|name| name.unwrap()).collect::<Vec<_>>()
    };
    assert!(indexes().is_empty());
    for _ in 0..2 {
        let of = told(&sqlite, &map, Wanted::changed(Revision::ZERO)).await;
        assert_eq!(of.keys, ["b", "-a"]);
        assert_eq!(
            indexes(),
            [
                "persistify_changes_%4daps",
                "persistify_tombstones_by_revision"
            ]
        );
    }
    // SQLite reads the indexes in order, without a sort.
    let plan = "EXPLAIN QUERY PLAN
        SELECT t.key, t.revision FROM \"map_%4daps\" AS t WHERE t.revision > 5 AND t.revision <= 9
        UNION ALL SELECT d.key, d.revision FROM persistify_tombstones AS d
            WHERE d.map = 'Maps' AND d.revision > 5 AND d.revision <= 9 ORDER BY 2";
    let mut statement = other.prepare(plan).unwrap();
    let steps = statement
        .query_map([], |row| row.get::<_, String>(3))
        .unwrap();
    let steps: Vec<_> = steps.map(|step| step.unwrap()).collect();
    assert!(
        !steps.iter().any(|step| step.contains("TEMP B-TREE")),
        "{steps:?}"
    );
    pen.put(&sqlite, &map, "c", "1").await;
    let of = told(&sqlite, &map, Wanted::changed(first.revision.unwrap())).await;
    assert_eq!(of.keys, ["c"]);
    // The index is dropped with the table.
    sqlite.drop_map(&map).await.unwrap();
    assert_eq!(indexes(), ["persistify_tombstones_by_revision"]);
}

/// Another program deletes rows without a tombstone, so a reader that follows the map would
/// keep them forever.
#[tokio::test]
async fn changes_of_an_adopted_table_are_unsupported() {
    let (place, other) = foreign("CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT)");
    let (sqlite, map) = (adopt(&place).await.unwrap(), name("m"));
    Pen::new().put(&sqlite, &map, "a", "1").await;
    let wanted = Wanted::changed(Revision::ZERO);
    let failed = error(sqlite.load(&map, wanted).await);
    assert_eq!(
        (failed.kind(), failed.map()),
        (ErrorKind::Unsupported, Some("m"))
    );
    other.execute_batch("DELETE FROM t").unwrap();
    assert!(all(&sqlite, &map).await.is_empty());
}

/// A trigger of another program refuses a deletion. If a statement deletes several keys, SQLite
/// does not report which key failed.
#[tokio::test]
async fn a_deletion_that_a_trigger_refuses_is_refused_with_nothing_applied() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    let changes = ["a", "b"].map(|key| put(key, "1")).into();
    let known = pen.write(&sqlite, &map, changes).await.unwrap();
    let rule = "CREATE TRIGGER rule BEFORE DELETE ON map_m WHEN OLD.key = 'b'
        BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    place.other().execute_batch(rule).unwrap();
    for (keys, named) in [(&["b"][..], &["b".into()][..]), (&["a", "b"], &[])] {
        let failed = error(pen.write(&sqlite, &map, delete(keys)).await);
        assert_eq!(
            (failed.kind(), failed.map()),
            (ErrorKind::Refused, Some("m"))
        );
        assert_eq!(failed.keys(), named);
        assert!(!failed.may_have_applied());
    }
    let of = told(&sqlite, &map, Wanted::changed(known.revision.unwrap())).await;
    assert!(of.keys.is_empty());
    assert_eq!(all(&sqlite, &map).await.len(), 2);
}

/// A backup has no record of later changes. A reader that knows a later state of the file would
/// keep entries that no longer exist.
#[tokio::test]
async fn a_restored_file_tells_readers_of_the_old_one_to_load_all_records() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    pen.put(&sqlite, &map, "a", "1").await;
    let backup = place.folder.path().join("backup.db");
    sqlite.backup(&backup).await.unwrap();
    pen.put(&sqlite, &map, "later", "1").await;
    let known = told(&sqlite, &map, Wanted::changed(Revision::ZERO))
        .await
        .horizon;
    sqlite.close().await.unwrap();
    Sqlite::restore_over(&backup, place.path()).await.unwrap();
    let sqlite = place.open().await;
    let of = told(&sqlite, &map, Wanted::changed(known)).await;
    assert!(of.keys.is_empty() && of.pruned_to > Some(known), "{of:?}");
    let of = told(&sqlite, &map, Wanted::changed(of.horizon)).await;
    assert_eq!((of.keys.len(), of.pruned_to), (0, None));
}
