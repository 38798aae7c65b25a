//! Changes that the store or the codec refuses, and stores that refuse everything.

use std::{collections::HashMap, fmt::Debug};

use persistify::{
    ErrorKind, Expect, Operation, PersistentMap,
    testing::{Fault, Method},
};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Value as Json, json, value::RawValue};

use crate::support::{
    HOUR, SECOND, Store, in_memory, keys, open, open_numbers, pairs, settle, steady, store, stored,
};

/// A value that can be encoded, or that panics or fails instead.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(from = "f64")]
enum Value {
    Number(f64),
    Panics,
    Fails,
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => to.serialize_f64(*number),
            Self::Panics => panic!("no words for this"),
            Self::Fails => Err(serde::ser::Error::custom("not in the mood")),
        }
    }
}

async fn fill(store: &Store) -> PersistentMap<Value> {
    let map = open(store.clone(), "map", |map| steady(map).batch(10_000, HOUR)).await;
    for n in 0..997 {
        map.insert(n.to_string(), Value::Number(f64::from(n)));
    }
    map.insert("panics", Value::Panics);
    map.insert("nan", Value::Number(f64::NAN));
    map.insert("hated", Value::Number(1.0));
    map
}

#[tokio::test(start_paused = true)]
async fn three_bad_entries_do_not_hold_up_the_other_997() {
    for named in [true, false] {
        let store = store();
        let map = fill(&store).await;
        let mut events = map.failures();
        if named {
            store.refuse(["hated"]);
        } else {
            store.refuse_unnamed(["hated"]);
        }
        let error = map.flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        let bad = ["hated", "nan", "panics"];
        let named_keys: Vec<_> = error.keys().iter().map(|key| &**key).collect();
        assert_eq!(named_keys, bad);
        let refused = map.refused();
        let listed: Vec<_> = refused.iter().map(|refused| &*refused.key).collect();
        assert_eq!(listed, bad);
        assert!(refused.iter().all(|r| r.error.kind() == ErrorKind::Refused));
        assert_eq!((stored(&store).await.len(), map.pending()), (997, 0));
        assert_eq!((map.stats().refused, map.len()), (3, 1_000));
        assert!(map.health().borrow().is_healthy());

        let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        let told = told.iter().filter(|event| event.is_final);
        let mut told: Vec<_> = told
            .map(|e| (e.operation, &*e.keys.first[0], e.keys.count))
            .collect();
        told.sort_by_key(|(_, key, _)| *key);
        let (encode, commit) = (Operation::Encode, Operation::Commit);
        let expected = [
            (commit, "hated", 1),
            (encode, "nan", 1),
            (encode, "panics", 1),
        ];
        assert_eq!(told, expected);
        if named {
            assert_eq!(store.calls(Method::Commit), 2);
        } else {
            assert!(store.calls(Method::Commit) < 30);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_write_or_a_retry_takes_a_key_off_the_list() {
    let store = store();
    let map = fill(&store).await;
    store.refuse(["hated"]);
    map.flush().await.unwrap_err();
    map.insert("nan", Value::Number(0.0));
    assert_eq!(map.refused().len(), 2);
    assert_eq!(map.pending(), 1);
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "older ones stay refused");
    assert_eq!(stored(&store).await["nan"], "0.0");

    map.remove("panics");
    assert_eq!(map.refused().len(), 1);
    map.flush().await.unwrap_err();
    assert_eq!(map.retry_refused(), 1);
    assert_eq!((map.pending(), map.refused().len()), (1, 0));
    map.flush().await.unwrap_err();
    assert_eq!(map.refused().len(), 1);

    store.behave();
    assert_eq!(map.retry_refused(), 1);
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await["hated"], "1.0");
    assert_eq!(map.retry_refused(), 0);
    map.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_fails_its_own_save_only() {
    let store = store();
    let map: PersistentMap<Value> = open(store.clone(), "map", steady).await;
    store.refuse(["hated"]);
    let hang = store.hang_next();
    let save = |key: &'static str, value: Value| {
        let map = map.clone();
        tokio::spawn(async move { map.insert_and_save(key, value).await })
    };
    let first = save("first", Value::Number(0.0));
    hang.hangs().await;
    let good = [save("a", Value::Number(1.0)), save("b", Value::Number(2.0))];
    let bad = [
        save("hated", Value::Number(1.0)),
        save("nan", Value::Number(f64::NAN)),
        save("panics", Value::Panics),
        save("fails", Value::Fails),
    ];
    settle().await;
    hang.release();
    first.await.unwrap().unwrap();
    for saved in good {
        saved.await.unwrap().unwrap();
    }
    for refused in bad {
        let error = refused.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Refused, 1));
    }
    let again = save("a", Value::Number(3.0));
    again.await.unwrap().unwrap();
    assert_eq!(map.refused().len(), 4);
    assert_eq!(map.get("fails"), Some(Value::Fails));
}

