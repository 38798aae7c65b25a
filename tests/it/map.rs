//! The methods of a map, and their effects in memory.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::support::{as_it_is, open};
use persistify::{ErrorKind, Memory, PersistentMap, Provider, RetryPolicy, testing::Faulty};

async fn map() -> PersistentMap<u32> {
    open(Memory::new(), "map", as_it_is).await
}

#[tokio::test]
async fn a_written_entry_is_read_back() {
    let map = map().await;
    assert_eq!(map.insert("a", 1), None);
    assert_eq!(map.insert(String::from("a"), 2), Some(1));
    assert_eq!(map.get("a"), Some(2));
    assert_eq!(map.read("a", |n| n * 10), Some(20));
    assert!(map.contains_key("a"));
    assert!(!map.contains_key("b"));
    assert_eq!((map.len(), map.is_empty()), (1, false));
    assert_eq!(map.remove("a"), Some(2));
    assert_eq!(map.remove("a"), None);
    assert_eq!((map.len(), map.is_empty()), (0, true));
}

#[tokio::test]
async fn conditional_writes_look_first() {
    let map = map().await;
    assert!(map.try_insert("a", 1).is_ok());
    let taken = map.try_insert("a", 2).unwrap_err();
    assert_eq!((&*taken.key, taken.value), ("a", 2));
    assert_eq!(map.replace("b", 1), None);
    assert!(!map.contains_key("b"));
    assert_eq!(map.replace("a", 3), Some(1));
    assert_eq!(map.remove_if("a", |n| *n == 1), None);
    assert_eq!(map.remove_if("a", |n| *n == 3), Some(3));
    assert_eq!(map.update("a", |n| *n += 1), None);
    map.upsert("a", 5, |n| *n += 1);
    map.upsert("a", 5, |n| *n += 1);
    assert_eq!(map.get("a"), Some(6));
    assert_eq!(map.get_or_insert_with("a", || unreachable!()), 6);
    assert_eq!(map.get_or_insert_with("c", || 7), 7);
    assert_eq!(
        map.update("c", |n| {
            *n += 1;
            *n
        }),
        Some(8)
    );
}

#[tokio::test]
async fn an_iteration_visits_each_entry_once() {
    let map = map().await;
    let all: HashMap<String, u32> = (0..1_000).map(|n| (format!("k{n}"), n)).collect();
    map.extend(all.clone());
    map.remove("gone");
    assert_eq!(map.snapshot(), all);
    let mut keys: Vec<_> = map.keys().map(|k| k.to_string()).collect();
    keys.sort();
    let mut expected: Vec<_> = all.keys().cloned().collect();
    expected.sort();
    assert_eq!(keys, expected);
    let mut sum = 0;
    map.for_each(|_, n| sum += n);
    assert_eq!(sum, 499_500);
    for (key, n) in &map {
        map.insert(key, n + 1);
    }
    map.retain(|_, n| n % 2 == 0);
    assert_eq!(map.len(), 500);
}

#[tokio::test]
async fn tombstones_are_not_counted() {
    let map = map().await;
    map.extend((0..100).map(|n| (n.to_string(), n)));
    map.flush().await.unwrap();
    for n in 0..50 {
        map.remove(n.to_string());
    }
    assert_eq!((map.len(), map.iter().count(), map.pending()), (50, 50, 50));
    map.insert("0", 0);
    assert_eq!(map.len(), 51);
    map.flush().await.unwrap();
    assert_eq!((map.len(), map.pending()), (51, 0));
}

#[tokio::test]
async fn a_clear_takes_the_tombstones_along() {
    let map = map().await;
    map.extend((0..1_000).map(|n| (n.to_string(), n)));
    map.flush().await.unwrap();
    for n in 0..1_000 {
        map.remove(n.to_string());
    }
    map.clear();
    assert_eq!((map.len(), map.is_empty()), (0, true));
    map.extend((0..100).map(|n| (n.to_string(), n)));
    assert_eq!((map.len(), map.iter().count()), (100, 100));
}

#[tokio::test]
async fn a_loader_runs_once_for_all_callers() {
    let map = map().await;
    let (ask, asked) = tokio::sync::oneshot::channel::<()>();
    let first = {
        let map = map.clone();
        tokio::spawn(async move {
            let load = || async move { asked.await.map(|()| 1).map_err(|_| "gone") };
            map.get_or_try_insert_with("a", load).await
        })
    };
    tokio::task::yield_now().await;
    let others: Vec<_> = (0..8)
        .map(|_| {
            let map = map.clone();
            let load = || async { panic!("a second loader ran") };
            tokio::spawn(async move { map.get_or_try_insert_with::<_, _, &str>("a", load).await })
        })
        .collect();
    tokio::task::yield_now().await;
    ask.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(1));
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(1));
    }
    let failed = map
        .get_or_try_insert_with("b", || async { Err("no") })
        .await;
    assert_eq!(failed, Err(Arc::new("no")));
    assert!(!map.contains_key("b"));
}

