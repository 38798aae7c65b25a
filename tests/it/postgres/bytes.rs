//! Binary values: as another program sees them, and as they load.

use persistify::{Encoding, MapName};

use super::*;

const ALL: [ValueType; 4] = [
    ValueType::Jsonb,
    ValueType::Json,
    ValueType::Text,
    ValueType::Bytea,
];

async fn store(url: &str, values: ValueType) -> Postgres {
    let builder = Postgres::builder(url).value_type(values);
    builder.connect().await.unwrap()
}

fn put_bytes(key: &str, bytes: &[u8]) -> Change {
    Change::put(key, Payload::binary(bytes.to_vec()).with_schema(7), None)
}

fn payload(record: &Record) -> &Payload {
    record.value.as_ref().unwrap()
}

/// The rows of the map `m` as SQL shows them: key, value and schema.
fn rows(other: &Witness) -> Vec<String> {
    let rows = other.run("SELECT key, value, schema FROM map_m ORDER BY key");
    let texts = rows.into_iter().map(|row| {
        let cells: Vec<_> = row.into_iter().map(Option::unwrap).collect();
        cells.join(" | ")
    });
    texts.collect()
}

#[tokio::test]
async fn bytes_in_a_column_of_json_or_text_are_marked_base64() {
    for values in [ValueType::Jsonb, ValueType::Json, ValueType::Text] {
        let (url, other) = database();
        let (postgres, map) = (store(&url, values).await, name("m"));
        let changes = vec![put_bytes("bytes", b"\xff\0"), put("json", "\"/wA=\"")];
        Pen::new().write(&postgres, &map, changes).await.unwrap();
        assert_eq!(
            rows(&other),
            ["bytes | \"/wA=\" | 4294967303", "json | \"/wA=\" | 0"]
        );
        let found = all(&postgres, &map).await;
        assert_eq!(
            *payload(&found[0]),
            Payload::binary(&b"\xff\0"[..]).with_schema(7)
        );
        assert_eq!(*payload(&found[1]), Payload::json("\"/wA=\""));
    }
}

#[tokio::test]
async fn a_column_of_bytea_holds_bytes_and_json_as_they_are() {
    let (url, other) = database();
    let (postgres, map) = (store(&url, ValueType::Bytea).await, name("m"));
    // The second value begins like a `jsonb` in its binary form.
    let changes = vec![
        put_bytes("a", b"\xff\0"),
        put_bytes("b", b"\x01{}"),
        put("json", "{\"b\" : \"\\u0000\"}"),
    ];
    Pen::new().write(&postgres, &map, changes).await.unwrap();
    let json = other.text("SELECT convert_from(value, 'UTF8') FROM map_m WHERE key = 'json'");
    assert_eq!(json, "{\"b\" : \"\\u0000\"}");
    assert_eq!(rows(&other)[0], "a | \\xff00 | 4294967303");
    let found = all(&postgres, &map).await;
    let bytes: Vec<&[u8]> = found.iter().map(|record| &*payload(record).bytes).collect();
    assert_eq!(bytes, [&b"\xff\0"[..], b"\x01{}", json.as_bytes()]);
    // The table keeps its type, regardless of later options.
    let later = Postgres::connect(&url).await.unwrap();
    Pen::new().put(&later, &map, "json", "1").await;
    assert_eq!(text_of(&later, &map, "json").await.unwrap(), "1");
}

/// The column accepts any bytes, but JSON must be UTF-8.
#[tokio::test]
async fn json_that_is_no_text_is_refused_by_a_column_of_bytea() {
    let (url, _other) = database();
    let (postgres, map) = (store(&url, ValueType::Bytea).await, name("m"));
    let bad = Change::put("bad", Payload::json(&b"\"\xff\""[..]), None);
    let changes = vec![put("good", "1"), bad];
    let refused = error(Pen::new().write(&postgres, &map, changes).await);
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
    assert_eq!(refused.keys(), ["bad".into()]);
}

