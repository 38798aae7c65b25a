//! Maps that are copied into Postgres, which reformats values, and back.

use persistify::{JsonFile, Postgres, Sqlite};
use serde_json::Value;

use super::*;
use crate::postgres::Database;

/// Numbers, texts, keys and expiries that are difficult for a database.
fn hard() -> Vec<Change> {
    let now = SystemTime::now();
    let numbers = [
        "1.0",
        "1e2",
        "1E+2",
        "1e400",
        "-1e-300",
        "18446744073709551616",
        "-9223372036854775809",
        "0.0",
        "0e7",
        "0.1",
        "12345678901234567890.12345678901234567890",
    ];
    let texts = [
        "{\"b\": 1e2,\t\"a\": [1.0, {\"z\": null, \"\": true}]}",
        "{\"same\": 1, \"same\": 2}",
        "\"\\u00e9 \\ud83e\\udd80 \\/ \\\" \u{202e}\"",
        "[ ]",
        "null",
    ];
    let keys = [
        "",
        " ",
        "'; DROP TABLE map_map; --",
        "a\"b\\c",
        "\u{10ffff}",
        "É",
        "e\u{301}",
    ];
    let long = "k".repeat(10_000);
    let values = numbers.iter().chain(&texts);
    let mut changes: Vec<_> = values.map(|text| put(text, text)).collect();
    changes.extend(keys.map(|key| put(key, "\"key\"")));
    changes.push(put(&long, "1"));
    for (n, end) in (0..).zip([-3_600_000_i64, 1, 3_600_001]) {
        let span = Duration::from_millis(end.unsigned_abs());
        let end = if end < 0 { now - span } else { now + span };
        let payload = Payload::json("{\"n\":1e0}").with_schema(n + 3);
        changes.push(Change::put(format!("ends {n}"), payload, Some(end)));
    }
    changes
}

/// The records, with values that compare by their meaning.
async fn meant(store: &dyn Provider) -> BTreeMap<String, (u32, Value, Option<Duration>)> {
    let held = held(store).await.into_iter();
    let value = |text: &str| match serde_json::from_str(text) {
        Ok(value) => as_floats(value),
        // The number is beyond the range of a float.
        Err(_) => Value::String(digits(text)),
    };
    held.map(|(key, (shape, text, ends))| (key, (shape, value(&text), ends)))
        .collect()
}

/// Replaces all numbers by floats, so that 1e2 equals 100.
fn as_floats(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(all) => all.into_iter().map(as_floats).collect(),
        Value::Object(all) => all.into_iter().map(|(k, v)| (k, as_floats(v))).collect(),
        other => other,
    }
}

/// The digits of a whole number.
fn digits(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, zeros)) => digits.to_owned() + &"0".repeat(zeros.parse().unwrap()),
        None => text.to_owned(),
    }
}

async fn files(folder: &std::path::Path) -> JsonFile {
    JsonFile::open(folder).await.unwrap()
}

#[tokio::test]
async fn from_files_and_sqlite_to_postgres_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    write_as_another(&memory, hard()).await;
    let before = meant(&memory).await;
    let first = files(&folder.path().join("first")).await;
    copy(&memory, &first, MAP, silent).await.unwrap();
    let sqlite = Sqlite::open(folder.path().join("maps.db")).await.unwrap();
    copy(&first, &sqlite, MAP, silent).await.unwrap();
    let sources: [Arc<dyn Provider>; 2] = [Arc::new(first), Arc::new(sqlite)];
    for (n, source) in sources.iter().enumerate() {
        let database = Database::fresh();
        let store = Postgres::connect(database.url()).await.unwrap();
        let copied = copy(source, &store, MAP, silent).await.unwrap();
        assert_eq!(copied.records, before.len() as u64);
        assert_eq!(meant(&store).await, before);
        let rewritten = held(&store).await;
        assert_eq!(rewritten["1e2"].1, "100", "it is written in its own way");
        let again = copy(source, &store, MAP, silent).await.unwrap();
        assert_eq!(again.written, 0, "it is the same nevertheless");
        let back = files(&folder.path().join(format!("back {n}"))).await;
        copy(&store, &back, MAP, silent).await.unwrap();
        assert_eq!(meant(&back).await, before);
        assert_eq!(held(&back).await, rewritten);
    }
}

/// A value that the database cannot store ends the copy with an error that names the key. All
/// others are copied.
#[tokio::test]
async fn a_copy_into_postgres_names_the_records_it_cannot_keep() {
    let bad = [
        ("nothing", "\"\\u0000\""),
        ("large", "1e200000"),
        ("small", "[1e-20000]"),
    ];
    for (key, text) in bad {
        let memory = Memory::new();
        write_as_another(&memory, vec![put("good", "1"), put(key, text)]).await;
        let database = Database::fresh();
        let store = Postgres::connect(database.url()).await.unwrap();
        let copied = copy(&memory, &store, MAP, silent).await;
        let error = copied.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("ValueType::Text"), "{error}");
        assert_eq!(error.keys(), [key.into()], "{error:?}");
        // As text, the value is stored unchanged.
        let database = Database::fresh();
        let store = Postgres::builder(database.url()).value_type(persistify::ValueType::Text);
        let store = store.connect().await.unwrap();
        copy(&memory, &store, MAP, silent).await.unwrap();
        assert_eq!(held(&store).await, held(&memory).await);
    }
}

/// A copy fails halfway, after a commit with an unknown outcome. A second copy resumes.
#[tokio::test]
async fn a_copy_into_postgres_goes_on_where_it_was() {
    const RECORDS: u64 = 12_000;
    let memory = Memory::new();
    let many = (0..RECORDS).map(|n| put(&format!("key {n}"), &n.to_string()));
    write_as_another(&memory, many.collect()).await;
    let database = Database::fresh();
    let store = Postgres::connect(database.url()).await.unwrap();
    let to = Faulty::new(store.clone());
    to.fail_nth(1, Fault::After(ErrorKind::Unavailable));
    to.set_rule(|call| match call.method {
        Method::Commit if call.number > 2 => Fault::Before(ErrorKind::Unusable),
        _ => Fault::None,
    });
    copy(&memory, &to, MAP, silent).await.unwrap_err();
    let there = held(&store).await.len() as u64;
    assert!((1..RECORDS).contains(&there), "{there}");
    to.behave();
    let copied = copy(&memory, &to, MAP, silent).await.unwrap();
    assert_eq!((copied.records, copied.written), (RECORDS, RECORDS - there));
    assert_eq!(held(&store).await, held(&memory).await);
}
