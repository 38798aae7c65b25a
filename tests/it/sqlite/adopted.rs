//! Tables of other programs, which continue to use them.

use persistify::{ErrorKind, Expect, Otherwise, Provider};
use rusqlite::types::Value;

use super::*;

const SAMPLE: &str = r#"CREATE TABLE "SampleTable" ("Key" TEXT PRIMARY KEY, "Value" TEXT NOT NULL,
    CreatedAt DATETIME DEFAULT CURRENT_TIMESTAMP, UpdatedAt DATETIME DEFAULT CURRENT_TIMESTAMP)"#;

/// A file created by another program, and that program's connection.
pub(super) fn foreign(sql: &str) -> (Place, Connection) {
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

pub(super) async fn adopt(place: &Place) -> Result<Sqlite> {
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

/// Each write of the other program gets one revision.
#[tokio::test]
async fn a_row_that_the_other_program_writes_gets_a_new_revision() {
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
    let load = sqlite.load(&map, Wanted::All).await.unwrap();
    let horizon = load.horizon;
    let mut records = load.into_records().await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records.retain(|record| record.revision > first);
    assert_eq!(
        pairs(&records),
        [("added".into(), "3".into()), ("changed".into(), "2".into())]
    );
    for record in &records {
        assert!(record.revision > first && record.revision <= horizon);
        // The value is new, so the expiry and schema of the old one do not apply.
        assert_eq!(record.expires_at, None);
        assert_eq!(record.value.as_ref().unwrap().schema, 0);
    }
    let same = one(&sqlite, &map, "same").await.unwrap();
    assert_eq!((same.revision, same.expires_at), (first, Some(end)));
    assert_eq!(same.value.unwrap().schema, 3);
    let again = sqlite.load(&map, Wanted::All).await.unwrap();
    assert_eq!(again.horizon, horizon);

    let count = "SELECT count(*) FROM persistify_of_sample WHERE key = 'gone'";
    assert_eq!(
        other
            .query_row(count, [], |row| row.get::<_, i64>(0))
            .unwrap(),
        0
    );
    // A reopen keeps the revisions.
    sqlite.close().await.unwrap();
    let sqlite = sample(&place).await;
    let mut reopened = all(&sqlite, &map).await;
    reopened.retain(|record| record.revision > first);
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

    // The reported revision remains valid after a reopen.
    sqlite.close().await.unwrap();
    let sqlite = sample(&place).await;
    let third = pen
        .write(&sqlite, &map, at(found.revision, "3"))
        .await
        .unwrap();
    assert!(third.revision.unwrap() > found.revision);

    // In an applied batch, a skipped change reports a record with a revision below the
    // batch's own.
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
async fn touches_clears_and_partial_loads_of_an_adopted_table_work_as_in_an_own_one() {
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

/// The other program writes continuously. Each load is one consistent state, in which all rows
/// have a revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_while_the_other_program_writes_are_one_state_each() {
    let (place, other) = foreign(SAMPLE);
    let map = name("sample");
    let sqlite = sample(&place).await;
    let writing = std::thread::spawn(move || {
        other.busy_timeout(Duration::from_secs(30)).unwrap();
        for n in 0..200 {
            // Two rows that always have equal values.
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
