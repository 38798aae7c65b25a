//! Tables of other programs, which continue to use them.

use persistify::{ErrorKind, Expect, Otherwise};

use super::*;

const SAMPLE: &str = r#"CREATE TABLE "SampleTable" ("Key" varchar(200) PRIMARY KEY, "Value" jsonb NOT NULL,
    "CreatedAt" timestamptz DEFAULT now(), "UpdatedAt" timestamp)"#;

async fn sample(url: &str) -> Postgres {
    Postgres::builder(url)
        .table("sample", "SampleTable")
        .columns("Key", "Value", "UpdatedAt")
        .connect()
        .await
        .unwrap()
}

async fn adopt(url: &str) -> Result<Postgres> {
    Postgres::builder(url).table("m", "t").connect().await
}

fn add(other: &Witness, key: &str, value: &str) {
    other.run(&format!(
        r#"INSERT INTO "SampleTable" ("Key", "Value") VALUES ('{key}', '{value}')"#
    ));
}

fn set(other: &Witness, key: &str, value: &str) {
    other.run(&format!(
        r#"UPDATE "SampleTable" SET "Value" = '{value}' WHERE "Key" = '{key}'"#
    ));
}

fn remove(other: &Witness, key: &str) {
    other.run(&format!(
        r#"DELETE FROM "SampleTable" WHERE "Key" = '{key}'"#
    ));
}

fn cell(other: &Witness, column: &str, key: &str) -> Option<String> {
    other.cell(&format!(
        r#"SELECT "{column}" FROM "SampleTable" WHERE "Key" = '{key}'"#
    ))
}

/// Everything in the system catalog about the table.
fn shape(other: &Witness) -> Vec<Vec<Option<String>>> {
    other.run(
        r#"SELECT attname, atttypid, attnotnull, NULL FROM pg_attribute WHERE attrelid = '"SampleTable"'::regclass AND attnum > 0
           UNION ALL SELECT NULL, NULL, NULL, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = '"SampleTable"'::regclass
           UNION ALL SELECT NULL, NULL, NULL, tgname FROM pg_trigger WHERE tgrelid = '"SampleTable"'::regclass"#,
    )
}

