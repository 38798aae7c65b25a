//! Loads of changes: deletions, clears and drops by any process, and the pruning of
//! tombstones.

use persistify::{Cause, Deletion, Load, MapName};

use super::*;

/// Loads the changes after a revision.
async fn told(from: &Postgres, map: &MapName, after: Revision) -> Load<'static> {
    let load = from.load(map, Wanted::changed(after)).await.unwrap();
    let (horizon, cleared, pruned) = (load.horizon, load.cleared, load.pruned_to);
    let records = load.into_records().await.unwrap();
    Load::of(horizon, records)
        .with_cleared(cleared)
        .with_pruned_to(pruned)
}

/// The keys deleted after a revision; `None` if these tombstones were pruned.
async fn deleted(from: &Postgres, map: &MapName, after: Revision) -> Option<Vec<String>> {
    let load = told(from, map, after).await;
    if load.pruned_to.is_some() {
        assert!(load.into_records().await.unwrap().is_empty());
        return None;
    }
    let records = load.into_records().await.unwrap().into_iter();
    let gone = records.filter(|record| record.value.is_none());
    Some(gone.map(|record| record.key.to_string()).collect())
}

async fn put_all(pen: &mut Pen, to: &Postgres, map: &MapName, keys: &[&str]) -> Revision {
    let puts = keys.iter().map(|key| put(key, "1")).collect();
    pen.write(to, map, puts).await.unwrap().revision.unwrap()
}

async fn delete(pen: &mut Pen, to: &Postgres, map: &MapName, key: &str) -> Revision {
    let changes = vec![Change::delete(key)];
    let deleted = pen.write(to, map, changes).await.unwrap();
    deleted.revision.unwrap()
}

fn tombstones(other: &Witness) -> String {
    other.text("SELECT coalesce(string_agg(key, ',' ORDER BY key), '') FROM persistify_tombstones")
}

async fn keeping(url: &str, time: Duration) -> Postgres {
    let builder = Postgres::builder(url).keep_tombstones(time);
    builder.connect().await.unwrap()
}

#[tokio::test]
async fn a_deletion_is_told_with_its_key_cause_writer_and_time() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (keeping(&url, Duration::MAX).await, name("m"), Pen::new());
    let long = "long ".repeat(1_000);
    let known = put_all(&mut pen, &postgres, &map, &["a", "b\0", &long, "stays"]).await;
    // A single round trip, with a condition, and a batch of two maps.
    delete(&mut pen, &postgres, &map, "a").await;
    let expired = Change::delete("b\0").because(Cause::Expired);
    let expired = expired.expect(Expect::Present, Otherwise::Fail);
    pen.write(&postgres, &map, vec![expired]).await.unwrap();
    let parts = [&map, &name("other")]
        .map(|map| MapBatch::new(map.clone(), vec![Change::delete(long.as_str())]));
    postgres.commit(&pen.batch(parts.into())).await.unwrap();

    let load = told(&postgres, &map, known).await;
    let found = load.into_records().await.unwrap();
    let expected = [
        ("a", Cause::Removed),
        ("b\0", Cause::Expired),
        (&long, Cause::Removed),
    ];
    let expected = expected.iter().zip(&found).map(|((key, cause), found)| {
        let deletion = Deletion::new(*cause, pen.id);
        Record::deleted(*key, found.revision, deletion).with_updated_at(Some(pen.at))
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
    assert_eq!(found.len(), 3);
    let row =
        "SELECT cause, revision > 0, writer, long_key FROM persistify_tombstones WHERE key = 'a'";
    let writer = other.run(row)[0][2].clone().unwrap();
    assert_eq!(writer.replace('-', ""), pen.id.to_string());
    postgres.release(&map).await.unwrap();
    assert_eq!(deleted(&postgres, &map, known).await.unwrap().len(), 3);
}

/// The old tombstone still exists, and would hide the entry from a reader that applies
/// tombstones last.
#[tokio::test]
async fn a_key_that_was_put_again_is_told_as_an_entry_only() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (keeping(&url, Duration::MAX).await, name("m"), Pen::new());
    let known = put_all(&mut pen, &postgres, &map, &["a", "b"]).await;
    delete(&mut pen, &postgres, &map, "a").await;
    put_all(&mut pen, &postgres, &map, &["a"]).await;
    assert_eq!(tombstones(&other), "a");
    assert_eq!(deleted(&postgres, &map, known).await.unwrap(), [""; 0]);
    let last = delete(&mut pen, &postgres, &map, "a").await;
    assert_eq!(deleted(&postgres, &map, known).await.unwrap(), ["a"]);
    assert_eq!(told(&postgres, &map, known).await.horizon, last);
}

