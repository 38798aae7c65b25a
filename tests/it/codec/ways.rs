//! Every way to save refuses values that could not be decoded again.

use std::sync::Arc;

use persistify::{Error, ErrorKind, Expect, OnConflict, Operation, PersistentMap, Transaction};
use serde::{Deserialize, Serialize};

use crate::support::{
    HOUR, builder, open, open_caching, put, steady, store, stored, write_as_another,
};

/// Encodes without error, but omits a field that decoding requires.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Forgetful {
    a: u8,
    #[serde(skip_serializing_if = "is_seven")]
    b: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_seven(b: &u8) -> bool {
    *b == 7
}

const BAD: Forgetful = Forgetful { a: 1, b: 7 };
const GOOD: Forgetful = Forgetful { a: 1, b: 1 };

fn check(error: &Error, key: &str) {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert_eq!(
        (error.map(), error.keys()),
        (Some("map"), &[Arc::from(key)][..])
    );
    assert!(error.to_string().contains("Forgetful"), "{error}");
    assert!(
        format!("{error:?}").contains("missing field `b`"),
        "{error:?}"
    );
    assert!(!error.may_have_applied());
}

/// All of these saves returned `Ok` for a value that could not be decoded, and the map did not open
/// any more.
#[tokio::test(start_paused = true)]
async fn an_unreadable_value_is_refused_on_every_way_to_save_alone() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    let mut failures = map.failures();
    map.insert("flushed", BAD);
    map.insert("good", GOOD);
    check(
        &map.insert_and_save("saved", BAD).await.unwrap_err(),
        "saved",
    );
    let error = map.flush().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Refused, 2));
    let event = failures.try_recv().unwrap();
    assert_eq!((event.operation, event.is_final), (Operation::Encode, true));
    assert_eq!(map.refused().len(), 2);

    check(
        &map.save_if("if", BAD, Expect::Absent).await.unwrap_err(),
        "if",
    );
    let mut batch = map.batch();
    batch.insert("a", GOOD).insert("batch", BAD);
    check(&batch.commit().await.unwrap_err(), "batch");
    let mut tx = Transaction::new(&store);
    tx.insert(&map, "a", GOOD).insert(&map, "tx", BAD);
    check(&tx.commit().await.unwrap_err(), "tx");
    let error = map.update_in_store("good", |_| BAD).await.unwrap_err();
    check(&error, "good");
    let (bad, good) = tokio::join!(
        map.save_if("one", BAD, Expect::Absent),
        map.save_if("other", GOOD, Expect::Absent),
    );
    check(&bad.unwrap_err(), "one");
    good.unwrap();

    assert_eq!(map.len(), 4, "what was not saved is not in memory");
    map.remove("saved");
    map.remove("flushed");
    map.close().await.unwrap();
    assert_eq!(stored(&store).await.len(), 2);
    open::<Forgetful>(store.clone(), "map", steady).await;
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_value_is_refused_by_a_caching_map() {
    let store = store();
    let map = open_caching(store.clone(), "map", |map| map.time_to_live(HOUR)).await;
    let saved = map.insert_with_ttl_and_save("a", BAD, HOUR).await;
    check(&saved.unwrap_err(), "a");
}

/// The imported text decodes, but the text that the map encodes in its place does not.
#[tokio::test(start_paused = true)]
async fn an_imported_unreadable_value_is_refused_when_it_is_saved() {
    let store = store();
    let map: PersistentMap<Forgetful> = open(store.clone(), "map", steady).await;
    let lines = "{\"format\":\"persistify\",\"version\":1,\"map\":\"m\",\"schema\":0}\n\
                 {\"key\":\"a\",\"value\":{\"a\":1,\"b\":7}}\n";
    let error = map.import(lines.as_bytes()).await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Refused, 1));
    assert!(
        format!("{error:?}").contains("missing field `b`"),
        "{error:?}"
    );
    assert!(stored(&store).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_value_that_cannot_be_read_again_stays_as_it_is_stored() {
    let store = store();
    write_as_another(&store, vec![put("a", r#"{"a":1}"#), put("b", r#"{"a":2}"#)]).await;
    let open = || {
        let map = builder::<Forgetful>(&store).batch(1_000, HOUR).schema(1);
        map.migrate(0, |mut value| {
            value["b"] = if value["a"] == 1 { 7 } else { 1 }.into();
            value
        })
    };
    let map = open().rewrite_on_load().open().await.unwrap();
    let mut failures = map.failures();
    map.flush().await.unwrap();
    assert_eq!(failures.try_recv().unwrap().keys.first, [Arc::from("a")]);
    assert_eq!(map.get("a"), Some(BAD));
    map.close().await.unwrap();
    let stored = stored(&store).await;
    assert_eq!(
        (&*stored["a"], &*stored["b"]),
        (r#"{"a":1}"#, r#"{"a":2,"b":1}"#)
    );
    assert_eq!(open().open().await.unwrap().get("a"), Some(BAD));
}

#[tokio::test(start_paused = true)]
async fn a_merged_value_is_refused_and_the_stored_one_stays() {
    let store = store();
    let merge = OnConflict::Merge(|_, _| BAD);
    let map = open(store.clone(), "map", |map| {
        steady(map).batch(1_000, HOUR).conflicts(merge)
    })
    .await;
    map.insert_and_save("a", GOOD).await.unwrap();
    write_as_another(&store, vec![put("a", r#"{"a":9,"b":9}"#)]).await;
    map.insert("a", Forgetful { a: 2, b: 2 });
    check(
        &map.insert_and_save("a", Forgetful { a: 3, b: 3 })
            .await
            .unwrap_err(),
        "a",
    );
    assert_eq!(stored(&store).await["a"], r#"{"a":9,"b":9}"#);
    assert_eq!(map.get("a"), Some(BAD));
    assert_eq!(map.refused().len(), 1);
}
