//! Commits: their tables, locks, and dropped futures.

use std::time::Instant;

use persistify::{ErrorKind, Expect, Otherwise};

use super::*;

#[tokio::test]
async fn a_map_is_a_table_for_other_programs_to_read() {
    let (url, other) = database();
    let (map, mut pen) = (name("stock"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    pen.at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
    let end = pen.at + Duration::from_secs(1);
    let pear = Change::put(
        "pear",
        Payload::json(r#"{"n":1}"#).with_schema(u32::MAX),
        Some(end),
    );
    let revision = pen
        .write(&postgres, &map, vec![pear])
        .await
        .unwrap()
        .revision
        .unwrap();
    let row = other.run(
        "SELECT key, value, updated_at AT TIME ZONE 'UTC', revision, expires_at AT TIME ZONE 'UTC',
            schema, long_key, pg_typeof(value) FROM public.map_stock",
    );
    let expected = [
        Some("pear".to_owned()),
        Some(r#"{"n": 1}"#.to_owned()),
        Some("2023-11-14 22:13:20.007".to_owned()),
        Some(revision.to_string()),
        Some("2023-11-14 22:13:21.007".to_owned()),
        Some(u32::MAX.to_string()),
        None,
        Some("jsonb".to_owned()),
    ];
    assert_eq!(row, [expected]);
    let indexes =
        other.run("SELECT indexdef FROM pg_indexes WHERE tablename = 'map_stock' ORDER BY 1");
    assert_eq!(indexes.len(), 2, "{indexes:?}");
    assert!(
        indexes[0][0]
            .as_ref()
            .unwrap()
            .contains("(expires_at) WHERE")
    );
}

/// Loading a map creates no table.
#[tokio::test]
async fn a_load_of_an_unknown_map_writes_nothing() {
    let (url, other) = database();
    let postgres = Postgres::connect(&url).await.unwrap();
    assert!(all(&postgres, &name("m")).await.is_empty());
    assert!(postgres.maps().await.unwrap().is_empty());
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'map%'";
    assert_eq!(other.text(tables), "0");
    // A failed first commit also leaves no map.
    let changes = vec![put("a", "1").expect(Expect::Present, Otherwise::Fail)];
    let conflict = error(Pen::new().write(&postgres, &name("m"), changes).await);
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert!(postgres.maps().await.unwrap().is_empty());
}

#[tokio::test]
async fn map_names_that_need_quoting_or_shortening_are_kept_apart() {
    let (url, other) = database();
    let postgres = Postgres::builder(&url)
        .schema("The \"schema\"; --")
        .connect()
        .await
        .unwrap();
    let long = "x".repeat(254);
    let names = [
        "\"",
        "'; DROP TABLE persistify_maps; --",
        "A",
        "a",
        "%s",
        "\\",
        "🦀",
        "pg_class",
    ];
    let mut names: Vec<String> = names.map(str::to_owned).into();
    names.extend([format!("{long}a"), format!("{long}b")]);
    for (n, map) in names.iter().enumerate() {
        Pen::new()
            .put(&postgres, &name(map), "k", &n.to_string())
            .await;
    }
    for (n, map) in names.iter().enumerate() {
        let found = one(&postgres, &name(map), "k").await.unwrap();
        assert_eq!(text(&found), n.to_string(), "{map}");
    }
    let longest = "SELECT max(length(tablename)) FROM pg_tables WHERE schemaname LIKE 'The%'";
    assert_eq!(other.text(longest), "63");
    assert_eq!(postgres.maps().await.unwrap().len(), names.len());
}

/// Several processes open and write the same new maps at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_maps_opened_by_many_processes_at_once_are_created_once() {
    let (url, other) = database();
    let tasks = (0..8).map(|n: u64| {
        let url = url.clone();
        tokio::spawn(async move {
            let postgres = Postgres::builder(&url)
                .max_connections(1)
                .connect()
                .await
                .unwrap();
            let maps = [name("b"), name("a"), name("c")];
            let mut pen = Pen::new();
            for _ in 0..5 {
                let mut parts: Vec<_> = maps
                    .iter()
                    .map(|map| {
                        MapBatch::new(map.clone(), vec![put(&n.to_string(), "1"), put("all", "1")])
                    })
                    .collect();
                let by = n.try_into().unwrap_or(0) % parts.len();
                parts.rotate_left(by);
                postgres.commit(&pen.batch(parts)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    for map in ["a", "b", "c"] {
        assert_eq!(other.text(&format!("SELECT count(*) FROM map_{map}")), "9");
    }
    assert_eq!(other.text("SELECT count(*) FROM persistify_meta"), "2");
}

/// A commit that is dropped at any moment releases its connection and its locks.
#[tokio::test]
async fn a_dropped_commit_leaves_no_open_transaction() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::builder(&url)
        .max_connections(1)
        .connect()
        .await
        .unwrap();
    pen.put(&postgres, &map, "k", "0").await;
    for polls in 0..12 {
        let batch = pen.changes(&map, vec![put("k", &polls.to_string())]);
        {
            let mut commit = std::pin::pin!(postgres.commit(&batch));
            let mut left = polls;
            std::future::poll_fn(|cx| {
                if left == 0 {
                    return std::task::Poll::Ready(());
                }
                left -= 1;
                commit.as_mut().poll(cx).map(drop)
            })
            .await;
        }
        // Takes the only connection and the lock of the counter.
        postgres.commit(&batch).await.unwrap();
        let found = one(&postgres, &map, "k").await.unwrap();
        assert_eq!(text(&found), polls.to_string());
    }
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let deadline = Instant::now() + Duration::from_secs(10);
    // The server takes a while to notice that its client is gone.
    while other.text(open) != "0" {
        assert!(Instant::now() < deadline, "a transaction is open still");
        tokio::task::yield_now().await;
    }
}

/// While another program holds the lock, a commit waits for the lock timeout and fails, and is
/// not applied later.
#[tokio::test]
async fn a_locked_counter_is_unavailable_and_nothing_lands_late() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::builder(&url)
        .lock_timeout(Duration::from_millis(100))
        .connect()
        .await
        .unwrap();
    pen.put(&postgres, &map, "k", "1").await;
    other.run("BEGIN; UPDATE persistify_maps SET revision = revision");
    let batch = pen.changes(&map, vec![put("k", "2")]);
    let failed = error(postgres.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    assert!(!failed.may_have_applied());
    assert!(failed.to_string().contains("locked"), "{failed}");
    other.run("ROLLBACK");
    assert_eq!(text(&one(&postgres, &map, "k").await.unwrap()), "1");
    postgres.commit(&batch).await.unwrap();
    assert_eq!(text(&one(&postgres, &map, "k").await.unwrap()), "2");
}

/// A commit waits for the disk even if `synchronous_commit` is off by default.
#[tokio::test]
async fn a_commit_with_synchronous_commit_off_waits_for_the_disk() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let database = url.rsplit_once('/').unwrap().1.to_owned();
    other.run(&format!(
        "ALTER DATABASE {database} SET synchronous_commit = off"
    ));
    let postgres = Postgres::connect(&url).await.unwrap();
    pen.put(&postgres, &map, "k", "1").await;
    other.run(
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN new; END';
         CREATE TRIGGER look AFTER UPDATE ON map_m FOR EACH ROW EXECUTE FUNCTION look()",
    );
    pen.put(&postgres, &map, "k", "2").await;
    assert_eq!(other.text("SELECT setting FROM seen"), "on");
}

/// Only writers that were idle for more than a week are forgotten.
#[tokio::test]
async fn writers_idle_for_a_week_are_forgotten_on_release() {
    let (url, other) = database();
    let (map, mut old, mut new) = (name("m"), Pen::new(), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let skipping = || vec![put("k", "1").expect(Expect::Present, Otherwise::Skip)];
    old.write(&postgres, &map, skipping()).await.unwrap();
    new.write(&postgres, &map, skipping()).await.unwrap();
    other.run(&format!(
        "UPDATE persistify_writers SET at = now() - interval '8 days' WHERE writer = '{}'",
        old.id
    ));
    postgres.release(&map).await.unwrap();
    for table in ["persistify_writers", "persistify_answers"] {
        let left = other
            .text(&format!("SELECT writer FROM {table}"))
            .replace('-', "");
        assert_eq!(left, new.id.to_string());
    }
}

/// Sequence numbers from 2^63 on were compared as negative numbers, so a late batch was applied.
#[tokio::test]
async fn a_batch_that_comes_after_the_highest_sequence_is_superseded() {
    let (url, _other) = database();
    let (map, pen) = (name("m"), Pen::new());
    let batch = |sequence, value| {
        let part = MapBatch::new(map.clone(), vec![put("k", value)]);
        let id = persistify::BatchId::new(pen.id, sequence);
        Batch::new(id, Revision::ZERO, pen.at, vec![part])
    };
    let [early, late] = [Postgres::connect(&url), Postgres::connect(&url)];
    let (early, late) = (early.await.unwrap(), late.await.unwrap());
    early.commit(&batch(1, "1")).await.unwrap();
    for sequence in [1 << 63, u64::MAX - 1, u64::MAX] {
        late.commit(&batch(sequence, "2")).await.unwrap();
    }
    let failed = error(early.commit(&batch(2, "3")).await);
    assert_eq!(failed.kind(), ErrorKind::Superseded, "{failed}");
    assert_eq!(text_of(&early, &map, "k").await.unwrap(), "2");
}