#[tokio::test]
async fn old_tombstones_are_pruned_by_whole_commits_when_the_map_is_closed() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (
        keeping(&url, Duration::from_secs(3_600)).await,
        name("m"),
        Pen::new(),
    );
    let known = put_all(&mut pen, &postgres, &map, &["a", "b", "c", "d"]).await;
    let now = pen.at;
    // The writer's clock was behind, so the second commit seems older than the first.
    let mut revisions = Vec::new();
    for (key, ago) in [("a", 0), ("b", 7_200), ("c", 60)] {
        pen.at = now - Duration::from_secs(ago);
        revisions.push(delete(&mut pen, &postgres, &map, key).await);
    }
    postgres.release(&name("another")).await.unwrap();
    assert_eq!(tombstones(&other), "a,b,c");
    postgres.release(&map).await.unwrap();
    assert_eq!(tombstones(&other), "c");
    for known in [Revision::ZERO, known, revisions[0]] {
        assert_eq!(
            told(&postgres, &map, known).await.pruned_to,
            Some(revisions[1])
        );
        assert_eq!(deleted(&postgres, &map, known).await, None);
    }
    assert_eq!(deleted(&postgres, &map, revisions[1]).await.unwrap(), ["c"]);
    assert_eq!(all(&postgres, &map).await.len(), 1);
}

#[tokio::test]
async fn every_thousandth_deletion_prunes_with_its_commit() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (keeping(&url, Duration::ZERO).await, name("m"), Pen::new());
    let keys: Vec<_> = (0..1_200).map(|n| n.to_string()).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let known = put_all(&mut pen, &postgres, &map, &keys).await;
    let mut left = Vec::new();
    for some in keys.chunks(400) {
        let changes = some.iter().map(|key| Change::delete(*key)).collect();
        pen.write(&postgres, &map, changes).await.unwrap();
        left.push(other.text("SELECT count(*) FROM persistify_tombstones"));
    }
    assert_eq!(left, ["400", "800", "0"]);
    assert_eq!(deleted(&postgres, &map, known).await, None);
    let last = told(&postgres, &map, known).await.horizon;
    assert_eq!(told(&postgres, &map, known).await.pruned_to, Some(last));
}

/// A commit may be writing a tombstone that is about to be pruned.
#[tokio::test]
async fn pruning_leaves_a_map_alone_while_a_commit_is_under_way() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (keeping(&url, Duration::ZERO).await, name("m"), Pen::new());
    put_all(&mut pen, &postgres, &map, &["a"]).await;
    delete(&mut pen, &postgres, &map, "a").await;
    other.run("BEGIN; UPDATE persistify_maps SET revision = revision");
    postgres.release(&map).await.unwrap();
    other.run("COMMIT");
    assert_eq!(tombstones(&other), "a");
    postgres.release(&map).await.unwrap();
    assert_eq!(tombstones(&other), "");
}

#[tokio::test]
async fn a_clear_is_told_as_one_revision() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (keeping(&url, Duration::MAX).await, name("m"), Pen::new());
    // By two round trips, and by a single one.
    for keys in [["a", "b"], ["c", "d"]] {
        let known = put_all(&mut pen, &postgres, &map, &keys).await;
        delete(&mut pen, &postgres, &map, keys[0]).await;
        let clear = MapBatch::new(map.clone(), vec![put("new", "1")]).clearing(true);
        let cleared = postgres.commit(&pen.batch(vec![clear])).await.unwrap();
        let load = told(&postgres, &map, known).await;
        assert_eq!((load.cleared, load.pruned_to), (cleared.revision, None));
        assert_eq!(pairs(&load.into_records().await.unwrap()).len(), 1);
        assert_eq!(tombstones(&other), "");
        let load = told(&postgres, &map, cleared.revision.unwrap()).await;
        assert_eq!(load.cleared, None);
    }
}

#[tokio::test]
async fn a_drop_is_told_as_a_clear_and_leaves_no_tombstones() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (keeping(&url, Duration::ZERO).await, name("m"), Pen::new());
    let known = put_all(&mut pen, &postgres, &map, &["a", "b", "c"]).await;
    delete(&mut pen, &postgres, &map, "a").await;
    postgres.release(&map).await.unwrap();
    delete(&mut pen, &postgres, &map, "b").await;
    postgres.drop_map(&map).await.unwrap();
    assert_eq!(tombstones(&other), "");
    let dropped = told(&postgres, &map, known).await;
    assert!(dropped.cleared > Some(known));
    assert_eq!(
        (dropped.pruned_to, Some(dropped.horizon)),
        (None, dropped.cleared)
    );

    put_all(&mut pen, &postgres, &map, &["d", "e"]).await;
    delete(&mut pen, &postgres, &map, "d").await;
    let load = told(&postgres, &map, known).await;
    assert_eq!(load.cleared, dropped.cleared);
    assert_eq!(deleted(&postgres, &map, known).await.unwrap(), ["d"]);
}

