//! Another program that writes to its table at the same time, or whose triggers change or skip
//! writes.

use tokio::task::JoinHandle;

use super::*;

async fn adopted(sql: &str) -> (Witness, Postgres, String) {
    let (url, other) = database();
    other.run(sql);
    let postgres = adopt(&url).await.unwrap();
    (other, postgres, url)
}

async fn adopt(url: &str) -> Result<Postgres> {
    Postgres::builder(url).table("m", "t").connect().await
}

const TABLE: &str = "CREATE TABLE t (key text PRIMARY KEY, value jsonb)";

/// Starts a commit and waits until it is blocked by the other program's open transaction.
async fn waiting(
    postgres: &Postgres,
    pen: &mut Pen,
    other: &Witness,
    changes: Vec<Change>,
) -> JoinHandle<Result<Committed>> {
    let batch = pen.changes(&name("m"), changes);
    let postgres = postgres.clone();
    let commit = tokio::spawn(async move { postgres.commit(&batch).await });
    let waits = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while other.text(waits) == "0" {
        assert!(!commit.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    commit
}

/// A condition was checked without a lock on the row. A change that the other program committed
/// between the check and the write was overwritten, and the condition counted as met.
#[tokio::test]
async fn a_condition_waits_for_an_update_of_another_program() {
    let (other, postgres, _) = adopted(TABLE).await;
    let (map, mut pen) = (name("m"), Pen::new());
    let first = pen.put(&postgres, &map, "k", "1").await;
    let ops = [put("k", "7"), Change::delete("k"), Change::touch("k", None)];
    let mut last = first;
    for (n, op) in ops.into_iter().enumerate() {
        other.run(&format!("BEGIN; UPDATE t SET value = '{}'", n + 2));
        let change = op.expect(Expect::At(last), Otherwise::Fail);
        let commit = waiting(&postgres, &mut pen, &other, vec![change]).await;
        other.run("COMMIT");
        let conflict = error(commit.await.unwrap());
        assert_eq!(conflict.kind(), ErrorKind::Conflict, "{conflict}");
        let found = conflict.found().unwrap();
        assert_eq!(text(found), (n + 2).to_string());
        last = found.revision;
    }
    assert_eq!(other.text("SELECT value FROM t"), "4");
}

/// A missing row cannot be locked, so a new row of another program was overwritten.
#[tokio::test]
async fn a_condition_waits_for_an_insert_of_another_program() {
    let (other, postgres, _) = adopted(TABLE).await;
    let (map, mut pen) = (name("m"), Pen::new());
    other.run("BEGIN; INSERT INTO t VALUES ('k', '1')");
    let absent = |change: Change| change.expect(Expect::Absent, Otherwise::Fail);
    let changes = vec![absent(put("k", "2")), put("a", "2"), absent(put("z", "2"))];
    let commit = waiting(&postgres, &mut pen, &other, changes).await;
    other.run("COMMIT");
    let conflict = error(commit.await.unwrap());
    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{conflict}");
    assert_eq!(text(conflict.found().unwrap()), "1");
    assert_eq!(other.text("SELECT value FROM t"), "1");

    // A change that requires an absent entry is skipped, and the rest is applied.
    other.run("BEGIN; INSERT INTO t VALUES ('l', '1')");
    let unless = |key: &str| put(key, "3").expect(Expect::Absent, Otherwise::Skip);
    let changes = vec![unless("l"), unless("m"), put("a", "3")];
    let commit = waiting(&postgres, &mut pen, &other, changes).await;
    other.run("COMMIT");
    let answer = commit.await.unwrap().unwrap();
    assert_eq!(answer.skipped.len(), 1);
    let records = all(&postgres, &map).await;
    let expected = [("a", "3"), ("k", "1"), ("l", "1"), ("m", "3")];
    assert_eq!(pairs(&records), expected.map(|(k, v)| (k.into(), v.into())));
}

/// Violating a constraint other than that of the key is not a race with another program. The
/// change is refused, not retried forever.
#[tokio::test]
async fn a_new_entry_that_breaks_a_rule_is_refused() {
    let (_other, postgres, _) =
        adopted("CREATE TABLE t (key text PRIMARY KEY, value text UNIQUE)").await;
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&postgres, &map, "k", "1").await;
    let change = put("l", "1").expect(Expect::Absent, Otherwise::Fail);
    let refused = error(pen.write(&postgres, &map, vec![change]).await);
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
}

/// One time out of range, such as a `bigint` in a finer unit, made every load of the table
/// fail.
#[tokio::test]
async fn a_time_out_of_range_is_loaded_as_unknown() {
    for (kind, times) in [
        (
            "bigint",
            [
                i64::MAX.to_string(),
                i64::MIN.to_string(),
                "1700000000000000000".into(),
            ],
        ),
        (
            "timestamp",
            ["'infinity'", "'-infinity'", "'294276-12-31 23:59:59'"].map(Into::into),
        ),
        (
            "timestamptz",
            ["'infinity'", "'-infinity'", "'4713-01-01 BC'"].map(Into::into),
        ),
    ] {
        let (other, postgres, _) = adopted(&format!(
            "CREATE TABLE t (key text PRIMARY KEY, value text, updated_at {kind})"
        ))
        .await;
        for (n, time) in times.iter().enumerate() {
            other.run(&format!("INSERT INTO t VALUES ('{n}', '1', {time})"));
        }
        let records = all(&postgres, &name("m")).await;
        assert_eq!(records.len(), 3, "{kind}");
    }
}

/// The two values had the same digest, so a change from one to the other went unnoticed.
#[tokio::test]
async fn a_null_value_and_an_empty_one_are_distinguished() {
    let (other, postgres, _) = adopted("CREATE TABLE t (key text PRIMARY KEY, value text)").await;
    let (map, mut pen) = (name("m"), Pen::new());
    other.run("INSERT INTO t VALUES ('k', NULL)");
    let seen = one(&postgres, &map, "k").await.unwrap();
    other.run("UPDATE t SET value = ''");
    let change = put("k", "1").expect(Expect::At(seen.revision), Otherwise::Fail);
    let conflict = error(pen.write(&postgres, &map, vec![change]).await);
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert_eq!(text(conflict.found().unwrap()), "");
}

/// With a unique index that does not compare byte by byte, a change of one key overwrote the
/// row of another.
#[tokio::test]
async fn a_key_that_an_index_considers_equal_does_not_overwrite_another() {
    let anycase = "CREATE COLLATION anycase
        (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";
    let (url, other) = database();
    other.run(anycase);
    for key in ["text", "text PRIMARY KEY"] {
        other.run(&format!(
            "DROP TABLE IF EXISTS t;
             CREATE TABLE t (key {key}, value text);
             CREATE UNIQUE INDEX ON t (key COLLATE anycase)"
        ));
        let failed = error(adopt(&url).await);
        assert_eq!(failed.kind(), ErrorKind::Invalid, "{failed}");
        assert!(failed.to_string().contains("byte by byte"), "{failed}");
    }
}

/// A trigger silently skipped some changes, such as those of unauthorized users, and the
/// skipped changes counted as saved.
#[tokio::test]
async fn a_change_that_a_trigger_of_an_adopted_table_skips_is_refused() {
    let (other, postgres, _) = adopted(
        "CREATE TABLE t (key varchar(4) PRIMARY KEY, value text);
         CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF new.key LIKE ''no%'' THEN RETURN NULL; END IF; RETURN new; END';
         INSERT INTO t VALUES ('nope', '0');
         CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION guard()",
    )
    .await;
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&postgres, &map, "yes ", "1").await;
    // `varchar(4)` truncates a blank of the last key, which then equals another key.
    for key in ["no", "nope", "yes  "] {
        let refused = pen
            .write(&postgres, &map, vec![put(key, "2"), put("a", "2")])
            .await;
        let refused = error(refused);
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    }
    other.run(
        "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER stay BEFORE DELETE ON t FOR EACH ROW WHEN (old.key = 'nope')
            EXECUTE FUNCTION stay()",
    );
    assert_eq!(all(&postgres, &map).await.len(), 2);
    let refused = error(
        pen.write(&postgres, &map, vec![Change::delete("nope")])
            .await,
    );
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(
        refused.to_string().contains("a trigger or a rule"),
        "{refused}"
    );
    let rows = other.text("SELECT string_agg(key || '=' || value, ',' ORDER BY key) FROM t");
    assert_eq!(rows, "nope=0,yes =1");
}

/// A row without a key makes every load fail. The error did not mention that row.
#[tokio::test]
async fn a_row_without_a_key_is_named() {
    let (other, postgres, _) = adopted("CREATE TABLE t (key text UNIQUE, value text)").await;
    other.run("INSERT INTO t VALUES (NULL, '1'), ('k', '1')");
    let failed = error(load(&postgres, &name("m"), Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Corrupt, "{failed}");
    assert!(failed.to_string().contains("\"key\""), "{failed}");
    assert_eq!(
        one(&postgres, &name("m"), "k").await.unwrap().key,
        "k".into()
    );
    other.run("DELETE FROM t WHERE key IS NULL");
    assert_eq!(all(&postgres, &name("m")).await.len(), 1);
}

/// A foreign key prevented the clear, and the entries put in the same batch were refused one by
/// one, as if they had violated it.
#[tokio::test]
async fn a_clear_that_a_trigger_blocks_blames_no_entry() {
    let (other, postgres, _) = adopted(
        "CREATE TABLE t (key text PRIMARY KEY, value text);
         CREATE TABLE child (of text REFERENCES t (key))",
    )
    .await;
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&postgres, &map, "k", "1").await;
    other.run("INSERT INTO child VALUES ('k')");
    let part = MapBatch::new(map.clone(), vec![put("new", "1")]).clearing(true);
    let batch = pen.batch(vec![part]);
    let failed = error(postgres.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed}");
    assert_eq!(failed.map(), Some("m"));
    other.run("DELETE FROM child");
    postgres.commit(&batch).await.unwrap();
    assert_eq!(other.text("SELECT string_agg(key, ',') FROM t"), "new");
}

async fn increment(map: &PersistentMap<u32>, key: &str) -> Result<()> {
    match map.update_in_store(key, |n| n + 1).await? {
        Some(_) => Ok(()),
        None => map.save_if(key, 1, Expect::Absent).await.map(drop),
    }
}

/// No increment is lost, including the one that inserts the row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_by_two_programs_add_up() {
    for (kind, table) in [
        (
            "text",
            "CREATE TABLE t (key text PRIMARY KEY, value text, updated_at bigint)",
        ),
        (
            "jsonb",
            r#"CREATE TABLE t ("key" varchar(9) COLLATE "en-x-icu" NOT NULL UNIQUE, value jsonb, updated_at timestamptz)
            PARTITION BY HASH (key);
         CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1)"#,
        ),
    ] {
        let (other, postgres, _) = adopted(table).await;
        let map: PersistentMap<u32> = PersistentMap::builder(postgres, "m").open().await.unwrap();
        let theirs = std::thread::spawn(move || {
            for n in 0..200 {
                let key = n % 5;
                other.run(&format!(
                    "INSERT INTO t AS t (key, value) VALUES ('{key}', '1') ON CONFLICT (key)
                     DO UPDATE SET value = (t.value::text::int + 1)::text::{kind}"
                ));
            }
            other
        });
        let mut ours = 0;
        while !theirs.is_finished() || ours < 200 {
            match increment(&map, &(ours % 5).to_string()).await {
                // The other program was faster in every attempt.
                Err(slower) if slower.kind() == ErrorKind::Conflict => {}
                done => {
                    done.unwrap();
                    ours += 1;
                }
            }
        }
        let other = theirs.join().unwrap();
        let sum = other.text("SELECT sum(value::text::int) FROM t");
        assert_eq!(sum, (200 + ours).to_string());
        map.close().await.unwrap();
    }
}

