//! Many threads at once: memory and store agree at the end, and no reader ever sees a torn value.

mod clears;

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

/// Flushes until the store has taken everything.
async fn flush<V>(map: &PersistentMap<V>)
where
    V: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    while let Err(error) = map.flush().await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

/// Random numbers that differ between threads but not between runs.
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
                // An error means that the store is down for now. The change stays pending, and is
                // checked at the end of the test.
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
                        // Changed part by part, so that a concurrent reader would see a torn value.
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

/// Flushes until nothing is pending, including writes during the flush.
async fn flush_whatever(map: &PersistentMap<u64>) {
    while map.flush().await.is_err() || map.pending() > 0 {}
}

/// A key that was written again during a failing commit went to the end of the queue, behind the
/// mark of a flush. The flush returned `Ok`, and the store had neither the older change nor the
/// newer one.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_a_change_whose_commit_failed_while_it_was_written_again() {
    let store = Faulty::new(Memory::new());
    // The interval is so long that no other flush saves the change.
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
