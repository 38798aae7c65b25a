//! Many threads at once: whatever the order, memory and store agree at the end,
//! and nobody ever sees half a value.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use persistify::{
    ErrorKind, Memory, PersistentMap, PersistentMapBuilder, RetryPolicy,
    testing::{Fault, Faulty, Method},
};
use serde::{Deserialize, Serialize};

use crate::support::{open, settle, stored_values};

/// Small batches, and retries without a pause.
fn hasty<V: 'static>(builder: PersistentMapBuilder<V>) -> PersistentMapBuilder<V> {
    let soon = Duration::from_millis(1);
    let retry = RetryPolicy::default().base_delay(soon).max_delay(soon);
    builder.batch(7, soon).retry(retry.probe_delay(soon))
}

/// A flush that goes on until the store has taken everything.
async fn flush<V>(map: &PersistentMap<V>)
where
    V: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    while let Err(error) = map.flush().await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

/// Numbers that differ from thread to thread and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_on_five_keys_over_a_failing_store() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(3);
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    let write = |n: u64| {
        let map = map.clone();
        async move {
            let mut dice = Dice(n + 1);
            for round in 0..300 {
                let key = format!("k{}", dice.below(5));
                let value = n * 1_000_000 + round;
                // An error says that the store is down for now; what was
                // written stays pending, and the end of the test sees it.
                match dice.below(6) {
                    0 => drop(map.insert(&key, value)),
                    1 => drop(map.remove(&key)),
                    2 => drop(map.update(&key, |v| *v = value)),
                    3 => drop(map.insert_and_save(&key, value).await),
                    4 => drop(map.remove_and_save(&key).await),
                    _ => drop(map.update_and_save(&key, |v| *v = value).await),
                }
            }
        }
    };
    let writers: Vec<_> = (0..8).map(|n| tokio::spawn(write(n))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    flush(&map).await;
    assert_eq!(map.snapshot(), stored_values(store.inner()).await);
    assert_eq!((map.pending(), map.refused().len()), (0, 0));
    assert!(store.calls(Method::Commit) > 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_at_once_and_then_memory_and_store_agree() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(5);
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    let work = |n: u64| {
        let map = map.clone();
        async move {
            let mut dice = Dice(n * 7_919 + 1);
            for round in 0..400 {
                let key = dice.below(40).to_string();
                match dice.below(24) {
                    0 => map.clear(),
                    1 => drop(map.clear_and_save().await),
                    2 => drop(map.flush().await),
                    3 => drop(map.reload().await),
                    4 => drop(map.retry_refused()),
                    5 => map.retain(|_, v| v % 3 != 0),
                    6 | 7 => drop(map.remove_and_save(&key).await),
                    8..12 => drop(map.insert_and_save(&key, round).await),
                    12..15 => drop(map.remove(&key)),
                    15..18 => map.upsert(&key, round, |v| *v += 1),
                    18 => drop(map.try_insert(&key, round)),
                    19 => drop(map.replace(&key, round)),
                    _ => drop(map.insert(&key, round)),
                }
            }
        }
    };
    let workers: Vec<_> = (0..8).map(|n| tokio::spawn(work(n))).collect();
    for worker in workers {
        worker.await.unwrap();
    }
    flush(&map).await;
    let memory = map.snapshot();
    assert_eq!(memory, stored_values(store.inner()).await);
    assert_eq!(map.pending(), 0);
    assert_eq!(map.len(), memory.len());
    assert_eq!(
        (map.iter().count(), map.keys().count()),
        (map.len(), map.len())
    );
    let mut each = 0;
    map.for_each(|_, _| each += 1);
    assert_eq!(each, map.len());
    assert_eq!(map.stats().oldest_pending, None);
}

/// A value whose parts belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Whole {
    number: u64,
    text: String,
    twice: Vec<u64>,
}

impl Whole {
    fn new(number: u64) -> Self {
        Self {
            number,
            text: number.to_string().repeat(5),
            twice: vec![number * 2; 16],
        }
    }

    fn check(&self) {
        assert_eq!(*self, Self::new(self.number), "a torn value");
    }
}