/// Such a page failed to load. No row of this table has a key with a NUL, but one of another
/// store may.
#[tokio::test]
async fn a_page_of_an_adopted_table_after_a_key_with_a_nul_is_complete() {
    let (other, postgres, _) = adopted(TABLE).await;
    other.run(r"INSERT INTO t VALUES ('a', '1'), (E'a\001', '1'), ('b', '1')");
    let keys = async |after: &str| {
        let page = Wanted::page(Some(after.into()), 9);
        let page = load(&postgres, &name("m"), page).await.unwrap();
        page.into_iter()
            .map(|record| record.key.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("a\0z").await, ["a\u{1}", "b"]);
    assert_eq!(keys("\0").await, ["a", "a\u{1}", "b"]);
}

/// In a table of the provider, changes that a trigger skipped counted as saved, and entries whose
/// deletion it prevented were back at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_a_trigger_of_an_own_table_skips_is_refused() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let changes = vec![put("nope", "0"), put("yes", "0"), put("stays", "0")];
    pen.write(&postgres, &map, changes).await.unwrap();
    other.run(
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF new.key LIKE ''no%'' THEN RETURN NULL; END IF; RETURN new; END';
         CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON map_m
            FOR EACH ROW EXECUTE FUNCTION guard();
         CREATE TRIGGER stay BEFORE DELETE ON map_m
            FOR EACH ROW WHEN (old.key = 'stays') EXECUTE FUNCTION stay()",
    );
    for left_out in ["no", "nope", "no"] {
        let refused = pen.write(&postgres, &map, vec![put(left_out, "2")]).await;
        let refused = error(refused);
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        assert!(
            refused.to_string().contains("a trigger or a rule"),
            "{refused}"
        );
    }
    for change in [Change::delete("stays"), put("no", "1")] {
        let refused = pen.write(&postgres, &map, vec![change, put("a", "1")]);
        let refused = error(refused.await);
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    }
    let cleared = MapBatch::new(map.clone(), vec![put("a", "1")]).clearing(true);
    let failed = error(postgres.commit(&pen.batch(vec![cleared])).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed}");
    let rows = || other.text("SELECT string_agg(key || '=' || value, ',' ORDER BY key) FROM map_m");
    assert_eq!(rows(), "nope=0,stays=0,yes=0");
    let opened: PersistentMap<u32> = PersistentMap::builder(postgres, "m").open().await.unwrap();
    opened.insert("no", 3);
    opened.insert("yes", 3);
    let failed = error(opened.flush().await);
    assert_eq!(failed.kind(), ErrorKind::Refused, "{failed}");
    assert_eq!(rows(), "nope=0,stays=0,yes=3");
    // A trigger that changes values but skips no change is accepted.
    other.run(
        "DROP TRIGGER guard ON map_m; DROP TRIGGER stay ON map_m;
         CREATE FUNCTION alter() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN new.value = ''7''; RETURN new; EXCEPTION WHEN others THEN RETURN NULL; END';
         CREATE TRIGGER alter BEFORE INSERT OR UPDATE ON map_m
            FOR EACH ROW EXECUTE FUNCTION alter()",
    );
    opened.retry_refused();
    opened.flush().await.unwrap();
    opened.insert("yes", 4);
    opened.remove_and_save("stays").await.unwrap();
    assert_eq!(rows(), "no=7,nope=0,yes=7");
}

/// A rule can skip changes like a trigger.
#[tokio::test]
async fn a_change_that_a_rule_of_an_own_table_skips_fails() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    pen.put(&postgres, &map, "k", "1").await;
    other.run(
        "CREATE RULE none AS ON INSERT TO map_m DO INSTEAD NOTHING;
         CREATE RULE all_stay AS ON DELETE TO map_m DO INSTEAD NOTHING",
    );
    for change in [
        put("new", "1").likely_new(true),
        put("l", "1"),
        Change::delete("k"),
    ] {
        let failed = pen.write(&postgres, &map, vec![change]).await;
        assert!(failed.is_err());
    }
    assert_eq!(other.text("SELECT string_agg(key, ',') FROM map_m"), "k");
}
