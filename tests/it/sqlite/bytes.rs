//! Binary values beside JSON.

use persistify::{Encoding, ErrorKind, Expect, Otherwise, Provider};

use super::{
    adopted::{adopt, foreign},
    *,
};

fn bytes(key: &str, bytes: &[u8]) -> Change {
    Change::put(key, Payload::binary(bytes.to_vec()), None)
}

/// The key of each row, and the type of its value.
fn kinds(other: &Connection, table: &str) -> Vec<(String, String)> {
    let sql = format!("SELECT key, typeof(value) FROM {table} ORDER BY key");
    let mut statement = other.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(|row| row.unwrap()).collect()
}

fn payload(record: Option<Record>) -> Payload {
    record.unwrap().value.unwrap()
}

#[tokio::test]
async fn bytes_are_blobs_and_json_is_text_in_the_file() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    let changes = vec![put("json", r#"{"a":1}"#), bytes("like json", b"{\"a\":1}")];
    pen.write(&sqlite, &map, changes).await.unwrap();
    pen.write(&sqlite, &map, vec![bytes("none", b"")])
        .await
        .unwrap();
    let expected = [("json", "text"), ("like json", "blob"), ("none", "blob")];
    let expected = expected.map(|(key, kind)| (key.to_owned(), kind.to_owned()));
    assert_eq!(kinds(&place.other(), "map_m"), expected);

    // Each replaces the other.
    let changes = vec![bytes("json", b"\xff"), put("like json", "1")];
    pen.write(&sqlite, &map, changes).await.unwrap();
    sqlite.close().await.unwrap();
    let sqlite = place.open().await;
    let found = payload(one(&sqlite, &map, "json").await);
    assert_eq!(found, Payload::binary(&b"\xff"[..]));
    let found = payload(one(&sqlite, &map, "like json").await);
    assert_eq!(found, Payload::json("1"));
}

/// JSON that is not UTF-8 was stored as a blob, which would now load as bytes.
#[tokio::test]
async fn json_that_is_not_utf8_is_refused_and_named() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    let wrong = Change::put("wrong", Payload::json(&b"\"\xff\""[..]), None);
    let changes = vec![put("a", "1"), wrong, put("z", "1")];
    let failed = error(pen.write(&sqlite, &map, changes).await);
    assert_eq!(failed.kind(), ErrorKind::Refused);
    assert_eq!(
        (failed.map(), failed.keys()),
        (Some("m"), &["wrong".into()][..])
    );
    assert!(!failed.may_have_applied());
    assert!(all(&sqlite, &map).await.is_empty());
    assert!(sqlite.maps().await.unwrap().is_empty());
}

/// An earlier version stored JSON that is not UTF-8, which no map can read, as a blob.
/// Another program may store such bytes as text.
#[tokio::test]
async fn values_that_are_not_text_load_as_bytes() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    pen.write(&sqlite, &map, vec![put("blob", "1"), put("text", "1")])
        .await
        .unwrap();
    let other = place.other();
    let blob = "UPDATE map_m SET value = x'ff00' WHERE key = 'blob'";
    let text = "UPDATE map_m SET value = CAST(x'ff00' AS TEXT) WHERE key = 'text'";
    other.execute_batch(&format!("{blob}; {text}")).unwrap();
    for key in ["blob", "text"] {
        let found = payload(one(&sqlite, &map, key).await);
        assert_eq!(found, Payload::binary(&b"\xff\0"[..]), "{key}");
    }
}

#[tokio::test]
async fn an_adopted_table_refuses_bytes_with_nothing_written() {
    let (place, other) = foreign("CREATE TABLE t (key TEXT PRIMARY KEY, value BLOB)");
    let (sqlite, own, map) = (adopt(&place).await.unwrap(), name("own"), name("m"));
    let mut pen = Pen::new();
    let batch = pen.batch(vec![
        MapBatch::new(own.clone(), vec![bytes("a", b"1")]),
        MapBatch::new(map.clone(), vec![put("b", "1"), bytes("c", b"1")]),
    ]);
    let failed = error(sqlite.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Unsupported);
    assert_eq!(
        (failed.map(), failed.keys()),
        (Some("m"), &["c".into()][..])
    );
    assert!(!failed.may_have_applied());
    assert!(all(&sqlite, &own).await.is_empty());
    assert!(kinds(&other, "t").is_empty());
}

#[tokio::test]
async fn blobs_of_an_adopted_table_are_json_unless_they_are_not_text() {
    let (place, _other) = foreign(
        "CREATE TABLE t (key TEXT PRIMARY KEY, value BLOB);
         INSERT INTO t VALUES ('json', CAST('[1]' AS BLOB)), ('bytes', x'ff')",
    );
    let (sqlite, map) = (adopt(&place).await.unwrap(), name("m"));
    let found = payload(one(&sqlite, &map, "json").await);
    assert_eq!(found, Payload::json("[1]"));
    let found = payload(one(&sqlite, &map, "bytes").await);
    assert_eq!(found.encoding, Encoding::Bytes);

    // The answer to the repeated batch returns the found records in the same encodings.
    let skip = |key: &str| put(key, "2").expect(Expect::Absent, Otherwise::Skip);
    let batch = Pen::new().changes(&map, vec![skip("json"), skip("bytes")]);
    let answer = sqlite.commit(&batch).await.unwrap();
    let found = answer
        .skipped
        .iter()
        .map(|left| payload(left.found.clone()));
    let found: Vec<_> = found.map(|payload| payload.encoding).collect();
    assert_eq!(found, [Encoding::Json, Encoding::Bytes]);
    assert_eq!(sqlite.commit(&batch).await.unwrap(), answer);
}
