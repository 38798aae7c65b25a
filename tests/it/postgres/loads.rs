//! Loads: snapshots, pages, and concurrent changes of the tables.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::*;

#[tokio::test]
async fn a_load_during_writes_is_one_snapshot() {
    let (url, _other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let rows = |value: &str| (0..5_000).map(|n| put(&n.to_string(), value)).collect();
    let first = pen.write(&postgres, &map, rows("1")).await.unwrap();
    let load = postgres.load(&map, Wanted::All).await.unwrap();
    assert_eq!(Some(load.horizon), first.revision);
    let mut pages = load.pages;
    let mut records = pages.try_next().await.unwrap().unwrap();
    let part = MapBatch::new(map.clone(), rows("2")).clearing(true);
    postgres.commit(&pen.batch(vec![part])).await.unwrap();
    while let Some(page) = pages.try_next().await.unwrap() {
        assert!(page.len() <= 1_000);
        records.extend(page);
    }
    assert_eq!(records.len(), 5_000);
    assert!(records.iter().all(|record| text(record) == "1"));
}

#[tokio::test]
async fn a_load_after_analyze_estimates_its_records() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let rows = (0..2_500).map(|n| put(&n.to_string(), "1")).collect();
    pen.write(&postgres, &map, rows).await.unwrap();
    other.run("ANALYZE map_m");
    let load = postgres.load(&map, Wanted::All).await.unwrap();
    assert_eq!(load.total_hint, Some(2_500));
}

#[tokio::test]
async fn values_of_10_megabytes_and_keys_of_10_000_characters_are_loaded_whole() {
    let (url, _other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let mut state = 7_u64;
    // Text that compression does not shrink.
    let mut random = |chars: usize| -> String {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from_u32(0x4e00 + u32::try_from(state >> 52).unwrap()).unwrap()
        };
        (0..chars).map(|_| next()).collect()
    };
    let value = format!("\"{}\"", random(3_500_000));
    let key = random(10_000);
    let alike = [key.clone() + "a", key.clone() + "b", key.clone()];
    let changes = alike
        .iter()
        .map(|key| put(key, "1"))
        .chain([put("big", &value)]);
    pen.write(&postgres, &map, changes.collect()).await.unwrap();
    assert!(text(&one(&postgres, &map, "big").await.unwrap()) == value);
    assert_eq!(all(&postgres, &map).await.len(), 4);
    let after = |key: &str| Wanted::page(Some(Arc::from(key)), 1);
    for (before, expected) in [(&*key, &alike[0]), (&alike[0], &alike[1]), ("big", &key)] {
        let page = load(&postgres, &map, after(before)).await.unwrap();
        assert!(page.len() == 1 && *page[0].key == **expected);
    }
    assert!(
        load(&postgres, &map, after(&alike[1]))
            .await
            .unwrap()
            .is_empty()
    );
    pen.write(&postgres, &map, vec![Change::delete(&*key)])
        .await
        .unwrap();
    assert_eq!(one(&postgres, &map, &key).await, None);
}

/// The cost of a page depends on its own size.
#[tokio::test]
async fn a_load_of_a_page_or_of_keys_uses_the_index() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let rows = (0..20_000).map(|n| put(&format!("{n:05}"), "1")).collect();
    pen.write(&postgres, &map, rows).await.unwrap();
    other.run("ANALYZE map_m");
    for sql in [
        "SELECT * FROM map_m AS t WHERE t.key > '10000' ORDER BY t.key LIMIT 10",
        "SELECT * FROM map_m AS t WHERE t.key = ANY(ARRAY['10000', '10001'])",
    ] {
        let plan = other.run(&format!("EXPLAIN {sql}"));
        let plan: Vec<_> = plan.iter().map(|row| row[0].clone().unwrap()).collect();
        assert!(plan.join("\n").contains("map_m_pkey"), "{plan:#?}");
    }
    let page = load(&postgres, &map, Wanted::page(Some("10000".into()), 10))
        .await
        .unwrap();
    assert_eq!(page.len(), 10);
    assert_eq!(*page[0].key, *"10001");
}

/// The number of lock requests that are waiting.
fn waiting(other: &Witness) -> String {
    // In a transaction, the statistics would otherwise stay the same.
    other.run("SELECT pg_stat_clear_snapshot()");
    other.text(
        "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
         WHERE NOT l.granted AND a.datname = current_database()",
    )
}

/// Altering a column may rewrite the table. A load that waited for the rewrite, with an older
/// snapshot, found the table empty: the map opened without entries and without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_during_a_table_rewrite_finds_all_rows() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let rows = (0..2_500).map(|n| put(&n.to_string(), "1")).collect();
    pen.write(&postgres, &map, rows).await.unwrap();
    for (wanted, expected) in [
        (Wanted::All, 2_500),
        (Wanted::changed(Revision::ZERO), 2_500),
        (Wanted::page(None, 9), 9),
        (Wanted::Keys(Arc::from([Arc::from("7")])), 1),
    ] {
        other.run(
            "BEGIN; ALTER TABLE map_m ALTER updated_at TYPE timestamptz
                USING updated_at + interval '0'",
        );
        let loading = {
            let (postgres, map) = (postgres.clone(), map.clone());
            let wanted = wanted.clone();
            tokio::spawn(async move { load(&postgres, &map, wanted).await })
        };
        eventually("it waits", || waiting(&other) == "1").await;
        other.run("COMMIT");
        let loaded = loading.await.unwrap().unwrap();
        assert_eq!(loaded.len(), expected, "{wanted:?}");
    }
}