/// P1: no torn or mixed value is ever visible, in memory or in the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_value_that_anybody_sees_is_whole() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(4);
    let map: PersistentMap<Whole> = open(store.clone(), "map", hasty).await;
    let done = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..6)
        .map(|n| {
            let (map, done) = (map.clone(), done.clone());
            std::thread::spawn(move || {
                let mut dice = Dice(n + 1);
                while !done.load(SeqCst) {
                    let key = dice.below(4).to_string();
                    match (n % 2, dice.below(5)) {
                        (0, 0) => drop(map.insert(&key, Whole::new(dice.below(1 << 40)))),
                        (0, 1) => drop(map.remove(&key)),
                        // Part by part, so that whoever looks in between would see it.
                        (0, _) => drop(map.update(&key, |whole| {
                            whole.number += 1;
                            std::thread::yield_now();
                            whole.text = whole.number.to_string().repeat(5);
                            whole.twice.fill(whole.number * 2);
                        })),
                        (_, 0) => drop(map.read(&key, Whole::check)),
                        (_, 1) => map.for_each(|_, whole| whole.check()),
                        (_, 2) => map.iter().for_each(|(_, whole)| whole.check()),
                        _ => drop(map.get(&key).map(|whole| whole.check())),
                    }
                }
            })
        })
        .collect();
    let until = Instant::now() + Duration::from_millis(400);
    while Instant::now() < until {
        stored_values::<Whole>(store.inner())
            .await
            .values()
            .for_each(Whole::check);
        tokio::task::yield_now().await;
    }
    done.store(true, SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
    flush(&map).await;
    assert_eq!(map.snapshot(), stored_values(store.inner()).await);
}

/// A thread writes the next number to `a` and then to `b`, over and over, while
/// another one clears. If a clear is one point in time, then whoever sees `a` at
/// n sees `b` at n-1 or n, or sees no `b` because the clear came between `b` at
/// n-1 and `a` at n. So once both were written for n, a state with `a` at n and
/// no `b` is one that never was: a clear that took the younger write and left
/// the older.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clear_never_takes_a_younger_write_and_leaves_an_older_one() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(4);
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    let done = Arc::new(AtomicBool::new(false));
    let clears = Arc::new(AtomicU64::new(0));
    let clearing = {
        let (map, done, clears) = (map.clone(), done.clone(), clears.clone());
        std::thread::spawn(move || {
            while !done.load(SeqCst) {
                map.clear();
                clears.fetch_add(1, SeqCst);
            }
        })
    };
    let looks = tokio::task::spawn_blocking({
        let map = map.clone();
        move || {
            // Many keys: they are in many shards, and a clear that goes shard by
            // shard is seen between two of them.
            let keys: Vec<_> = (0..64).map(|n| format!("key {n}")).collect();
            for round in 0..3_000 {
                for key in &keys {
                    map.insert(key, round);
                }
                // One writer, so what is gone stays gone until the next round;
                // and a clear takes a prefix of what was written.
                let first = keys.iter().position(|key| map.contains_key(key));
                if let Some(first) = first {
                    let rest = &keys[first..];
                    let gone = rest.iter().find(|key| map.get(key) != Some(round));
                    // A clear may have come since; then `first` is gone as well.
                    if let Some(gone) = gone {
                        assert!(
                            !map.contains_key(&keys[first]),
                            "a clear took {gone} and left {}, which is older",
                            keys[first]
                        );
                    }
                }
            }
        }
    });
    let mut looked = 0;
    while !looks.is_finished() {
        // The store follows in the order of commits, and a commit may hold any
        // of what was written; but what it cleared it cleared whole.
        let _ = map.flush().await;
        looked += stored_values::<u64>(store.inner()).await.len();
    }
    looks.await.unwrap();
    done.store(true, SeqCst);
    clearing.join().unwrap();
    flush(&map).await;
    assert_eq!(map.snapshot(), stored_values(store.inner()).await);
    assert!(clears.load(SeqCst) > 100, "{clears:?}, {looked}");
}

/// What is written after a clear stays, what was there before it does not come
/// back, whatever was in flight: the commit in flight holds old values, and
/// lands, or fails, or lands and fails, after the clear.
#[tokio::test(start_paused = true)]
async fn a_clear_during_a_commit_resurrects_nothing_and_loses_nothing_newer() {
    let unavailable = ErrorKind::Unavailable;
    let fates = [
        Fault::None,
        Fault::Before(unavailable),
        Fault::Lost(unavailable),
        Fault::After(unavailable),
        Fault::Before(ErrorKind::Unusable),
        Fault::After(ErrorKind::Unusable),
    ];
    for fate in fates {
        let store = Faulty::new(Memory::new());
        let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
        map.insert_and_save("stored", 1).await.unwrap();
        map.extend([("stored", 2), ("both", 1), ("before", 1)]);
        let (inside, outcome) = (map.clone(), fate.clone());
        let mut calls = 0;
        // Within the call: after the batch was made, before it takes effect.
        store.set_rule(move |call| {
            if call.method != Method::Commit {
                return Fault::None;
            }
            calls += 1;
            if calls > 1 {
                return Fault::None;
            }
            inside.insert("before", 2);
            inside.clear();
            inside.extend([("both", 2), ("after", 2)]);
            outcome.clone()
        });
        flush_whatever(&map).await;
        let expected = HashMap::from([("both".to_owned(), 2), ("after".to_owned(), 2)]);
        assert_eq!(map.snapshot(), expected, "{fate:?}");
        assert_eq!(
            stored_values::<u64>(store.inner()).await,
            expected,
            "{fate:?}"
        );
        let again: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
        assert_eq!(again.snapshot(), expected, "{fate:?}");
    }
}