/// Format 1 had no tombstones, so earlier deletions are unknown.
#[tokio::test]
async fn a_database_of_format_1_counts_all_its_deletions_as_pruned() {
    let (url, other) = database();
    let (postgres, map, mut pen) = (
        Postgres::connect(&url).await.unwrap(),
        name("m"),
        Pen::new(),
    );
    let known = put_all(&mut pen, &postgres, &map, &["a", "b"]).await;
    let last = delete(&mut pen, &postgres, &map, "a").await;
    postgres.close().await.unwrap();
    other.run(
        "DROP TABLE persistify_tombstones, persistify_answers;
         UPDATE persistify_meta SET value = 1 WHERE name = 'format'",
    );
    let [one, two] = [Postgres::connect(&url), Postgres::connect(&url)];
    let (one, two) = tokio::join!(one, two);
    let (postgres, two) = (one.unwrap(), two.unwrap());
    assert_eq!(told(&two, &map, known).await.pruned_to, Some(last));
    assert_eq!(deleted(&postgres, &map, last).await.unwrap(), [""; 0]);
    delete(&mut pen, &postgres, &map, "b").await;
    assert_eq!(deleted(&two, &map, last).await.unwrap(), ["b"]);
    assert_eq!(
        other.text("SELECT value FROM persistify_meta WHERE name = 'format'"),
        "2"
    );
}

/// The indexes of the map `m` that begin with the revision.
fn indexes(other: &Witness) -> String {
    other.text(
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'map_m' AND indexdef LIKE '%(revision)'",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_load_of_changes_makes_the_index_once_in_all_processes() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let writer = Postgres::connect(&url).await.unwrap();
    let known = put_all(&mut pen, &writer, &map, &["a", "b"]).await;
    all(&writer, &map).await;
    assert_eq!(indexes(&other), "0");
    let readers = (0..4).map(|_| {
        let (url, map) = (url.clone(), map.clone());
        tokio::spawn(async move {
            let reader = Postgres::connect(&url).await.unwrap();
            deleted(&reader, &map, known).await
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await.unwrap().unwrap(), [""; 0]);
    }
    assert_eq!(indexes(&other), "1");
    let rows = (0..20_000).map(|n| put(&n.to_string(), "1")).collect();
    pen.write(&writer, &map, rows).await.unwrap();
    let known = delete(&mut pen, &writer, &map, "7").await;
    other.run("ANALYZE map_m");
    let plan = other.run(&format!(
        "EXPLAIN SELECT t.revision FROM map_m AS t WHERE t.revision > {known} UNION ALL
         SELECT d.revision FROM persistify_tombstones AS d WHERE d.map = 1 AND d.revision > {known}
         ORDER BY revision LIMIT 10"
    ));
    let plan: Vec<_> = plan.iter().map(|row| row[0].clone().unwrap()).collect();
    assert!(!plan.join("\n").contains("Seq Scan on map_m"), "{plan:#?}");
}

/// Two processes write and delete, and a third follows both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_follows_two_writers_arrives_where_they_are() {
    let (url, _other) = database();
    let map = name("m");
    let tasks = (0..2_u64).map(|n| {
        let (url, map) = (url.clone(), map.clone());
        tokio::spawn(async move {
            let (store, mut pen) = (Postgres::connect(&url).await.unwrap(), Pen::new());
            for round in 0..30_u64 {
                let (here, there) = (format!("{}", round % 7), format!("{}", (round + n) % 5));
                put_all(&mut pen, &store, &map, &[&here, &there]).await;
                delete(&mut pen, &store, &map, &there).await;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let reader = Postgres::connect(&url).await.unwrap();
    let (mut followed, mut known) = (std::collections::BTreeMap::new(), Revision::ZERO);
    loop {
        let are_done = tasks.iter().all(tokio::task::JoinHandle::is_finished);
        let load = reader
            .load(&map, Wanted::some_changed(known, 3))
            .await
            .unwrap();
        let horizon = load.horizon;
        for record in load.into_records().await.unwrap() {
            match record.value {
                Some(_) => _ = followed.insert(record.key.clone(), record),
                None => _ = followed.remove(&record.key),
            }
        }
        if are_done && horizon == known {
            break;
        }
        known = horizon;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let followed: Vec<_> = followed.into_values().collect();
    assert_eq!(followed, all(&reader, &map).await);
}

/// Another program deletes rows without a tombstone.
#[tokio::test]
async fn changes_of_an_adopted_table_are_unsupported() {
    let (url, other) = database();
    other.run("CREATE TABLE t (key text PRIMARY KEY, value jsonb)");
    let builder = Postgres::builder(&url).table("m", "t").max_connections(1);
    let postgres = builder.connect().await.unwrap();
    Pen::new().put(&postgres, &name("m"), "a", "1").await;
    for _ in 0..2 {
        let failed = load(&postgres, &name("m"), Wanted::changed(Revision::ZERO)).await;
        let failed = error(failed);
        assert_eq!(failed.kind(), ErrorKind::Unsupported, "{failed:?}");
        assert_eq!(failed.map(), Some("m"));
    }
}
