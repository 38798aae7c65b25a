//! Data that outlives the schema of its type: records of an older schema version are migrated
//! while they are loaded, and nothing is destroyed.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use persistify::{
    CachingMap, Change, Clock, Error, ErrorKind, Expect, Op, Payload, PersistentMap,
    PersistentMapBuilder, Provider, Record,
    serde_json::{Value, json},
    testing::{Fault, ManualClock, Method},
};
use serde::{Deserialize, Serialize};

use crate::support::{
    HOUR, Store, builder, impatient, map_name, open, settle, steady, store, stored_in,
    write_as_another,
};

#[cfg(any(feature = "json", feature = "sqlite"))]
mod at_rest;
mod rewrites;

/// Schema version 0 was a number, 1 was `{"n": 1}`, 2 was `{"count": 1}`, and 3 is this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Three {
    pub(crate) count: u64,
    pub(crate) unit: String,
}

pub(crate) fn three(count: u64) -> Three {
    let unit = "piece".to_owned();
    Three { count, unit }
}

/// The JSON text of a number in the schema version.
pub(crate) fn text(schema: u32, n: u64) -> String {
    match schema {
        0 => n.to_string(),
        1 => json!({ "n": n }).to_string(),
        2 => json!({ "count": n }).to_string(),
        _ => json!({ "count": n, "unit": "piece" }).to_string(),
    }
}

fn step_2(mut value: Value) -> Value {
    value["unit"] = "piece".into();
    value
}

pub(crate) fn steps<P>(map: persistify::Builder<Three, P>) -> persistify::Builder<Three, P> {
    map.schema(3)
        .migrate(0, |n| json!({ "n": n }))
        .migrate(1, |old| {
            let n = old.get("n").cloned().ok_or("there is no n")?;
            assert_ne!(n, 13, "bad luck");
            Ok::<_, &str>(json!({ "count": n }))
        })
        .migrate(2, step_2)
}

fn record_of(key: &str, schema: u32, n: u64) -> Change {
    raw(key, schema, &text(schema, n))
}

fn raw(key: &str, schema: u32, text: &str) -> Change {
    let payload = Payload::json(text.to_owned()).with_schema(schema);
    Change::put(key, payload, None)
}

/// A store with an entry of each schema version.
async fn mixed() -> Store {
    let store = store();
    let changes = (0..4).map(|schema| record_of(&format!("k{schema}"), schema, u64::from(schema)));
    write_as_another(store.inner(), changes.collect()).await;
    store
}

fn current(store: &Store) -> PersistentMapBuilder<Three> {
    steps(builder(store).batch(1_000, HOUR).retry(impatient()))
}

async fn records(store: &dyn Provider) -> BTreeMap<String, Record> {
    crate::support::records(store).await.into_iter().collect()
}

/// Schema version and text of the stored records, by key.
async fn schemas(store: &dyn Provider) -> BTreeMap<String, (u32, String)> {
    let schema = |record: Record| {
        let payload = record.value.unwrap();
        let text = String::from_utf8(payload.bytes.to_vec()).unwrap();
        (payload.schema, text)
    };
    let records = records(store).await.into_iter();
    records.map(|(key, record)| (key, schema(record))).collect()
}

#[tokio::test(start_paused = true)]
async fn each_schema_version_is_migrated_as_it_loads_and_stays_in_the_store_until_it_is_written() {
    let store = mixed().await;
    let before = schemas(store.inner()).await;
    let map = current(&store).open().await.unwrap();
    for n in 0..4 {
        assert_eq!(map.get(format!("k{n}")), Some(three(n)));
    }
    assert_eq!(map.pending(), 0);
    map.flush().await.unwrap();
    assert_eq!(schemas(store.inner()).await, before);

    map.update("k1", |value| value.count = 10);
    map.insert("new", three(7));
    map.close().await.unwrap();
    let mut expected = before;
    expected.insert("k1".to_owned(), (3, text(3, 10)));
    expected.insert("new".to_owned(), (3, text(3, 7)));
    assert_eq!(schemas(store.inner()).await, expected);
    let map = current(&store).open().await.unwrap();
    assert_eq!((map.len(), map.get("k1")), (5, Some(three(10))));
}

#[tokio::test(start_paused = true)]
async fn a_record_without_a_schema_version_has_version_0() {
    let store = store();
    let map: PersistentMap<u64> = open(store.clone(), "map", steady).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(schemas(store.inner()).await["a"], (0, "1".to_owned()));
    let map = current(&store).open().await.unwrap();
    assert_eq!(map.get("a"), Some(three(1)));
}

#[tokio::test(start_paused = true)]
async fn steps_that_do_not_lead_there_are_errors_that_name_the_step() {
    let store = store();
    let new = || builder::<Value>(&store);
    let id = |json: Value| json;
    let wrong = [
        (
            new().schema(2).migrate(1, id).migrate(1, id),
            "schema version 1",
        ),
        (
            new().schema(3).migrate(1, id),
            "schema version 2 is missing",
        ),
        (
            new().schema(4).migrate(1, id).migrate(3, id),
            "schema version 2 is missing",
        ),
        (
            new().schema(4).migrate(2, id),
            "schema version 3 is missing",
        ),
        (
            new().schema(2).migrate(1, id).migrate(2, id),
            "schema version 2 leads beyond 2",
        ),
        (new().schema(1).migrate(u32::MAX, id), "leads beyond 1"),
        (new().migrate(0, id), "schema version 0 leads beyond 0"),
        (
            new().schema(u32::MAX).migrate(0, id),
            "schema version 1 is missing",
        ),
    ];
    for (builder, named) in wrong {
        let error = builder.open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert_eq!(error.map(), Some("map"));
        assert!(error.to_string().contains(named), "{error} lacks {named}");
    }
    assert_eq!(store.calls(Method::Load), 0);
    for fine in [new().schema(9), new().schema(2).migrate(1, id)] {
        fine.open().await.unwrap();
    }
}