#[tokio::test]
async fn options_out_of_their_bounds_are_named() {
    type Map = PersistentMap<u32>;
    let second = Duration::from_secs(1);
    let builder = || Map::builder(Memory::new(), "map");
    let retry = |policy| builder().retry(policy);
    let cases = [
        (builder().batch(0, second), "size"),
        (builder().batch(1, Duration::ZERO), "interval"),
        (builder().max_batch(0), "max_batch"),
        (builder().max_batch_bytes(0), "max_batch_bytes"),
        (builder().max_pending(0), "max_pending"),
        (builder().commit_timeout(Duration::ZERO), "commit_timeout"),
        (
            retry(RetryPolicy::default().max_attempts(0)),
            "max_attempts",
        ),
        (
            retry(RetryPolicy::default().base_delay(Duration::ZERO)),
            "base_delay",
        ),
        (
            retry(RetryPolicy::default().max_delay(Duration::ZERO)),
            "max_delay is 0ns; it must be at least base_delay, which is 100ms",
        ),
        (Map::builder(Memory::new(), ""), "name"),
        (Map::builder(Memory::new(), "a/b"), "name"),
    ];
    for (builder, named) in cases {
        let error = builder.open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    let map = builder().open().await.unwrap();
    assert_eq!(
        map.set_batch(0, second).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn an_open_outside_of_a_runtime_errs() {
    let map = PersistentMap::<u32>::builder(Memory::new(), "map");
    let answer = futures_util::FutureExt::now_or_never(map.open());
    let error = answer.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.map(), Some("map"));
    assert!(error.to_string().contains("`block_on`"), "{error}");
}

/// `try_insert_and_save` waited until the existing entry was saved, and failed with the error of
/// that save, instead of reporting that the key is taken.
#[tokio::test(start_paused = true)]
async fn a_try_that_finds_the_key_taken_waits_for_nothing() {
    let store = Faulty::new(Memory::new());
    let map: PersistentMap<u32> = open(store.clone(), "map", as_it_is).await;
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    let taken = map.try_insert_and_save("a", 2).await.unwrap();
    assert_eq!(taken.unwrap_err().value, 2);
}

/// Floats were parsed imprecisely: about one in a few came back as its neighbour, and drifted
/// further with each restart.
#[tokio::test]
async fn a_float_comes_back_from_the_store_as_it_was() {
    let store = Memory::new();
    let floats = [2.489_306_380_806_773_3e-271, 0.1 + 0.2, f64::MIN_POSITIVE];
    let map: PersistentMap<f64> = open(store.clone(), "map", as_it_is).await;
    map.extend(floats.iter().map(|float| (float.to_string(), *float)));
    map.close().await.unwrap();
    let map: PersistentMap<f64> = open(store, "map", as_it_is).await;
    for float in floats {
        assert_eq!(
            map.get(float.to_string()).map(f64::to_bits),
            Some(float.to_bits())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_a_map_values_and_extend_are_those_of_a_hash_map() {
    let map = map().await;
    map.extend(HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
    let mut sum = 0;
    for (key, value) in &map {
        // A loop holds no lock.
        map.insert(format!("{key}{key}"), 0);
        sum += value;
    }
    assert_eq!((sum, map.len()), (3, 4));
    let mut values: Vec<_> = map.values().collect();
    values.sort_unstable();
    assert_eq!(values, [0, 0, 1, 2]);
    let again: std::collections::BTreeMap<_, _> = (&map).into_iter().collect();
    assert_eq!(again.len(), 4);
}

/// The type of a provider may be known only at run time.
#[tokio::test(start_paused = true)]
async fn a_provider_may_be_in_a_box_or_shared() {
    let memory = Memory::new();
    let boxed: Box<dyn Provider> = Box::new(memory.clone());
    let map: PersistentMap<u32> = open(boxed, "map", as_it_is).await;
    map.save_if("a", 1, persistify::Expect::Absent)
        .await
        .unwrap();
    map.close().await.unwrap();
    let shared: std::sync::Arc<dyn Provider> = std::sync::Arc::new(memory);
    let map: PersistentMap<u32> = open(shared.clone(), "map", as_it_is).await;
    let mut tx = persistify::Transaction::new(&shared);
    tx.insert(&map, "b", 2).commit().await.unwrap();
    assert_eq!(map.values().sum::<u32>(), 3);
    let boxed: Box<dyn Provider> = Box::new(shared);
    assert_eq!(boxed.maps().await.unwrap().len(), 1);
    assert!(boxed.capabilities().several_maps);
    boxed.ping().await.unwrap();
}
