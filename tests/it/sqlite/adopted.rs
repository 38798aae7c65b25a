//! Tables of other programs, which go on using them.

use persistify::{ErrorKind, Expect, Otherwise, Provider};
use rusqlite::types::Value;

use super::*;

const SAMPLE: &str = r#"CREATE TABLE "SampleTable" ("Key" TEXT PRIMARY KEY, "Value" TEXT NOT NULL,
    CreatedAt DATETIME DEFAULT CURRENT_TIMESTAMP, UpdatedAt DATETIME DEFAULT CURRENT_TIMESTAMP)"#;

/// A file of another program, and its connection.
fn foreign(sql: &str) -> (Place, Connection) {
    let place = Place::new();
    let other = place.other();
    other.execute_batch(sql).unwrap();
    (place, other)
}

async fn sample(place: &Place) -> Sqlite {
    Sqlite::builder(place.path())
        .table("sample", "SampleTable")
        .columns("Key", "Value", "UpdatedAt")
        .open()
        .await
        .unwrap()
}

async fn adopt(place: &Place) -> Result<Sqlite> {
    Sqlite::builder(place.path()).table("m", "t").open().await
}

fn add(other: &Connection, key: &str, value: &str) {
    other
        .execute(
            r#"INSERT INTO SampleTable ("Key", "Value") VALUES (?1, ?2)"#,
            (key, value),
        )
        .unwrap();
}

fn set(other: &Connection, key: &str, value: &str) {
    let sql = r#"UPDATE SampleTable SET "Value" = ?2 WHERE "Key" = ?1"#;
    assert_eq!(other.execute(sql, (key, value)).unwrap(), 1);
}