/// A program was killed during a commit, and its successor loaded the state before that commit.
/// Then the commit was applied, and entries that the successor had removed were back at its next
/// start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_waits_for_a_commit_whose_client_is_gone() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let killed = Postgres::connect(&url).await.unwrap();
    pen.put(&killed, &map, "k", "1").await;
    // Blocks the commit on the server.
    other.run("BEGIN; LOCK TABLE map_m IN SHARE MODE");
    let batch = pen.changes(&map, vec![put("k", "2")]);
    let commit = tokio::spawn(async move { killed.commit(&batch).await });
    eventually("a commit on its way", || waiting(&other) == "1").await;
    commit.abort();
    let started = Postgres::connect(&url).await.unwrap();
    let loading = {
        let map = map.clone();
        tokio::spawn(async move { load(&started, &map, Wanted::All).await })
    };
    let is_waiting = || waiting(&other) == "2" || loading.is_finished();
    eventually("it waits", is_waiting).await;
    other.run("COMMIT");
    let loaded = loading.await.unwrap().unwrap();
    assert_eq!(text(&loaded[0]), "2");
}

/// A user that may only read cannot lock the counter, so its loads do not wait.
#[tokio::test]
async fn a_user_that_may_only_read_loads() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let owner = Postgres::connect(&url).await.unwrap();
    pen.put(&owner, &map, "k", "1").await;
    let user = format!("only_reads_{}", pen.id);
    other.run(&format!(
        "CREATE ROLE {user} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}"
    ));
    let (_, server) = url.split_once('@').unwrap();
    let reader = Postgres::connect(format!("postgres://{user}@{server}"));
    let reader = reader.await.unwrap();
    for _ in 0..2 {
        assert_eq!(all(&reader, &map).await.len(), 1);
    }
    drop(reader);
    other.run(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
}

/// The row that lists a map was missing, and the map opened empty although its table had
/// entries.
#[tokio::test]
async fn a_map_that_is_no_longer_listed_is_unusable() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    pen.put(&postgres, &map, "k", "1").await;
    other.run("CREATE TABLE kept AS SELECT * FROM persistify_maps; DELETE FROM persistify_maps");
    let batch = pen.changes(&map, vec![put("k", "2")]);
    for failed in [
        error(load(&postgres, &map, Wanted::All).await),
        error(postgres.commit(&batch).await),
    ] {
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed}");
        assert!(failed.to_string().contains("persistify_maps"), "{failed}");
        assert!(!failed.may_have_applied(), "{failed}");
    }
    assert_eq!(all(&postgres, &name("never there")).await.len(), 0);
    other.run("INSERT INTO persistify_maps OVERRIDING SYSTEM VALUE SELECT * FROM kept");
    postgres.commit(&batch).await.unwrap();
    assert_eq!(text(&all(&postgres, &map).await[0]), "2");
}

/// The type of the value column was altered. The first character of each value was mistaken for
/// the version byte of a `jsonb`, so 12 was loaded as 2.
#[tokio::test]
async fn values_in_an_altered_column_are_loaded_whole() {
    for kind in [ValueType::Jsonb, ValueType::Json] {
        let (url, other) = database();
        let (map, mut pen) = (name("m"), Pen::new());
        let builder = Postgres::builder(&url).value_type(kind);
        let postgres = builder.connect().await.unwrap();
        pen.put(&postgres, &map, "k", "12").await;
        for other_kind in ["json", "text", "jsonb"] {
            other.run(&format!(
                "ALTER TABLE map_m ALTER value TYPE {other_kind} USING value::text::{other_kind}"
            ));
            assert_eq!(text(&all(&postgres, &map).await[0]), "12");
            assert_eq!(text_of(&postgres, &map, "k").await.unwrap(), "12");
            pen.put(&postgres, &map, "l", "34").await;
            assert_eq!(text_of(&postgres, &map, "l").await.unwrap(), "34");
        }
    }
}

/// A load that ends early must fail, because its records are incomplete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_cut_off_fails() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let value = format!("\"{}\"", "x".repeat(2_000));
    let rows = (0..20_000).map(|n| put(&n.to_string(), &value)).collect();
    pen.write(&postgres, &map, rows).await.unwrap();
    for ended in ["pg_terminate_backend", "pg_cancel_backend"] {
        let mut load = postgres.load(&map, Wanted::All).await.unwrap();
        let first = load.pages.try_next().await.unwrap().unwrap();
        assert!(!first.is_empty());
        // Dropping the table waits for its readers.
        let failed = other.try_run("SET lock_timeout = 20; DROP TABLE map_m");
        assert!(failed.is_err());
        other.run(&format!(
            "SELECT {ended}(pid) FROM pg_stat_activity
             WHERE query LIKE 'COPY%' AND datname = current_database()"
        ));
        let failed = loop {
            match load.pages.try_next().await {
                Ok(page) => assert!(page.is_some(), "{ended}"),
                Err(failed) => break failed,
            }
        };
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
        assert_eq!(failed.map(), Some("m"));
        assert_eq!(all(&postgres, &map).await.len(), 20_000);
    }
}