/// Also what was written while the flush was on its way.
async fn flush_whatever(map: &PersistentMap<u64>) {
    while map.flush().await.is_err() || map.pending() > 0 {}
}

/// A key that was written again during a commit that failed went to the end of
/// the queue, behind the end that a flush had marked: the flush said that all
/// was saved, and the store had neither the older change nor the newer one.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_a_change_whose_commit_failed_while_it_was_written_again() {
    let store = Faulty::new(Memory::new());
    // So long that no other flush comes to its help.
    let map = hasty(PersistentMap::builder(store.clone(), "map"))
        .batch(1_000, Duration::from_hours(1))
        .open();
    let map: PersistentMap<u64> = map.await.unwrap();
    map.insert("a", 1);
    let again = map.clone();
    store.set_rule(move |call| match (call.method, call.number) {
        (Method::Commit, 1) => {
            again.insert("a", 2);
            Fault::Before(ErrorKind::Unavailable)
        }
        _ => Fault::None,
    });
    map.flush().await.unwrap();
    assert_eq!(stored_values::<u64>(store.inner()).await.get("a"), Some(&2));
}

/// After a clear, a removal found nothing in memory and returned at once, saved
/// as it said; but the store, which had not heard of the clear yet, gave the
/// entry back after a crash.
#[tokio::test(start_paused = true)]
async fn a_saved_removal_after_a_clear_waits_for_the_clear() {
    let store = Faulty::new(Memory::new());
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    assert_eq!(map.remove_and_save("a").await.unwrap(), None);
    assert_eq!(stored_values::<u64>(store.inner()).await, HashMap::new());
}

/// Each first key in an empty queue set the age of what is pending anew, also
/// when a clear had waited for long: a program that inserted and removed a key
/// now and then kept its clear from the store for ever.
#[tokio::test(start_paused = true)]
async fn a_clear_is_saved_within_the_interval_whatever_comes_after_it() {
    let store = Faulty::new(Memory::new());
    let second = Duration::from_secs(1);
    let map: PersistentMap<u64> = open(store.clone(), "map", |map| map.batch(1_000, second)).await;
    map.insert_and_save("a", 1).await.unwrap();
    settle().await;
    map.clear();
    for _ in 0..6 {
        tokio::time::sleep(second / 4).await;
        map.insert("b", 2);
        map.remove("b");
    }
    assert_eq!(stored_values::<u64>(store.inner()).await, HashMap::new());
}

/// A clear takes what a flush waits for out of the queue, so the flush has to
/// see that clear saved. But not each one that follows: with a clear in each
/// commit it never ended.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_one_clear_that_came_after_it_and_not_for_all() {
    let store = Faulty::new(Memory::new());
    let map = hasty(PersistentMap::builder(store.clone(), "map"))
        .batch(1_000, Duration::from_hours(1))
        .max_batch(1);
    let map: PersistentMap<u64> = map.open().await.unwrap();
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    map.extend([("a", 2), ("b", 2)]);
    let clearer = map.clone();
    let before = store.calls(Method::Commit);
    store.set_rule(move |call| {
        if call.method == Method::Commit && call.number < 1_000 {
            clearer.clear();
            clearer.insert("c", 2);
        }
        Fault::None
    });
    map.flush().await.unwrap();
    assert!(store.calls(Method::Commit) - before < 10);
    let stored = stored_values::<u64>(store.inner()).await;
    let old = stored.values().any(|value| *value == 1);
    assert!(!old, "what the flush waited for is not there: {stored:?}");
}

/// `clear_and_save` with flushes all around: what it acknowledged is in the
/// store at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acknowledged_clear_is_in_the_store() {
    let store = Faulty::new(Memory::new());
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    let done = Arc::new(AtomicBool::new(false));
    let (flushing, stop) = (map.clone(), done.clone());
    let flushing = tokio::spawn(async move {
        while !stop.load(SeqCst) {
            flushing.flush().await.unwrap();
        }
    });
    for round in 0..2_000 {
        map.insert_and_save("a", round).await.unwrap();
        map.clear_and_save().await.unwrap();
        assert_eq!(
            stored_values::<u64>(store.inner()).await,
            HashMap::new(),
            "{round}"
        );
    }
    done.store(true, SeqCst);
    flushing.await.unwrap();
}
