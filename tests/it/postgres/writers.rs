//! Tasks that write to a map continuously and record the acknowledged values.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use persistify::{ErrorKind, PersistentMap, Provider, RetryPolicy};

use super::{Database, Witness, eventually, table_of};

const TASKS: usize = 4;
const KEYS_EACH: usize = 5;

pub(crate) fn impatient() -> RetryPolicy {
    RetryPolicy::default()
        .max_attempts(3)
        .base_delay(Duration::from_millis(10))
        .max_delay(Duration::from_millis(200))
        .probe_delay(Duration::from_millis(200))
}

/// A map that retries quickly.
pub(crate) async fn open(store: impl Provider) -> PersistentMap<u64> {
    PersistentMap::builder(store, "map")
        .batch(10, Duration::from_millis(5))
        .commit_timeout(Duration::from_secs(1))
        .retry(impatient())
        .open()
        .await
        .unwrap()
}

/// Tasks that write increasing numbers to a map.
pub(crate) struct Writers {
    map: PersistentMap<u64>,
    acknowledged: Arc<Vec<AtomicU64>>,
    saves: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    pub(crate) fn at(map: &PersistentMap<u64>) -> Self {
        let mut writers = Self {
            map: map.clone(),
            acknowledged: Arc::new((0..TASKS * KEYS_EACH).map(|_| AtomicU64::new(0)).collect()),
            saves: Arc::default(),
            enough: Arc::default(),
            tasks: Vec::new(),
        };
        writers.tasks = (0..TASKS)
            .map(|task| tokio::spawn(writers.write(task)))
            .collect();
        writers
    }

    fn write(&self, task: usize) -> impl Future<Output = ()> + Send + 'static {
        let (map, acknowledged) = (self.map.clone(), self.acknowledged.clone());
        let (saves, enough) = (self.saves.clone(), self.enough.clone());
        async move {
            for number in 1.. {
                if enough.load(SeqCst) {
                    return;
                }
                let slot = task * KEYS_EACH + rand::random_range(0..KEYS_EACH);
                let key = key(slot);
                if rand::random_ratio(1, 3) {
                    map.insert(&key, number);
                    tokio::task::yield_now().await;
                    continue;
                }
                match map.insert_and_save(&key, number).await {
                    Ok(_) => {
                        acknowledged[slot].store(number, SeqCst);
                        saves.fetch_add(1, SeqCst);
                    }
                    // The only error expected, regardless of the fault of the server.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
                }
            }
        }
    }

    /// The number of acknowledged saves.
    pub(crate) fn saves(&self) -> u64 {
        self.saves.load(SeqCst)
    }

    /// Waits until `saves` more saves are acknowledged.
    pub(crate) async fn go_on(&self, saves: u64) {
        let enough = self.saves() + saves;
        eventually("saves go on", || self.saves() >= enough).await;
    }

    /// Checks that the table has all acknowledged values, or newer ones.
    pub(crate) fn check(&self, database: &Database) {
        let acknowledged: Vec<_> = self.acknowledged.iter().map(|n| n.load(SeqCst)).collect();
        let stored = numbers(&database.witness());
        for (slot, acknowledged) in acknowledged.into_iter().enumerate() {
            let found = stored.get(&key(slot)).copied().unwrap_or(0);
            assert!(
                found >= acknowledged,
                "{}: {found}, acknowledged {acknowledged}",
                key(slot)
            );
        }
    }

    /// Stops the writers and checks that everything is committed without a flush.
    pub(crate) async fn finish(mut self, database: &Database) {
        self.enough.store(true, SeqCst);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        eventually("all is saved", || self.map.pending() == 0).await;
        assert_eq!(numbers(&database.witness()), self.map.snapshot());
        assert!(self.map.refused().is_empty());
    }
}

fn key(slot: usize) -> String {
    format!("key {slot}")
}

/// The rows of the table of the map `map`.
pub(crate) fn numbers(witness: &Witness) -> HashMap<String, u64> {
    let rows = witness.rows(format!("SELECT key, value::text FROM {}", table_of("map")));
    let number = |text: String| text.parse().unwrap();
    rows.iter()
        .map(|row| (row.get(0), number(row.get(1))))
        .collect()
}
