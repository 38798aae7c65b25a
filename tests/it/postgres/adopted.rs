//! Tables of other programs, which go on using them.

use super::*;

const SAMPLE: &str = r#"CREATE TABLE "Sample Table" (id bigserial, "Key" varchar(200) PRIMARY KEY,
    "Value" jsonb NOT NULL, created timestamptz NOT NULL DEFAULT '2001-02-03 04:05:06Z',
    "UpdatedAt" timestamptz DEFAULT now());
    CREATE INDEX ON "Sample Table" (created)"#;

async fn foreign(sql: &str) -> (Database, Witness) {
    let database = Database::fresh();
    let other = database.witness();
    other.execute(sql);
    (database, other)
}

async fn sample(database: &Database) -> Postgres {
    Postgres::builder(database.url())
        .table("sample", "Sample Table")
        .columns("Key", "Value", "UpdatedAt")
        .connect()
        .await
        .unwrap()
}

fn add(other: &Witness, key: &str, value: &str) {
    let sql = format!(r#"INSERT INTO "Sample Table" ("Key", "Value") VALUES ('{key}', '{value}')"#);
    other.execute(sql);
}

fn set(other: &Witness, key: &str, value: &str) {
    let sql = format!(r#"UPDATE "Sample Table" SET "Value" = '{value}' WHERE "Key" = '{key}'"#);
    other.execute(sql);
}

/// All there is to a table: its columns, indexes, constraints and triggers.
fn shape(other: &Witness) -> String {
    let sql = r#"
        SELECT string_agg(line, E'\n' ORDER BY line) FROM (
            SELECT concat(attname, ' ', atttypid, ' ', attnotnull, ' ', attnum) FROM pg_attribute
                WHERE attrelid = '"Sample Table"'::regclass
            UNION SELECT pg_get_indexdef(indexrelid) FROM pg_index
                WHERE indrelid = '"Sample Table"'::regclass
            UNION SELECT pg_get_constraintdef(oid) FROM pg_constraint
                WHERE conrelid = '"Sample Table"'::regclass
            UNION SELECT pg_get_triggerdef(oid) FROM pg_trigger
                WHERE tgrelid = '"Sample Table"'::regclass
        ) AS lines (line)"#;
    other.rows(sql)[0].get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_programs_read_and_write_the_same_table() {
    let (database, other) = foreign(SAMPLE).await;
    add(&other, "apple", r#"{"n": 1}"#);
    let before = shape(&other);
    let (map, mut pen) = (name("sample"), Pen::new());
    let store = sample(&database).await;
    assert_eq!(store.maps().await.unwrap(), std::slice::from_ref(&map));
    let apple = one(&store, &map, "apple").await.unwrap();
    assert_eq!(text(&apple), r#"{"n": 1}"#);
    assert!(apple.revision > Revision::ZERO && apple.updated_at.is_some());

    let batch = pen.changes(&map, vec![put("apple", "2"), put("pear", "3")]);
    store.commit(&batch).await.unwrap();
    let written = batch
        .at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let rows = other.rows(
        r#"SELECT "Key", "Value"::text, id, extract(epoch FROM "UpdatedAt")::bigint,
           extract(year FROM created)::bigint FROM "Sample Table" ORDER BY "Key""#,
    );
    let apple = (
        &rows[0].get::<_, String>(0),
        rows[0].get::<_, String>(1),
        rows[0].get::<_, i64>(2),
    );
    assert_eq!(apple, (&"apple".to_owned(), "2".to_owned(), 1));
    assert_eq!(rows[1].get::<_, String>(0), "pear");
    for row in &rows {
        assert!(
            row.get::<_, i64>(3)
                .abs_diff(i64::try_from(written).unwrap())
                <= 1
        );
        assert_eq!(row.get::<_, i64>(4), 2001);
    }
    pen.write(&store, &map, vec![Change::delete("pear")])
        .await
        .unwrap();
    set(&other, "apple", "5");
    add(&other, "plum", "6");
    store.close().await.unwrap();
    assert_eq!(shape(&other), before);
    let store = sample(&database).await;
    let expected = [("apple".into(), "5".into()), ("plum".into(), "6".into())];
    assert_eq!(pairs(&all(&store, &map).await), expected);
}

/// What the other program does gets revisions of its own, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_program_writes_gets_a_new_revision() {
    let (database, other) = foreign(SAMPLE).await;
    let (map, mut pen) = (name("sample"), Pen::new());
    let store = sample(&database).await;
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let expiring = |key: &str| Change::put(key, Payload::json("1").with_schema(3), Some(end));
    let changes = vec![expiring("changed"), expiring("gone"), expiring("same")];
    let first = pen
        .write(&store, &map, changes)
        .await
        .unwrap()
        .revision
        .unwrap();
    set(&other, "changed", "2");
    set(&other, "same", "1");
    other.execute(r#"DELETE FROM "Sample Table" WHERE "Key" = 'gone'"#);
    add(&other, "added", "3");
    let mut records = load(&store, &map, Wanted::changed(first)).await.unwrap();
    records.retain(|record| record.value.is_some());
    records.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [("added".into(), "3".into()), ("changed".into(), "2".into())];
    assert_eq!(pairs(&records), expected);
    for record in &records {
        assert!(record.revision > first);
        // A value of its own, not ours: nothing of ours sticks to it.
        assert_eq!(record.expires_at, None);
        assert_eq!(record.value.as_ref().unwrap().schema, 0);
    }
    let same = one(&store, &map, "same").await.unwrap();
    assert_eq!((same.revision, same.expires_at), (first, Some(end)));
    assert_eq!(same.value.unwrap().schema, 3);
    let again = sample(&database).await;
    let mut reopened = load(&again, &map, Wanted::changed(first)).await.unwrap();
    reopened.retain(|record| record.value.is_some());
    reopened.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(reopened, records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_notice_the_other_program() {
    let (database, other) = foreign(SAMPLE).await;
    let (map, mut pen) = (name("sample"), Pen::new());
    let store = sample(&database).await;
    let first = pen.put(&store, &map, "k", "1").await;
    set(&other, "k", "2");
    let at = |revision| vec![put("k", "3").expect(Expect::At(revision), Otherwise::Fail)];
    let conflict = error(pen.write(&store, &map, at(first)).await);
    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{conflict:?}");
    let found = conflict.found().unwrap().clone();
    assert_eq!(text(&found), "2");
    assert!(found.revision > first);
    pen.write(&store, &map, at(found.revision)).await.unwrap();
    add(&other, "theirs", "1");
    let absent = vec![put("theirs", "2").expect(Expect::Absent, Otherwise::Skip)];
    let answer = pen.write(&store, &map, absent).await.unwrap();
    assert_eq!(answer.skipped.len(), 1);
    other.execute(r#"DELETE FROM "Sample Table" WHERE "Key" = 'k'"#);
    let present = vec![put("k", "4").expect(Expect::Present, Otherwise::Fail)];
    let conflict = error(pen.write(&store, &map, present).await);
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert_eq!(conflict.found(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_many_shapes_are_accepted() {
    for columns in [
        "key text PRIMARY KEY, value text, updated_at timestamptz",
        "key text PRIMARY KEY, value json",
        "key text UNIQUE, value jsonb, updated_at timestamp",
        "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key varchar NOT NULL, value jsonb, UNIQUE (key)",
        "key text COLLATE \"C\" PRIMARY KEY, value varchar, updated_at timestamptz NOT NULL",
        "key text PRIMARY KEY, value jsonb NOT NULL, other text NOT NULL DEFAULT 'x', twice text GENERATED ALWAYS AS (key || key) STORED",
    ] {
        let (database, other) = foreign(&format!("CREATE TABLE t ({columns})")).await;
        let connect = || {
            Postgres::builder(database.url())
                .table("map", "t")
                .connect()
        };
        let store = connect()
            .await
            .unwrap_or_else(|failed| panic!("{columns}: {failed:?}"));
        let (map, mut pen) = (name("map"), Pen::new());
        let changes = vec![
            put("b", "{\"n\": 1}"),
            put("a", "2"),
            put("é", "3"),
            put("B", "4"),
        ];
        pen.write(&store, &map, changes).await.unwrap();
        pen.write(&store, &map, vec![Change::delete("a"), put("b", "5")])
            .await
            .unwrap();
        assert_eq!(other.number("SELECT count(*) FROM t"), 3);
        let page = load(&connect().await.unwrap(), &map, Wanted::page(None, 2))
            .await
            .unwrap();
        assert_eq!(
            pairs(&page),
            [("B".into(), "4".into()), ("b".into(), "5".into())],
            "{columns}"
        );
        let clear = pen.batch(vec![MapBatch::new(map.clone(), vec![]).clearing(true)]);
        store.commit(&clear).await.unwrap();
        assert_eq!(other.number("SELECT count(*) FROM t"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_cannot_hold_a_map_are_refused_with_the_reason() {
    let cases = [
        ("CREATE TABLE u (key text)", ErrorKind::Unusable, "missing"),
        ("CREATE TABLE t (value jsonb)", ErrorKind::Unusable, "\"key\""),
        ("CREATE TABLE t (key text PRIMARY KEY)", ErrorKind::Unusable, "\"value\""),
        ("CREATE TABLE t (key int PRIMARY KEY, value jsonb)", ErrorKind::Invalid, "\"key\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value int)", ErrorKind::Invalid, "\"value\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value bytea)", ErrorKind::Invalid, "\"value\""),
        ("CREATE TABLE t (key text, value jsonb)", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text, x int, value jsonb, UNIQUE (key, x))", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text, value jsonb); CREATE UNIQUE INDEX ON t (key) WHERE key > 'a'", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text, value jsonb); CREATE UNIQUE INDEX ON t (lower(key))", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text UNIQUE DEFERRABLE, value jsonb)", ErrorKind::Invalid, "unique"),
        ("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
          CREATE TABLE t (key text COLLATE ci PRIMARY KEY, value jsonb)", ErrorKind::Invalid, "byte"),
        ("CREATE TABLE t (key text PRIMARY KEY, value jsonb, other text NOT NULL)", ErrorKind::Invalid, "\"other\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value text GENERATED ALWAYS AS ('1') STORED)", ErrorKind::Invalid, "\"value\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value jsonb, updated_at boolean)", ErrorKind::Invalid, "\"updated_at\""),
        ("CREATE VIEW t AS SELECT 'a'::text AS key, '1'::jsonb AS value", ErrorKind::Invalid, "\"t\""),
    ];
    for (sql, kind, reason) in cases {
        let (database, _other) = foreign(sql).await;
        let builder = Postgres::builder(database.url()).table("map", "t");
        let failed = match builder.connect().await {
            Err(failed) => failed,
            Ok(store) => error(
                Pen::new()
                    .write(&store, &name("map"), vec![put("k", "1")])
                    .await,
            ),
        };
        assert_eq!(failed.kind(), kind, "{sql}: {failed:?}");
        assert!(failed.to_string().contains(reason), "{sql}: {failed}");
        assert!(failed.to_string().contains('t'), "{failed}");
    }
}
