//! Exports of maps as lines of JSON, and imports.

mod migrated;
mod streams;

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use persistify::{
    CachingMap, CachingMapBuilder, ErrorKind, Memory, PersistentMap, PersistentMapBuilder,
    serde_json::{Value, json, value::RawValue},
    testing::{Fault, ManualClock, Method},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::{
    HOUR, SECOND, Store, as_it_is, builder, impatient, open, open_numbers, pairs, steady, store,
    stored,
};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

async fn lines(map: &PersistentMap<u32>) -> Vec<String> {
    let mut out = Vec::new();
    let exported = map.export(&mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with('\n'));
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(exported + 1, lines.len() as u64);
    lines
}

const HEADER: &str = r#"{"format":"persistify","version":1,"map":"map","schema":0}"#;

#[tokio::test(start_paused = true)]
async fn an_export_is_a_header_and_a_line_an_entry() {
    let map = open_numbers(&store()).await;
    assert_eq!(lines(&map).await, [HEADER]);
    map.insert("a \"b\"\n", 1);
    let line = r#"{"key":"a \"b\"\n","value":1}"#;
    assert_eq!(lines(&map).await, [HEADER, line]);
    map.extend((0..1_000).map(|n| (n.to_string(), n)));
    map.remove("7");
    assert_eq!(lines(&map).await.len(), 1_001);
    map.close().await.unwrap();
    assert_eq!(lines(&map).await.len(), 1_001, "reads go on");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_laid_out_over_lines_is_on_one() {
    let map: PersistentMap<Box<RawValue>> = open(Memory::new(), "map", as_it_is).await;
    let text = "{\r\n  \"a\": \"\\n\"\n}";
    map.insert("k", RawValue::from_string(text.to_owned()).unwrap());
    let mut out = Vec::new();
    map.export(&mut out).await.unwrap();
    assert_eq!(out.split(|byte| *byte == b'\n').count(), 3);
    let back: PersistentMap<Value> = open(Memory::new(), "back", as_it_is).await;
    assert_eq!(back.import(&out[..]).await.unwrap(), 1);
    assert_eq!(back.get("k"), Some(json!({ "a": "\n" })));
}

#[tokio::test(start_paused = true)]
async fn an_import_is_saved_when_it_returns_and_leaves_other_keys_alone() {
    let store = store();
    let map = open_numbers(&store).await;
    map.extend([("mine", 1), ("theirs", 1)]);
    let text = format!(
        "{HEADER}\r\n\n{{\"key\":\"theirs\",\"value\":2}}\n{{\"value\":3,\"key\":\"new\"}}"
    );
    assert_eq!(map.import(text.as_bytes()).await.unwrap(), 2);
    assert_eq!(map.pending(), 0);
    let expected = pairs([("mine", 1), ("new", 3), ("theirs", 2)]);
    assert_eq!(stored(&store).await, expected);
    assert_eq!(map.import(text.as_bytes()).await.unwrap(), 2);
    assert_eq!(stored(&store).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_import_is_flushed_on_the_way() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map).batch(1_000_000, HOUR).max_pending(10)
    })
    .await;
    let line = |n: u32| format!("{{\"key\":\"{n}\",\"value\":{n}}}\n");
    let text: String = (0..1_000).map(line).collect();
    let text = format!("{HEADER}\n{text}");
    assert_eq!(map.import(text.as_bytes()).await.unwrap(), 1_000);
    let sizes = store
        .batches()
        .iter()
        .map(|b| b.maps[0].changes.len())
        .max();
    assert_eq!(sizes, Some(10));
    assert_eq!(stored(&store).await.len(), 1_000);
}

