//! Reloading: clean entries get the state of the store, pending ones keep their own.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use persistify::{
    Batch, CachingMap, Change, Committed, ErrorKind, Load, MapName, Memory, PersistentMap,
    Provider, Result, Wanted,
    testing::{Fault, Faulty, Hang, Method},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::support::{as_it_is, open, open_caching, put, stored_values, write_as_another};

#[tokio::test(start_paused = true)]
async fn a_reload_updates_clean_entries_and_keeps_pending_ones() {
    let store = Memory::new();
    let map = open::<u64>(store.clone(), "map", as_it_is).await;
    map.extend([("same", 1), ("changed", 1), ("deleted", 1), ("mine", 1)]);
    map.extend([("removed", 1), ("gone and mine", 1)]);
    map.flush().await.unwrap();
    let theirs = vec![
        put("changed", "2"),
        put("mine", "2"),
        put("new", "2"),
        put("removed", "2"),
        Change::delete("deleted"),
        Change::delete("gone and mine"),
    ];
    write_as_another(&store, theirs).await;
    map.extend([("mine", 3), ("gone and mine", 3)]);
    map.remove("removed");
    map.reload().await.unwrap();
    let expected = [
        ("same", 1),
        ("changed", 2),
        ("new", 2),
        ("mine", 3),
        ("gone and mine", 3),
    ];
    let expected: HashMap<_, _> = expected.map(|(key, n)| (key.to_owned(), n)).into();
    assert_eq!(map.snapshot(), expected);
    assert_eq!(map.len(), 5);
    map.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(&store).await, expected);
    // A reloaded entry is known to be in the store, so its removal is saved.
    map.remove("new");
    map.flush().await.unwrap();
    assert!(!stored_values::<u64>(&store).await.contains_key("new"));
}