fn cell(other: &Connection, column: &str, key: &str) -> Value {
    let sql = format!("SELECT {column} FROM SampleTable WHERE \"Key\" = ?1");
    other.query_row(&sql, [key], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn both_programs_read_and_write_the_same_table() {
    let (place, other) = foreign(SAMPLE);
    add(&other, "apple", r#"{"n": 1}"#);
    other
        .execute_batch("UPDATE SampleTable SET CreatedAt = '2001-02-03 04:05:06'")
        .unwrap();
    let schema = "SELECT group_concat(sql, ';') FROM sqlite_schema
        WHERE tbl_name = 'SampleTable' OR type IN ('trigger', 'view')";
    let schema_of =
        |other: &Connection| -> String { other.query_row(schema, [], |row| row.get(0)).unwrap() };
    let before = schema_of(&other);
    let (map, mut pen) = (name("sample"), Pen::new());
    let sqlite = sample(&place).await;
    assert_eq!(sqlite.maps().await.unwrap(), std::slice::from_ref(&map));

    let apple = one(&sqlite, &map, "apple").await.unwrap();
    assert_eq!(text(&apple), r#"{"n": 1}"#);
    assert!(apple.revision > Revision::ZERO);
    assert!(apple.updated_at.is_some());

    pen.at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
    pen.write(&sqlite, &map, vec![put("apple", "2"), put("pear", "3")])
        .await
        .unwrap();
    assert_eq!(cell(&other, "Value", "apple"), Value::Text("2".into()));
    let time = Value::Text("2023-11-14 22:13:20.007".into());
    assert_eq!(cell(&other, "UpdatedAt", "apple"), time);
    let created = Value::Text("2001-02-03 04:05:06".into());
    assert_eq!(cell(&other, "CreatedAt", "apple"), created);
    assert!(matches!(cell(&other, "CreatedAt", "pear"), Value::Text(_)));
    let records = all(&sqlite, &map).await;
    assert_eq!(
        pairs(&records),
        [("apple".into(), "2".into()), ("pear".into(), "3".into())]
    );
    assert!(
        records
            .iter()
            .all(|record| record.updated_at == Some(pen.at))
    );

    pen.write(&sqlite, &map, vec![Change::delete("pear")])
        .await
        .unwrap();
    set(&other, "apple", "5");
    add(&other, "plum", "6");
    sqlite.close().await.unwrap();
    assert_eq!(schema_of(&other), before);
    let sqlite = sample(&place).await;
    let expected = [("apple".into(), "5".into()), ("plum".into(), "6".into())];
    assert_eq!(pairs(&all(&sqlite, &map).await), expected);
}

/// What the other program does gets revisions of its own, once.
#[tokio::test]
async fn what_the_other_program_writes_gets_a_new_revision() {
    let (place, other) = foreign(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let sqlite = sample(&place).await;
    let end = pen.at + Duration::from_mins(1);
    let expiring = |key: &str| Change::put(key, Payload::json("1").with_schema(3), Some(end));
    let changes = vec![expiring("changed"), expiring("gone"), expiring("same")];
    let first = pen
        .write(&sqlite, &map, changes)
        .await
        .unwrap()
        .revision
        .unwrap();

    set(&other, "changed", "2");
    set(&other, "same", "1");
    other
        .execute_batch("DELETE FROM SampleTable WHERE \"Key\" = 'gone'")
        .unwrap();
    add(&other, "added", "3");
    let load = sqlite.load(&map, Wanted::changed(first)).await.unwrap();
    let horizon = load.horizon;
    let mut records = load.into_records().await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(
        pairs(&records),
        [("added".into(), "3".into()), ("changed".into(), "2".into())]
    );
    for record in &records {
        assert!(record.revision > first && record.revision <= horizon);
        // A value of its own, not ours: nothing of ours sticks to it.
        assert_eq!(record.expires_at, None);
        assert_eq!(record.value.as_ref().unwrap().schema, 0);
    }
    let same = one(&sqlite, &map, "same").await.unwrap();
    assert_eq!((same.revision, same.expires_at), (first, Some(end)));
    assert_eq!(same.value.unwrap().schema, 3);
    let again = sqlite.load(&map, Wanted::changed(horizon)).await.unwrap();
    assert_eq!(again.horizon, horizon);
    assert!(again.into_records().await.unwrap().is_empty());

    let count = "SELECT count(*) FROM persistify_of_sample WHERE key = 'gone'";
    assert_eq!(
        other
            .query_row(count, [], |row| row.get::<_, i64>(0))
            .unwrap(),
        0
    );
    // The same revisions after a reopen.
    sqlite.close().await.unwrap();
    let sqlite = sample(&place).await;
    let reopened = sorted(&sqlite, &map, Wanted::changed(first)).await;
    assert_eq!(reopened, records);
}

#[tokio::test]
async fn conditions_notice_the_other_program() {
    let (place, other) = foreign(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let sqlite = sample(&place).await;
    let first = pen.put(&sqlite, &map, "k", "1").await;
    set(&other, "k", "2");
    let at =
        |revision, value: &str| vec![put("k", value).expect(Expect::At(revision), Otherwise::Fail)];
    let conflict = error(pen.write(&sqlite, &map, at(first, "3")).await);
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    let found = conflict.found().unwrap().clone();
    assert_eq!(text(&found), "2");
    assert!(found.revision > first);
    assert_eq!(one(&sqlite, &map, "k").await.unwrap(), found);

    // The revision that was reported holds, also after a reopen.
    sqlite.close().await.unwrap();
    let sqlite = sample(&place).await;
    let third = pen
        .write(&sqlite, &map, at(found.revision, "3"))
        .await
        .unwrap();
    assert!(third.revision.unwrap() > found.revision);

    // In a batch that is applied, what was skipped is found with a revision
    // below the batch's own.
    add(&other, "theirs", "1");
    let changes = vec![
        put("theirs", "2").expect(Expect::Absent, Otherwise::Skip),
        put("ours", "2").expect(Expect::Absent, Otherwise::Fail),
    ];
    let answer = pen.write(&sqlite, &map, changes).await.unwrap();
    let found = answer.skipped[0].found.clone().unwrap();
    assert!(found.revision < answer.revision.unwrap());
    assert_eq!(one(&sqlite, &map, "theirs").await.unwrap(), found);

    other
        .execute_batch("DELETE FROM SampleTable WHERE \"Key\" = 'ours'")
        .unwrap();
    let changes = vec![put("ours", "3").expect(Expect::Present, Otherwise::Fail)];
    let conflict = error(pen.write(&sqlite, &map, changes).await);
    assert_eq!(conflict.found(), None);
}

#[tokio::test]
async fn touch_clear_and_parts_of_an_adopted_table() {
    let (place, other) = foreign(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let sqlite = sample(&place).await;
    for key in ["b", "a", "d", "c"] {
        add(&other, key, "1");
    }
    let end = pen.at + Duration::from_mins(1);
    let touches = vec![
        Change::touch("a", Some(end)),
        Change::touch("nobody", Some(end)),
    ];
    let moved = pen
        .write(&sqlite, &map, touches)
        .await
        .unwrap()
        .revision
        .unwrap();
    let a = one(&sqlite, &map, "a").await.unwrap();
    assert_eq!(
        (a.revision, a.expires_at, text(&a)),
        (moved, Some(end), "1")
    );
    assert_eq!(one(&sqlite, &map, "nobody").await, None);

    let page = load(&sqlite, &map, Wanted::page(Some("a".into()), 2))
        .await
        .unwrap();
    assert_eq!(
        pairs(&page),
        [("b".into(), "1".into()), ("c".into(), "1".into())]
    );
    assert!(page.iter().all(|record| record.revision > moved));

    let batch = pen.batch(vec![
        MapBatch::new(map.clone(), vec![put("new", "1")]).clearing(true),
    ]);
    sqlite.commit(&batch).await.unwrap();
    assert_eq!(
        pairs(&all(&sqlite, &map).await),
        [("new".into(), "1".into())]
    );
    let count = "SELECT count(*) FROM SampleTable";
    assert_eq!(
        other
            .query_row(count, [], |row| row.get::<_, i64>(0))
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn columns_of_every_kind() {
    let (place, other) = foreign(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, extra TEXT DEFAULT 'e', updated_at INTEGER,
            VALUE, Key TEXT NOT NULL UNIQUE, double AS (Key || Key));
         INSERT INTO t (key, value) VALUES ('int', 5), ('real', 1.0), ('large', 1e300),
            ('null', NULL), ('blob', x'ff00'), ('text', '{\"a\":1}');
         UPDATE t SET extra = 'kept';",
    );
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = adopt(&place).await.unwrap();
    let bytes = async |key: &str| one(&sqlite, &map, key).await.unwrap().value.unwrap().bytes;
    assert_eq!(bytes("int").await, "5");
    assert_eq!(bytes("real").await, "1.0");
    assert_eq!(bytes("large").await, "1e300");
    assert_eq!(bytes("null").await, "null");
    assert_eq!(&bytes("blob").await[..], [0xff, 0x00]);
    assert_eq!(bytes("text").await, r#"{"a":1}"#);

    pen.write(&sqlite, &map, vec![put("int", "6"), put("new", "7")])
        .await
        .unwrap();
    let row = |key: &str| -> (i64, String, String, i64) {
        let sql = "SELECT id, extra, value, updated_at FROM t WHERE key = ?1";
        let cells =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        other.query_row(sql, [key], cells).unwrap()
    };
    let since = pen.at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let millis = i64::try_from(since.as_millis()).unwrap();
    assert_eq!(row("int"), (1, "kept".into(), "6".into(), millis));
    assert_eq!(row("new"), (7, "e".into(), "7".into(), millis));
    // Untouched is untouched.
    let kind = "SELECT typeof(value) FROM t WHERE key = 'real'";
    assert_eq!(
        other
            .query_row(kind, [], |row| row.get::<_, String>(0))
            .unwrap(),
        "real"
    );
}

#[tokio::test]
async fn a_table_without_a_time_and_one_without_row_numbers() {
    let (place, _other) = foreign(
        "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID, STRICT;
         INSERT INTO t VALUES ('k', '1')",
    );
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = adopt(&place).await.unwrap();
    pen.write(&sqlite, &map, vec![put("k", "2"), put("l", "3")])
        .await
        .unwrap();
    let records = all(&sqlite, &map).await;
    assert_eq!(
        pairs(&records),
        [("k".into(), "2".into()), ("l".into(), "3".into())]
    );
    assert!(records.iter().all(|record| record.updated_at.is_none()));
}

#[tokio::test]
async fn tables_that_cannot_hold_a_map_are_refused_with_the_reason() {
    let cases = [
        ("CREATE TABLE u (key)", ErrorKind::Unusable, "missing"),
        ("CREATE TABLE t (value)", ErrorKind::Unusable, "\"key\""),
        (
            "CREATE TABLE t (key TEXT PRIMARY KEY, v)",
            ErrorKind::Unusable,
            "\"value\"",
        ),
        (
            "CREATE TABLE t (key TEXT, value TEXT)",
            ErrorKind::Invalid,
            "unique",
        ),
        (
            "CREATE TABLE t (key TEXT, k2 TEXT, value TEXT, PRIMARY KEY (key, k2))",
            ErrorKind::Invalid,
            "unique",
        ),
        (
            "CREATE TABLE t (key TEXT PRIMARY KEY COLLATE NOCASE, value TEXT)",
            ErrorKind::Invalid,
            "byte by byte",
        ),
        (
            "CREATE TABLE t (key TEXT, value TEXT); CREATE UNIQUE INDEX i ON t (key) WHERE value > 1",
            ErrorKind::Invalid,
            "unique",
        ),
        (
            "CREATE TABLE t (key INTEGER PRIMARY KEY, value TEXT)",
            ErrorKind::Invalid,
            "text",
        ),
        (
            "CREATE TABLE t (key TEXT PRIMARY KEY, value INTEGER)",
            ErrorKind::Invalid,
            "text",
        ),
        (
            "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT, owner TEXT NOT NULL)",
            ErrorKind::Invalid,
            "\"owner\"",
        ),
        (
            "CREATE TABLE u (key TEXT PRIMARY KEY, value); CREATE VIEW t AS SELECT * FROM u",
            ErrorKind::Invalid,
            "view",
        ),
        (
            "CREATE VIRTUAL TABLE t USING fts5 (key, value)",
            ErrorKind::Invalid,
            "virtual",
        ),
        (
            "CREATE TABLE t (key TEXT PRIMARY KEY, v TEXT, value TEXT AS (v))",
            ErrorKind::Invalid,
            "generated",
        ),
    ];
    for (sql, kind, reason) in cases {
        let (place, _other) = foreign(sql);
        let failed = error(adopt(&place).await);
        assert_eq!(failed.kind(), kind, "{sql}: {failed}");
        assert!(failed.to_string().contains(reason), "{sql}: {failed}");
        assert_eq!(failed.map(), Some("m"));
    }
}

#[tokio::test]
async fn a_map_stays_where_it_is_kept() {
    let (place, _other) = foreign(
        "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT);
         CREATE TABLE u (key TEXT PRIMARY KEY, value TEXT)",
    );
    let (own, mut pen) = (name("own"), Pen::new());
    adopt(&place).await.unwrap().close().await.unwrap();
    let builder = || Sqlite::builder(place.path());
    for builder in [builder().table("m", "u"), builder().table("n", "T")] {
        assert_eq!(error(builder.open().await).kind(), ErrorKind::Invalid);
    }
    // Known from before, without being told again.
    let sqlite = place.open().await;
    pen.put(&sqlite, &name("m"), "k", "1").await;
    pen.put(&sqlite, &own, "k", "2").await;
    let sql = "SELECT value FROM t WHERE key = 'k'";
    assert_eq!(
        place
            .other()
            .query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap(),
        "1"
    );
    sqlite.close().await.unwrap();
    for builder in [builder().table("own", "u"), builder().table("z", "map_own")] {
        assert_eq!(error(builder.open().await).kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn an_adopted_table_that_goes_missing_is_unusable_until_it_is_back() {
    let (place, other) = foreign(SAMPLE);
    let (map, mut pen) = (name("sample"), Pen::new());
    let sqlite = sample(&place).await;
    other
        .execute_batch("ALTER TABLE SampleTable RENAME TO Other")
        .unwrap();
    let batch = pen.changes(&map, vec![put("k", "1")]);
    assert_eq!(
        error(sqlite.commit(&batch).await).kind(),
        ErrorKind::Unusable
    );
    let failed = error(load(&sqlite, &map, Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    other
        .execute_batch("ALTER TABLE Other RENAME TO SampleTable")
        .unwrap();
    sqlite.commit(&batch).await.unwrap();
    assert_eq!(pairs(&all(&sqlite, &map).await), [("k".into(), "1".into())]);
}

/// The other program writes all the time: each load is one state, in which all
/// rows have a revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_while_the_other_program_writes() {
    let (place, other) = foreign(SAMPLE);
    let map = name("sample");
    let sqlite = sample(&place).await;
    let writing = std::thread::spawn(move || {
        other.busy_timeout(Duration::from_secs(30)).unwrap();
        for n in 0..200 {
            // Two rows that always say the same.
            other
                .execute(
                    r#"INSERT OR REPLACE INTO SampleTable ("Key", "Value") VALUES ('a', ?1), ('b', ?1)"#,
                    [n.to_string()],
                )
                .unwrap();
        }
    });
    let mut last = Revision::ZERO;
    while !writing.is_finished() {
        let load = sqlite.load(&map, Wanted::All).await.unwrap();
        assert!(load.horizon >= last);
        last = load.horizon;
        let records = load.into_records().await.unwrap();
        assert!(
            records
                .windows(2)
                .all(|pair| text(&pair[0]) == text(&pair[1]))
        );
        assert!(
            records
                .iter()
                .all(|record| record.revision > Revision::ZERO)
        );
    }
    writing.join().unwrap();
}
