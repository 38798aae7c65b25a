//! The tables of other programs that can be adopted.

use persistify::ErrorKind;

use super::{
    adopted::{adopt, foreign},
    *,
};

#[tokio::test]
async fn an_adopted_table_may_have_columns_of_every_kind() {
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
    // A row that was not written keeps its type.
    let kind = "SELECT typeof(value) FROM t WHERE key = 'real'";
    assert_eq!(
        other
            .query_row(kind, [], |row| row.get::<_, String>(0))
            .unwrap(),
        "real"
    );
}

#[tokio::test]
async fn a_table_without_a_time_column_and_row_numbers_can_be_adopted() {
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
async fn a_map_stays_in_its_table() {
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
    // The file remembers the adoption, so the builder need not repeat it.
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