/// The byte order mark that some editors add made the header invalid.
#[tokio::test(start_paused = true)]
async fn an_export_that_was_edited_may_begin_with_a_byte_order_mark() {
    let map = open_numbers(&store()).await;
    let text = format!("\u{feff}{HEADER}\r\n{{\"key\":\"a\",\"value\":1}}\r\n");
    assert_eq!(map.import(text.as_bytes()).await.unwrap(), 1);
    assert_eq!(map.get("a"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn bad_input_is_told_with_the_number_of_its_line() {
    let good = r#"{"key":"a","value":1}"#;
    let newer = HEADER.replace("\"version\":1", "\"version\":2");
    let other = HEADER.replace("persistify", "something");
    let shape = HEADER.replace("\"schema\":0", "\"schema\":7");
    let bad_header = [
        ("", 1),
        ("\n", 1),
        (good, 1),
        ("[]", 1),
        (&newer, 1),
        (&other, 1),
        (&shape, 1),
    ];
    for (text, line) in bad_header {
        fails(text, line, &[]).await;
    }
    for bad in [
        "{",
        r#"{"key":"b"}"#,
        r#"{"key":"b","value":"text"}"#,
        r#"{"key":"b","value":2,"expires":3}"#,
        r#"{"key":"b","value":2,"expires_at":"soon"}"#,
        r#"{"key":"b","value":2} {}"#,
        r#"{"key":"b","val"#,
        "{\"key\":\"\u{fffd}\",\"value\":-1}",
    ] {
        let text = format!("{HEADER}\n{good}\n\n{bad}\n{good}");
        fails(&text, 4, &[("a", 1)]).await;
    }
}

/// Asserts that the import fails at that line, and that the map then has these entries.
async fn fails(text: &str, line: u64, kept: &[(&str, u32)]) {
    let store = store();
    let map = open_numbers(&store).await;
    let error = map.import(text.as_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(
        error.to_string().starts_with(&format!("line {line} ")),
        "{error}"
    );
    let so_far = match line {
        1 => "nothing was imported",
        _ => "the lines before it are in the map",
    };
    assert!(error.to_string().contains(so_far), "{error}");
    assert_eq!(error.map(), Some("map"));
    let kept: HashMap<_, _> = kept.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    assert_eq!(map.snapshot(), kept);
    map.close().await.unwrap();
    assert_eq!(stored(&store).await.len(), kept.len());
}

#[tokio::test(start_paused = true)]
async fn a_closed_map_takes_nothing_in() {
    let map = open_numbers(&store()).await;
    map.close().await.unwrap();
    let error = map.import(HEADER.as_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_not_saved_says_so_and_can_be_repeated() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    let text = format!("{HEADER}\n{{\"key\":\"a\",\"value\":1}}\n");
    store.fail_next(1, Fault::Lost(ErrorKind::Unavailable));
    let error = map.import(text.as_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!((map.get("a"), map.pending()), (Some(1), 1));
    map.import(text.as_bytes()).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_written_ends_the_export_and_is_named() {
    let map: PersistentMap<f64> = open(Memory::new(), "map", as_it_is).await;
    map.insert("nan", f64::NAN);
    let error = map.export(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.keys(), ["nan".into()]);
}

/// An export blocks no writer, and contains each entry that is present throughout once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_export_among_writers_has_what_was_there_all_the_time() {
    let map: PersistentMap<u64> = open(Memory::new(), "map", as_it_is).await;
    map.extend((0..2_000).map(|n| (format!("stays {n}"), n)));
    let writer = map.clone();
    let writing = tokio::task::spawn_blocking(move || {
        for n in 0..50_000_u64 {
            writer.insert(format!("comes {}", n % 100), n);
            writer.update(format!("stays {}", n % 2_000), |v| *v += 2_000);
            writer.remove(format!("comes {}", (n + 50) % 100));
        }
    });
    while !writing.is_finished() {
        let exporter = map.clone();
        let export = tokio::spawn(async move {
            let mut out = Vec::new();
            exporter.export(&mut out).await.map(|_| out)
        });
        let out = export.await.unwrap().unwrap();
        let back: PersistentMap<u64> = open(Memory::new(), "back", as_it_is).await;
        let imported = back.import(&out[..]).await.unwrap();
        assert_eq!(imported, back.len() as u64, "a key twice");
        for n in 0..2_000 {
            assert_eq!(back.get(format!("stays {n}")).map(|v| v % 2_000), Some(n));
        }
    }
    writing.await.unwrap();
}

fn caching(clock: &ManualClock) -> CachingMapBuilder<Value> {
    CachingMap::builder(Memory::new(), "cache").clock(clock.clone())
}

#[tokio::test(start_paused = true)]
async fn expiries_are_kept_and_what_has_expired_is_left_out() {
    let clock = ManualClock::new(now());
    let map = caching(&clock).open().await.unwrap();
    map.insert_with_ttl("soon", json!(1), 10 * SECOND);
    map.insert_with_ttl("late", json!(2), HOUR);
    map.insert("never", json!(3));
    let mut out = Vec::new();
    assert_eq!(map.export(&mut out).await.unwrap(), 3);
    let text = String::from_utf8(out.clone()).unwrap();
    assert!(
        text.contains(
            r#"{"key":"soon","value":1,"expires_at":1700000010000,"time_to_live":10000}"#
        ),
        "{text}"
    );
    clock.advance(10 * SECOND);
    assert_eq!(map.export(&mut Vec::new()).await.unwrap(), 2);

    let back = caching(&clock).open().await.unwrap();
    back.insert_with_ttl("late", json!(0), SECOND);
    assert_eq!(back.import(&out[..]).await.unwrap(), 2);
    assert_eq!(back.expires_at("late"), Some(now() + HOUR));
    assert_eq!(
        (back.expires_at("never"), back.get("never")),
        (None, Some(json!(3)))
    );
    assert_eq!(back.get("soon"), None);
    // An overwritten entry does not keep its old deadline.
    clock.advance(2 * SECOND);
    assert_eq!(back.get("late"), Some(json!(2)));
    clock.advance(HOUR);
    assert_eq!((back.get("late"), back.len()), (None, 1));

    // An imported entry without an expiry gets the TTL of the map.
    let brief = caching(&clock).time_to_live(SECOND).open().await.unwrap();
    assert_eq!(brief.import(&out[..]).await.unwrap(), 1);
    clock.advance(SECOND);
    assert!(brief.is_empty());
}