/// Covers commits in a single round trip and with conditions, the record that a condition
/// found, and a repeated answer.
#[tokio::test]
async fn bytes_pass_through_every_kind_of_commit_and_load() {
    for values in ALL {
        let (url, _other) = database();
        let (postgres, map, mut pen) = (store(&url, values).await, name("m"), Pen::new());
        for bytes in [b"\xff1", b"\xff2"] {
            let written = pen
                .write(&postgres, &map, vec![put_bytes("k", bytes)])
                .await;
            written.unwrap();
        }
        let expected = Payload::binary(&b"\xff2"[..]).with_schema(7);
        for wanted in [
            Wanted::All,
            Wanted::Keys([Arc::from("k")].into()),
            Wanted::page(None, 9),
            Wanted::changed(Revision::ZERO),
        ] {
            let found = load(&postgres, &map, wanted).await.unwrap();
            assert_eq!(*payload(&found[0]), expected, "{values:?}");
        }
        let absent = |otherwise| put_bytes("k", b"3").expect(Expect::Absent, otherwise);
        let conflict = pen
            .write(&postgres, &map, vec![absent(Otherwise::Fail)])
            .await;
        assert_eq!(*payload(error(conflict).found().unwrap()), expected);
        let batch = pen.changes(&map, vec![absent(Otherwise::Skip)]);
        let answer = postgres.commit(&batch).await.unwrap();
        assert_eq!(
            *payload(answer.skipped[0].found.as_ref().unwrap()),
            expected
        );
        let again = store(&url, values).await.commit(&batch).await.unwrap();
        assert_eq!(again, answer, "{values:?}");
    }
}

/// Another program replaces the value and leaves the schema column unchanged.
#[tokio::test]
async fn json_in_the_place_of_base64_is_loaded_as_json() {
    let (url, other) = database();
    let (postgres, map) = (store(&url, ValueType::Jsonb).await, name("m"));
    let changes = vec![put_bytes("k", b"1")];
    Pen::new().write(&postgres, &map, changes).await.unwrap();
    other.run("UPDATE map_m SET value = '{\"n\": 1}'");
    let found = all(&postgres, &map).await;
    let expected = Payload::json("{\"n\": 1}").with_schema(7);
    assert_eq!(*payload(&found[0]), expected);
}

async fn refused(postgres: &Postgres, map: &MapName, changes: Vec<Change>) {
    let failed = error(Pen::new().write(postgres, map, changes).await);
    assert_eq!(failed.kind(), ErrorKind::Unsupported, "{failed:?}");
    assert_eq!(
        (failed.map(), failed.keys()),
        (Some("m"), &["k".into()][..])
    );
    assert!(!failed.may_have_applied());
}

#[tokio::test]
async fn bytes_for_an_adopted_table_are_unsupported_before_anything_is_written() {
    for values in ["jsonb", "text"] {
        let (url, other) = database();
        other.run(&format!(
            "CREATE TABLE t (key text PRIMARY KEY, value {values})"
        ));
        let builder = Postgres::builder(&url).table("m", "t");
        let (adopting, map) = (builder.connect().await.unwrap(), name("m"));
        let changes = || vec![put("a", "1"), put_bytes("k", b"1")];
        refused(&adopting, &map, changes()).await;
        // A process that does not know of the adoption must refuse them, too.
        refused(&store(&url, ValueType::Bytea).await, &map, changes()).await;
        assert_eq!(other.text("SELECT count(*) FROM t"), "0");
        Pen::new().put(&adopting, &map, "a", "1").await;
    }
}

/// The bytes fit into a message, but their base64 text does not.
#[tokio::test]
async fn bytes_whose_base64_is_too_long_are_refused_by_their_key() {
    let (url, _other) = database();
    let (postgres, map) = (store(&url, ValueType::Jsonb).await, name("m"));
    let long = Payload::binary(vec![0; 805_306_368]);
    assert_eq!(long.encoding, Encoding::Bytes);
    let changes = vec![put("a", "1"), Change::put("long", long, None)];
    let refused = error(Pen::new().write(&postgres, &map, changes).await);
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
    assert_eq!(refused.keys(), [Arc::from("long")]);
    assert!(all(&postgres, &map).await.is_empty());
}