/// Asserts that the map does not open and nothing is changed. Returns the error.
async fn refusal<V>(store: &Store, map: PersistentMapBuilder<V>) -> Error
where
    V: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let before = records(store.inner()).await;
    let begun = store.calls(Method::Commit);
    let error = map.open().await.unwrap_err();
    settle().await;
    assert_eq!(store.calls(Method::Commit), begun);
    assert_eq!(records(store.inner()).await, before);
    error
}

#[tokio::test(start_paused = true)]
async fn a_newer_schema_version_is_refused_with_both_numbers_and_nothing_is_touched() {
    for allow in [false, true] {
        let store = mixed().await;
        write_as_another(store.inner(), vec![raw("k9", 9, "9")]).await;
        let map = current(&store).rewrite_on_load();
        let map = if allow { map.allow_unreadable() } else { map };
        let error = refusal(&store, map).await;
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let said = error.to_string();
        assert!(
            said.contains("schema version 9") && said.contains("up to 3"),
            "{said}"
        );
        assert!(
            said.contains("\"map\"") && said.contains("\"k9\""),
            "{said}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_schema_version_without_a_step_is_refused_too() {
    let store = mixed().await;
    let map = builder::<Three>(&store).schema(3).allow_unreadable();
    let error = refusal(&store, map.migrate(1, |v| v).migrate(2, step_2)).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    assert!(
        said.contains("schema version 0") && said.contains("migrate(0"),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_step_fails_or_panics_is_unreadable_and_survives() {
    for (bad, why) in [
        (text(2, 1), "there is no n"),
        (text(1, 13), "bad luck"),
        ("{".to_owned(), "EOF"),
    ] {
        let store = mixed().await;
        write_as_another(store.inner(), vec![raw("bad", 1, &bad)]).await;
        let error = refusal(&store, current(&store)).await;
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.keys(), ["bad".into()]);
        assert_eq!(error.map(), Some("map"));
        assert!(format!("{error:?}").contains(why), "{error:?}");

        let map = current(&store).allow_unreadable().rewrite_on_load();
        let map = map.open().await.unwrap();
        let listed = map.unreadable();
        assert_eq!(&*listed[0].record.key, "bad");
        assert_eq!((listed.len(), map.len(), map.get("bad")), (1, 4, None));
        map.flush().await.unwrap();
        let kept = (1, bad.clone());
        assert_eq!(schemas(store.inner()).await["bad"], kept);
        map.insert("bad", three(5));
        map.close().await.unwrap();
        assert_eq!(schemas(store.inner()).await["bad"], (3, text(3, 5)));
        let aside = map_name().nested("unreadable").unwrap();
        let aside = stored_in(&store, &aside).await;
        assert_eq!(aside.into_values().collect::<Vec<_>>(), [bad]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_upgrades_and_refuses_as_open_does() {
    let store = mixed().await;
    let map = current(&store).rewrite_on_load().open().await.unwrap();
    map.flush().await.unwrap();
    write_as_another(
        store.inner(),
        vec![record_of("k1", 1, 40), record_of("late", 0, 41)],
    )
    .await;
    map.reload().await.unwrap();
    assert_eq!(
        (map.get("k1"), map.get("late")),
        (Some(three(40)), Some(three(41)))
    );
    assert_eq!(map.pending(), 2);
    map.flush().await.unwrap();
    assert_eq!(schemas(store.inner()).await["late"], (3, text(3, 41)));

    write_as_another(store.inner(), vec![raw("k1", 4, "4")]).await;
    let error = map.reload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    assert!(
        said.contains("schema version 4") && said.contains("up to 3"),
        "{said}"
    );
    assert_eq!(map.get("k1"), Some(three(40)));
    map.insert_and_save("k2", three(8)).await.unwrap();
    assert_eq!(schemas(store.inner()).await["k1"], (4, "4".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_caching_map_upgrades_keeps_expiries_and_rewrites_only_what_does_not_expire() {
    let store = store();
    // Later than the wall time at which the other process writes.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000_000);
    let (clock, end) = (ManualClock::new(now), now + HOUR);
    let payload = Payload::json(text(1, 1)).with_schema(1);
    let expiring = Change::put("expiring", payload, Some(end));
    write_as_another(store.inner(), vec![expiring, record_of("lasting", 1, 2)]).await;
    let open = || {
        let map = CachingMap::builder(store.clone(), "map").clock(clock.clone());
        steps(map.batch(1_000, HOUR)).rewrite_on_load().open()
    };
    let map = open().await.unwrap();
    assert_eq!(map.get("expiring"), Some(three(1)));
    assert_eq!(map.expires_at("expiring"), Some(end));
    map.close().await.unwrap();
    let now = schemas(store.inner()).await;
    assert_eq!(now["expiring"], (1, text(1, 1)));
    assert_eq!(now["lasting"], (3, text(3, 2)));
    clock.advance(HOUR);
    let map = open().await.unwrap();
    assert_eq!(map.get("expiring"), None);
    assert!(clock.now() >= end);
}

#[tokio::test(start_paused = true)]
async fn only_puts_carry_the_new_schema_version() {
    let store = mixed().await;
    let map = current(&store).open().await.unwrap();
    map.insert("k1", three(1));
    map.remove("k2");
    map.flush().await.unwrap();
    let batches = store.batches();
    let changes = batches.iter().flat_map(|batch| &batch.maps[0].changes);
    for change in changes {
        match &change.op {
            Op::Put { payload, .. } => assert_eq!(payload.schema, 3),
            op => assert_eq!(*op, Op::Delete),
        }
    }
}