#[tokio::test(start_paused = true)]
async fn a_refused_overwrite_keeps_the_stored_value_and_a_removal_removes_it() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("a", 1).await.unwrap();
    store.refuse(["a"]);
    map.insert_and_save("a", 2).await.unwrap_err();
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    map.remove_and_save("a").await.unwrap();
    assert!(stored(&store).await.is_empty());
    assert!(map.refused().is_empty());
    map.insert_and_save("a", 3).await.unwrap_err();
    map.clear();
    assert!(map.refused().is_empty());
    map.close().await.unwrap();
}

async fn takes<V>(value: V) -> bool
where
    V: Serialize + DeserializeOwned + Send + Sync + Clone + 'static,
{
    let store = store();
    let map: PersistentMap<V> = open(store.clone(), "map", steady).await;
    let saved = map.insert_and_save("a", value).await;
    match saved {
        Ok(_) => assert!(map.refused().is_empty()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Refused);
            let remedy = "write another one to the key, or remove it";
            assert!(error.to_string().contains(remedy), "{error}");
            assert_eq!(map.refused().len(), 1);
        }
    }
    !stored(&store).await.is_empty()
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Point {
    x: Option<f64>,
    label: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
enum Shape {
    Dot,
    Circle(f32),
    Line(f64, f64),
    Box { width: f64 },
    Unit(()),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Wrapped(f64);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Pair(f64, u8);

#[tokio::test(start_paused = true)]
async fn a_number_that_would_come_back_as_null_is_refused_wherever_it_hides() {
    let bad = f64::NAN;
    assert!(!takes(bad).await);
    assert!(!takes(f64::INFINITY).await);
    assert!(!takes(f64::NEG_INFINITY).await);
    assert!(!takes(f32::NAN).await);
    assert!(!takes(f32::INFINITY).await);
    assert!(!takes(vec![1.0, bad]).await);
    assert!(!takes([1.0, bad]).await);
    assert!(!takes((1, bad)).await);
    assert!(!takes(Some(bad)).await);
    assert!(!takes(HashMap::from([("a".to_owned(), bad)])).await);
    assert!(!takes(HashMap::from([("a".to_owned(), vec![Some((1, bad))])])).await);
    assert!(!takes(Wrapped(bad)).await);
    assert!(!takes(Pair(bad, 1)).await);
    let x = Some(bad);
    assert!(!takes(Point { x, label: None }).await);
    assert!(!takes(Box::new(Some(Point { x, label: None }))).await);
    assert!(!takes(Shape::Circle(f32::INFINITY)).await);
    assert!(!takes(Shape::Line(1.0, bad)).await);
    assert!(!takes(Shape::Box { width: bad }).await);
    assert!(
        !takes(vec![
            (Shape::Dot, None),
            (Shape::Box { width: bad }, Some(()))
        ])
        .await
    );
}

#[tokio::test(start_paused = true)]
async fn a_null_value_is_accepted() {
    assert!(takes(None::<f64>).await);
    assert!(takes(()).await);
    assert!(takes(Some(1.5)).await);
    assert!(takes(vec![None, Some(f64::MAX), Some(f64::MIN_POSITIVE)]).await);
    assert!(takes(vec![None, Some(f32::MAX), Some(-0.0)]).await);
    assert!(takes("null, or nullify; not a NaN".to_owned()).await);
    assert!(takes(HashMap::from([("null".to_owned(), None::<u8>)])).await);
    let point = Point {
        x: None,
        label: Some("null".into()),
    };
    assert!(takes(point).await);
    assert!(takes(Shape::Unit(())).await);
    assert!(takes(serde_json::json!({"a": null, "b": [null, 1.5]})).await);
    assert!(takes((u128::MAX, i128::MIN, 'x', None::<u8>)).await);
}

/// A value that was nested too deeply to be decoded was saved anyway, and the map did not open any
/// more.
#[tokio::test(start_paused = true)]
async fn a_value_nested_too_deeply_is_refused() {
    let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([{ "a[{": inner }]));
    let store = store();
    let map = open::<Json>(store.clone(), "map", steady).await;
    map.insert_and_save("deep", nested(63)).await.unwrap();
    map.insert_and_save("wide", json!(vec![json!({}); 1_000]))
        .await
        .unwrap();
    map.insert_and_save("text", json!("[\"\\[{".repeat(1_000)))
        .await
        .unwrap();
    let error = map.insert_and_save("deeper", nested(64)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    let error = map.save_if("deepest", nested(500), Expect::Any).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Refused);
    map.remove("deeper");
    map.close().await.unwrap();
    let map = open::<Json>(store.clone(), "map", steady).await;
    assert_eq!(map.len(), 3);
    assert_eq!(map.get("deep"), Some(nested(63)));
    // A type that decodes at any depth may be nested to any depth.
    let store = self::store();
    let map = open::<Box<RawValue>>(store.clone(), "map", steady).await;
    let text = "[".repeat(10_000) + &"]".repeat(10_000);
    let raw = RawValue::from_string(text).unwrap();
    map.insert_and_save("raw", raw).await.unwrap();
    open::<Box<RawValue>>(store.clone(), "map", steady).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_unusable_as_a_whole_is_not_blamed_on_any_key() {
    let store = store();
    let map = open_numbers(&store).await;
    let (mut events, mut health) = (map.failures(), map.health());
    store.down(ErrorKind::Unusable);
    map.extend((0..100).map(|n| (n.to_string(), n)));
    let error = map.insert_and_save("waited", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert_eq!(
        store.calls(Method::Commit),
        1,
        "nothing is tried again, or halved"
    );
    assert_eq!((map.refused().len(), map.pending()), (0, 101));
    assert_eq!(health.borrow_and_update().kind(), Some(ErrorKind::Unusable));
    let event = events.try_recv().unwrap();
    assert_eq!((event.is_final, event.keys.count), (true, 101));
    tokio::time::sleep(301 * SECOND).await;
    assert_eq!(store.calls(Method::Commit), 11);
    assert!(store.batches().iter().all(|batch| keys(batch).len() == 101));
    store.up();
    health.wait_for(|health| health.is_healthy()).await.unwrap();
    settle().await;
    assert_eq!(stored(&store).await, in_memory(&map));
    assert_eq!(map.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_to_grief_in_the_middle_of_halving_loses_nothing() {
    let store = store();
    let map = open_numbers(&store).await;
    map.extend((0..64).map(|n| (n.to_string(), n)));
    store.refuse_unnamed(["7", "50"]);
    store.fail_nth(3, Fault::Before(ErrorKind::Unusable));
    store.fail_nth(5, Fault::Lost(ErrorKind::Unavailable));
    store.fail_nth(8, Fault::Before(ErrorKind::Unavailable));
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!((stored(&store).await.len(), map.pending()), (62, 0));
    let refused: Vec<_> = { map.refused() }
        .iter()
        .map(|r| r.key.to_string())
        .collect();
    assert_eq!(refused, ["50", "7"]);
}

#[tokio::test(start_paused = true)]
async fn a_clear_with_a_refused_change_is_a_clear() {
    for named in [true, false] {
        let store = store();
        let map = open_numbers(&store).await;
        map.extend([("old", 1), ("bad", 1)]);
        map.flush().await.unwrap();
        if named {
            store.refuse(["bad"]);
        } else {
            store.refuse_unnamed(["bad"]);
        }
        map.clear();
        map.extend([("a", 1), ("bad", 2), ("c", 3)]);
        map.flush().await.unwrap_err();
        assert_eq!(stored(&store).await, pairs([("a", 1), ("c", 3)]));
        assert_eq!(map.refused().len(), 1);
    }
}

/// During a close, refused changes were made pending after the close had checked for pending
/// changes: it closed, and returned `Ok`.
#[tokio::test(start_paused = true)]
async fn refused_changes_are_not_retried_while_the_map_closes() {
    let store = store();
    let map = open_numbers(&store).await;
    store.refuse(["a"]);
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    map.insert("b", 1);
    let hang = store.hang_next();
    let closing = tokio::spawn({
        let map = map.clone();
        async move { map.close().await }
    });
    hang.hangs().await;
    assert_eq!(map.retry_refused(), 0);
    hang.release();
    let error = closing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!((error.keys().len(), &*error.keys()[0]), (1, "a"));
    assert_eq!(map.retry_refused(), 1);
    store.behave();
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, in_memory(&map));
}