#[tokio::test]
async fn an_adopted_table_is_read_and_written_by_both_programs() {
    let (url, other) = database();
    other.run(SAMPLE);
    add(&other, "apple", r#"{"n": 1}"#);
    other.run(r#"UPDATE "SampleTable" SET "CreatedAt" = '2001-02-03 04:05:06Z'"#);
    let before = shape(&other);
    let (map, mut pen) = (name("sample"), Pen::new());
    let postgres = sample(&url).await;
    assert_eq!(postgres.maps().await.unwrap(), std::slice::from_ref(&map));
    let apple = one(&postgres, &map, "apple").await.unwrap();
    assert_eq!(text(&apple), r#"{"n": 1}"#);
    assert!(apple.revision > Revision::ZERO);

    pen.at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
    let changes = vec![put("apple", "2"), put("pear", "3")];
    pen.write(&postgres, &map, changes).await.unwrap();
    assert_eq!(cell(&other, "Value", "apple").unwrap(), "2");
    let time = "2023-11-14 22:13:20.007";
    assert_eq!(cell(&other, "UpdatedAt", "apple").unwrap(), time);
    let created = cell(&other, "CreatedAt", "apple").unwrap();
    assert!(created.starts_with("2001-02-03"), "{created}");
    assert!(cell(&other, "CreatedAt", "pear").is_some());
    let records = all(&postgres, &map).await;
    let expected = [("apple".into(), "2".into()), ("pear".into(), "3".into())];
    assert_eq!(pairs(&records), expected);
    assert!(records.iter().all(|r| r.updated_at == Some(pen.at)));

    let gone = vec![Change::delete("pear")];
    pen.write(&postgres, &map, gone).await.unwrap();
    set(&other, "apple", "5");
    add(&other, "plum", "6");
    postgres.close().await.unwrap();
    assert_eq!(shape(&other), before);
    let postgres = sample(&url).await;
    let expected = [("apple".into(), "5".into()), ("plum".into(), "6".into())];
    assert_eq!(pairs(&all(&postgres, &map).await), expected);
}

/// Each write of another program gets one new revision.
#[tokio::test]
async fn a_write_of_another_program_gets_a_revision_of_its_own() {
    let (url, other) = database();
    other.run(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let postgres = sample(&url).await;
    let end = pen.at + Duration::from_mins(1);
    let expiring = |key: &str| Change::put(key, Payload::json("1").with_schema(3), Some(end));
    let changes = vec![expiring("changed"), expiring("gone"), expiring("same")];
    let first = pen.write(&postgres, &map, changes).await.unwrap();
    let first = first.revision.unwrap();

    set(&other, "changed", "2");
    set(&other, "same", "1");
    remove(&other, "gone");
    add(&other, "added", "3");
    let load = postgres.load(&map, Wanted::All).await.unwrap();
    let horizon = load.horizon;
    let is_new = |record: &Record| record.revision > first;
    let mut records = load.into_records().await.unwrap();
    records.retain(is_new);
    records.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [("added".into(), "3".into()), ("changed".into(), "2".into())];
    assert_eq!(pairs(&records), expected);
    for record in &records {
        assert!(record.revision > first && record.revision <= horizon);
        // The value is new, so the expiry and schema of the old one do not apply.
        assert_eq!(record.expires_at, None);
        assert_eq!(record.value.as_ref().unwrap().schema, 0);
    }
    let same = one(&postgres, &map, "same").await.unwrap();
    assert_eq!((same.revision, same.expires_at), (first, Some(end)));
    assert_eq!(same.value.unwrap().schema, 3);
    let again = postgres.load(&map, Wanted::All).await.unwrap();
    assert_eq!(again.horizon, horizon);
    let count = "SELECT count(*) FROM persistify_of_sample WHERE key = 'gone'";
    assert_eq!(other.text(count), "0");

    postgres.close().await.unwrap();
    let postgres = sample(&url).await;
    let mut reopened = all(&postgres, &map).await;
    reopened.retain(is_new);
    assert_eq!(reopened, records);
}

#[tokio::test]
async fn a_condition_on_an_adopted_table_sees_writes_of_another_program() {
    let (url, other) = database();
    other.run(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let postgres = sample(&url).await;
    let first = pen.put(&postgres, &map, "k", "1").await;
    set(&other, "k", "2");
    let at =
        |revision, value: &str| vec![put("k", value).expect(Expect::At(revision), Otherwise::Fail)];
    let conflict = error(pen.write(&postgres, &map, at(first, "3")).await);
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    let found = conflict.found().unwrap().clone();
    assert_eq!(text(&found), "2");
    assert!(found.revision > first);
    assert_eq!(one(&postgres, &map, "k").await.unwrap(), found);

    // The reported revision remains valid.
    let third = pen.write(&postgres, &map, at(found.revision, "3")).await;
    assert!(third.unwrap().revision.unwrap() > found.revision);

    // In an applied batch, a skipped change reports a record with a revision
    // below the batch's own.
    add(&other, "theirs", "1");
    let changes = vec![
        put("theirs", "2").expect(Expect::Absent, Otherwise::Skip),
        put("ours", "2").expect(Expect::Absent, Otherwise::Fail),
    ];
    let answer = pen.write(&postgres, &map, changes).await.unwrap();
    let found = answer.skipped[0].found.clone().unwrap();
    assert!(found.revision < answer.revision.unwrap());
    assert_eq!(one(&postgres, &map, "theirs").await.unwrap(), found);
    remove(&other, "ours");
    let changes = vec![put("ours", "3").expect(Expect::Present, Otherwise::Fail)];
    let conflict = error(pen.write(&postgres, &map, changes).await);
    assert_eq!(conflict.found(), None);
}

#[tokio::test]
async fn an_adopted_table_is_touched_cleared_and_loaded_in_parts() {
    let (url, other) = database();
    other.run(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let postgres = sample(&url).await;
    for key in ["b", "a", "d", "c"] {
        add(&other, key, "1");
    }
    let end = pen.at + Duration::from_mins(1);
    let touches = ["a", "nobody"].map(|key| Change::touch(key, Some(end)));
    let moved = pen.write(&postgres, &map, touches.into()).await.unwrap();
    let moved = moved.revision.unwrap();
    let a = one(&postgres, &map, "a").await.unwrap();
    assert_eq!((a.revision, a.expires_at), (moved, Some(end)));
    assert_eq!(text(&a), "1");
    assert_eq!(one(&postgres, &map, "nobody").await, None);

    let page = Wanted::page(Some("a".into()), 2);
    let page = load(&postgres, &map, page).await.unwrap();
    let expected = [("b".into(), "1".into()), ("c".into(), "1".into())];
    assert_eq!(pairs(&page), expected);
    assert!(page.iter().all(|record| record.revision > moved));

    let part = MapBatch::new(map.clone(), vec![put("new", "1")]).clearing(true);
    postgres.commit(&pen.batch(vec![part])).await.unwrap();
    let expected = [("new".into(), "1".into())];
    assert_eq!(pairs(&all(&postgres, &map).await), expected);
    assert_eq!(other.text(r#"SELECT count(*) FROM "SampleTable""#), "1");
}

/// A table in another schema, with columns of other types, additional columns, and a trigger
/// that changes the written values.
#[tokio::test]
async fn an_adopted_table_may_have_columns_of_every_kind() {
    let (url, other) = database();
    other.run(
        "CREATE SCHEMA sales;
         CREATE TABLE sales.t (id serial, extra text DEFAULT 'e', at bigint, v text,
            k text COLLATE \"en-x-icu\" NOT NULL UNIQUE, twice text GENERATED ALWAYS AS (k || k) STORED);
         CREATE TABLE plain (k varchar PRIMARY KEY, v json);
         CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN new.v = upper(new.v); RETURN new; END';
         CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON sales.t FOR EACH ROW EXECUTE FUNCTION shout();
         INSERT INTO sales.t (k, v) VALUES ('null', NULL), ('text', '[1]');
         UPDATE sales.t SET extra = 'kept'",
    );
    let (map, plain, mut pen) = (name("m"), name("plain"), Pen::new());
    let postgres = Postgres::builder(&url)
        .schema("persistify")
        .table("m", "sales.t")
        .table("plain", "public.plain")
        .columns("k", "v", "at")
        .connect()
        .await
        .unwrap();
    let expected = [
        ("null".into(), "null".into()),
        ("text".into(), "[1]".into()),
    ];
    assert_eq!(pairs(&all(&postgres, &map).await), expected);
    let written = pen.put(&postgres, &map, "text", "\"a\"").await;
    let found = one(&postgres, &map, "text").await.unwrap();
    assert_eq!((text(&found), found.revision), ("\"A\"", written));
    assert_eq!(found.updated_at, Some(pen.at));
    let since = pen.at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let row = other.run("SELECT extra, at, twice FROM sales.t WHERE k = 'text'");
    let expected = ["kept", &since.as_millis().to_string(), "texttext"];
    assert_eq!(row, [expected.map(|cell| Some(cell.to_owned()))]);

    pen.put(&postgres, &plain, "k", r#"{"b": 1,  "a": "\u0000"}"#)
        .await;
    let found = one(&postgres, &plain, "k").await.unwrap();
    assert_eq!(text(&found), r#"{"b": 1,  "a": "\u0000"}"#);
    assert_eq!(found.updated_at, None);
    let nul = error(
        pen.write(&postgres, &plain, vec![put("\0", "1"), put("a", "1")])
            .await,
    );
    assert_eq!(nul.kind(), ErrorKind::Refused);
    assert_eq!(nul.keys(), ["\0".into()]);
    assert_eq!(one(&postgres, &plain, "\0").await, None);
}

#[tokio::test]
async fn tables_that_cannot_hold_a_map_are_refused_with_the_reason() {
    use ErrorKind::{Invalid, Unusable};
    let (url, other) = database();
    let cases = [
        ("CREATE TABLE u (key text)", Unusable, "missing"),
        ("CREATE TABLE t (value text)", Unusable, "\"key\""),
        ("CREATE TABLE t (key text PRIMARY KEY, v text)", Unusable, "\"value\""),
        ("CREATE TABLE t (key text, value text)", Invalid, "unique"),
        ("CREATE TABLE t (key text, k2 text DEFAULT '', value text, PRIMARY KEY (key, k2))", Invalid, "unique"),
        ("CREATE TABLE t (key text, value text); CREATE UNIQUE INDEX ON t (key) WHERE value > '1'", Invalid, "unique"),
        ("CREATE TABLE t (key text, value text); CREATE UNIQUE INDEX ON t (lower(key))", Invalid, "unique"),
        ("CREATE TABLE t (key text UNIQUE DEFERRABLE, value text)", Invalid, "unique"),
        (
            "CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TABLE t (key text COLLATE anycase PRIMARY KEY, value text)",
            Invalid,
            "byte by byte",
        ),
        ("CREATE TABLE t (key integer PRIMARY KEY, value text)", Invalid, "text"),
        ("CREATE TABLE t (key text PRIMARY KEY, value integer)", Invalid, "JSON"),
        ("CREATE TABLE t (key text PRIMARY KEY, value text, updated_at date)", Invalid, "date"),
        ("CREATE TABLE t (key text PRIMARY KEY, value text, owner text NOT NULL)", Invalid, "\"owner\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value text GENERATED ALWAYS AS (key) STORED)", Invalid, "generated"),
        (
            "CREATE TABLE t (key text PRIMARY KEY, value text, updated_at bigint GENERATED ALWAYS AS (1) STORED)",
            Invalid,
            "generated",
        ),
        ("CREATE VIEW t AS SELECT 'a' AS key, 'b' AS value", Invalid, "view"),
    ];
    for (sql, kind, reason) in cases {
        other.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        other.run(sql);
        let failed = error(adopt(&url).await);
        assert_eq!(failed.kind(), kind, "{sql}: {failed}");
        assert!(failed.to_string().contains(reason), "{sql}: {failed}");
        assert_eq!(failed.map(), Some("m"), "{sql}");
    }
}

#[tokio::test]
async fn a_map_that_exists_is_not_moved_to_an_adopted_table() {
    let (url, other) = database();
    other.run("CREATE TABLE t (key text PRIMARY KEY, value text); CREATE TABLE u (key text PRIMARY KEY, value text)");
    let (own, mut pen) = (name("own"), Pen::new());
    adopt(&url).await.unwrap().close().await.unwrap();
    let builder = || Postgres::builder(&url);
    for builder in [builder().table("m", "u"), builder().table("n", "t")] {
        assert_eq!(error(builder.connect().await).kind(), ErrorKind::Invalid);
    }
    // The database remembers the adoption, so the builder need not repeat it.
    let postgres = Postgres::connect(&url).await.unwrap();
    pen.put(&postgres, &name("m"), "k", "1").await;
    pen.put(&postgres, &own, "k", "2").await;
    assert_eq!(other.text("SELECT value FROM t WHERE key = 'k'"), "1");
    for builder in [builder().table("own", "u"), builder().table("z", "map_own")] {
        assert_eq!(error(builder.connect().await).kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn an_adopted_table_that_goes_missing_is_unusable_until_it_is_back() {
    let (url, other) = database();
    other.run(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let postgres = sample(&url).await;
    other.run(r#"ALTER TABLE "SampleTable" RENAME TO "Other""#);
    let batch = pen.changes(&map, vec![put("k", "1")]);
    let failed = error(postgres.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    assert!(!failed.may_have_applied());
    let failed = error(load(&postgres, &map, Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    other.run(r#"ALTER TABLE "Other" RENAME TO "SampleTable""#);
    postgres.commit(&batch).await.unwrap();
    let expected = [("k".into(), "1".into())];
    assert_eq!(pairs(&all(&postgres, &map).await), expected);
}

/// The other program writes continuously. Each load is one consistent state, in which all rows
/// have a revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_of_an_adopted_table_during_writes_of_another_program_is_complete() {
    let (url, other) = database();
    other.run(SAMPLE);
    let map = name("sample");
    let postgres = sample(&url).await;
    let writing = std::thread::spawn(move || {
        for n in 0..100 {
            // Two rows that are always equal.
            other.run(&format!(
                r#"INSERT INTO "SampleTable" ("Key", "Value") VALUES ('a', '{n}'), ('b', '{n}')
                   ON CONFLICT ("Key") DO UPDATE SET "Value" = excluded."Value""#
            ));
        }
        // Dropping `other` drops the database, so it is returned.
        other
    });
    let mut last = Revision::ZERO;
    while !writing.is_finished() {
        let load = postgres.load(&map, Wanted::All).await.unwrap();
        assert!(load.horizon >= last);
        last = load.horizon;
        let records = load.into_records().await.unwrap();
        let same = |pair: &[Record]| text(&pair[0]) == text(&pair[1]);
        assert!(records.windows(2).all(same));
        assert!(records.iter().all(|r| r.revision > Revision::ZERO));
    }
    let _other = writing.join().unwrap();
    assert_eq!(text(&one(&postgres, &map, "a").await.unwrap()), "99");
}

/// The catalog entry of an adopted table was deleted. Later saves went to a new table of the
/// provider, and the map opened empty.
#[tokio::test]
async fn an_adopted_table_that_is_no_longer_listed_is_unusable() {
    let (url, other) = database();
    other.run(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let postgres = sample(&url).await;
    pen.put(&postgres, &map, "k", "1").await;
    other.run("CREATE TABLE kept AS SELECT * FROM persistify_maps; DELETE FROM persistify_maps");
    let batch = pen.changes(&map, vec![put("k", "2")]);
    for failed in [
        error(postgres.commit(&batch).await),
        error(load(&postgres, &map, Wanted::All).await),
    ] {
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed}");
        assert!(failed.to_string().contains("persistify_maps"), "{failed}");
    }
    other.run("INSERT INTO persistify_maps OVERRIDING SYSTEM VALUE SELECT * FROM kept");
    postgres.commit(&batch).await.unwrap();
    assert_eq!(text(&one(&postgres, &map, "k").await.unwrap()), "2");
}