/// A write between the call of the store and its answer is newer than the answer.
#[tokio::test(start_paused = true)]
async fn a_write_during_a_reload_wins() {
    let store = Faulty::new(Memory::new());
    let map = open::<u64>(store.clone(), "map", as_it_is).await;
    map.extend([("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    map.flush().await.unwrap();
    let theirs = ["a", "b", "c", "d"].map(|key| put(key, "2"));
    write_as_another(store.inner(), theirs.into()).await;
    let writer = map.clone();
    store.set_rule(move |call| {
        if call.method == Method::Load {
            writer.insert("a", 3);
            writer.remove("b");
            writer.update("c", |n| *n = 4);
            writer.insert("new", 5);
        }
        Fault::None
    });
    map.reload().await.unwrap();
    let expected = [("a", 3), ("c", 4), ("d", 2), ("new", 5)];
    let expected: HashMap<_, _> = expected.map(|(key, n)| (key.to_owned(), n)).into();
    assert_eq!(map.snapshot(), expected);
    map.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(&store).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_clear_during_a_reload_is_not_undone() {
    let store = Faulty::new(Memory::new());
    let map = open::<u64>(store.clone(), "map", as_it_is).await;
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    let clearer = map.clone();
    store.set_rule(move |call| {
        if call.method == Method::Load {
            clearer.clear();
            clearer.insert("b", 2);
        }
        Fault::None
    });
    map.reload().await.unwrap();
    let expected = HashMap::from([("b".to_owned(), 2)]);
    assert_eq!(map.snapshot(), expected);
    map.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(&store).await, expected);
}

/// A reload waits until the outcome of a commit is known, or returns an error. It never adopts the
/// old stored value of a key whose change may still be committed.
#[tokio::test(start_paused = true)]
async fn a_reload_waits_for_a_commit_whose_fate_is_not_known() {
    let kind = ErrorKind::Unavailable;
    for fault in [Fault::Before(kind), Fault::Lost(kind), Fault::After(kind)] {
        for failures in [1, 2, 5, 7] {
            let store = Faulty::new(Memory::new());
            let retry = persistify::RetryPolicy::default().max_attempts(5);
            let map = open::<u64>(store.clone(), "map", |map| map.retry(retry)).await;
            map.insert_and_save("a", 1).await.unwrap();
            map.insert("a", 2);
            store.fail_next(failures, fault.clone());
            let reloaded = map.reload().await;
            assert_eq!(reloaded.is_ok(), failures < 5, "{fault:?} {failures}");
            assert_eq!(map.get("a"), Some(2));
            while map.flush().await.is_err() {}
            map.reload().await.unwrap();
            assert_eq!(map.get("a"), Some(2));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reloads_among_writers_resurrect_nothing_and_lose_nothing() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(7);
    let soon = Duration::from_millis(1);
    let retry = persistify::RetryPolicy::default()
        .base_delay(soon)
        .max_delay(soon)
        .probe_delay(soon);
    let map = open::<u64>(store.clone(), "map", |map| map.batch(5, soon).retry(retry)).await;
    let done = Arc::new(AtomicBool::new(false));
    let (reloader, stop) = (map.clone(), done.clone());
    let reloading = tokio::spawn(async move {
        let mut reloads = 0;
        while !stop.load(SeqCst) {
            reloads += u64::from(reloader.reload().await.is_ok());
        }
        reloads
    });
    // Each key has one writer, which knows the expected value.
    let writer = |n: u64| {
        let map = map.clone();
        tokio::task::spawn_blocking(move || {
            let key = format!("k{n}");
            for round in 0..3_000 {
                assert_eq!(map.insert(&key, round), None, "{key} came back");
                assert_eq!(map.get(&key), Some(round), "{key} was lost");
                assert_eq!(map.update(&key, |v| *v += 1), Some(()));
                if round % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(300));
                }
                assert_eq!(map.remove(&key), Some(round + 1));
                assert_eq!(map.get(&key), None, "{key} came back");
            }
            map.insert(&key, n);
        })
    };
    for writer in (0..4).map(writer).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    done.store(true, SeqCst);
    assert!(reloading.await.unwrap() > 10);
    while map.flush().await.is_err() {}
    assert_eq!(map.len(), 4);
    assert_eq!(map.snapshot(), stored_values(store.inner()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reloads_among_clears_resurrect_nothing() {
    let store = Memory::new();
    let map = open::<u64>(store.clone(), "map", as_it_is).await;
    let done = Arc::new(AtomicBool::new(false));
    let (reloader, stop) = (map.clone(), done.clone());
    let reloading = tokio::spawn(async move {
        while !stop.load(SeqCst) {
            reloader.reload().await.unwrap();
        }
    });
    for round in 0..2_000 {
        map.insert_and_save("a", round).await.unwrap();
        map.clear();
        for _ in 0..20 {
            assert_eq!(map.get("a"), None, "round {round}");
            tokio::task::yield_now().await;
        }
    }
    done.store(true, SeqCst);
    reloading.await.unwrap();
    map.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(&store).await, HashMap::new());
}

/// A provider that loads one record per page, and fails before the page with that number.
#[derive(Debug)]
struct Torn {
    store: Memory,
    bad_page: usize,
    breaks: Arc<AtomicBool>,
}

#[async_trait]
impl Provider for Torn {
    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let load = self.store.load(map, wanted).await?;
        let horizon = load.horizon;
        let mut records = load.into_records().await?;
        records.sort_by(|a, b| a.key.cmp(&b.key));
        let mut pages: Vec<_> = records.into_iter().map(|record| Ok(vec![record])).collect();
        if self.breaks.load(SeqCst) {
            let error = persistify::Error::new(ErrorKind::Unavailable, "cut off");
            pages.insert(self.bad_page, Err(error));
        }
        Ok(Load::new(horizon, stream::iter(pages).boxed()))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.store.commit(batch).await
    }
}

/// As documented: the entries before the error are as in the store, the others are unchanged,
/// and pending changes stay pending.
#[tokio::test(start_paused = true)]
async fn a_reload_that_breaks_off_leaves_the_rest_as_it_was() {
    let (store, breaks) = (Memory::new(), Arc::new(AtomicBool::new(false)));
    let torn = Torn {
        store: store.clone(),
        bad_page: 1,
        breaks: breaks.clone(),
    };
    let map = open::<u64>(torn, "map", as_it_is).await;
    map.extend([("a", 1), ("b", 1), ("c", 1)]);
    map.flush().await.unwrap();
    let theirs = vec![put("a", "2"), put("b", "2"), Change::delete("c")];
    write_as_another(&store, theirs).await;
    breaks.store(true, SeqCst);
    let error = map.reload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.map(), Some("map"));
    let now = ["a", "b", "c"].map(|key| map.get(key));
    assert_eq!(now, [Some(2), Some(1), Some(1)]);
    breaks.store(false, SeqCst);
    map.reload().await.unwrap();
    let now = ["a", "b", "c"].map(|key| map.get(key));
    assert_eq!(now, [Some(2), Some(2), None]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_the_store_does_not_answer_changes_nothing() {
    let store = Faulty::new(Memory::new());
    let map = open::<u64>(store.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    write_as_another(store.inner(), vec![put("a", "2")]).await;
    store.fail_next_of(Method::Load, 1, Fault::Before(ErrorKind::Unusable));
    let error = map.reload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    let hang = persistify::testing::Hang::new();
    store.fail_next_of(Method::Load, 1, Fault::Hang(hang));
    let error = map.reload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(map.get("a"), Some(1));
    // The task that saves still works.
    map.insert_and_save("b", 1).await.unwrap();
    map.reload().await.unwrap();
    assert_eq!(map.get("a"), Some(2));
}

/// A number that panics at 13 when it is decoded.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Superstitious(u64);

impl<'de> Deserialize<'de> for Superstitious {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(from)?;
        assert_ne!(number, 13, "bad luck");
        Ok(Self(number))
    }
}

/// A `Deserialize` that panicked on a value of another process ended the background task, and
/// nothing was saved any more.
#[tokio::test(start_paused = true)]
async fn a_value_that_panics_when_it_is_read_does_not_end_the_saving() {
    let store = Memory::new();
    let map: PersistentMap<Superstitious> = open(store.clone(), "map", as_it_is).await;
    map.insert_and_save("a", Superstitious(12)).await.unwrap();
    write_as_another(&store, vec![put("a", "13")]).await;
    let error = map.reload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(map.get("a"), Some(Superstitious(12)));
    map.insert_and_save("b", Superstitious(14)).await.unwrap();
}

/// An entry that was read during the reload had a new idle deadline to save, and was taken for
/// one that was written. It kept its old value with the revision of another process's value, for
/// good, and the next conditional save overwrote that value.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_read_during_a_reload_follows_the_store() {
    let (store, hang) = (Faulty::new(Memory::new()), Hang::new());
    let hour = Duration::from_hours(1);
    let map: CachingMap<u64> = open_caching(store.clone(), "map", |map| {
        map.batch(1_000, hour)
            .commit_timeout(hour)
            .time_to_idle(Duration::from_secs(100))
    })
    .await;
    map.insert_and_save("a", 1).await.unwrap();
    write_as_another(&store, vec![put("a", "2")]).await;
    store.fail_next_of(Method::Load, 1, Fault::Hang(hang.clone()));
    let reads = async {
        hang.hangs().await;
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(map.get("a"), Some(1));
        hang.release();
    };
    let (reloaded, ()) = tokio::join!(map.reload(), reads);
    reloaded.unwrap();
    map.flush().await.unwrap();
    assert_eq!(map.get("a"), Some(2));
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), Some(3));
}
