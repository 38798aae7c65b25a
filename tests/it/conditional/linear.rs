//! Concurrent conditional saves of one key are linearizable.
//!
//! Each save writes a unique value, on the condition that the entry is unchanged since it was
//! read. The successful saves therefore form a chain, and each observed value has a position in
//! it. The history is linearizable if no observation has a position that was over before the
//! observation began, or that was not reached yet when it ended.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use persistify::{
    ErrorKind, Expect, Memory, PersistentMap, Provider, RetryPolicy, Revision, testing::Faulty,
};

const TASKS: u64 = 16;
const ROUNDS: u64 = 40;
const KEYS: u64 = 3;

#[derive(Debug)]
enum Seen {
    /// A save: its value, the revision that it replaced, and its own revision.
    Wrote(u64, Revision, Revision),
    /// The entry had this revision.
    Found(Revision),
}

#[derive(Debug)]
struct Event {
    key: String,
    began: u64,
    ended: u64,
    seen: Seen,
}

#[derive(Default)]
struct History {
    now: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl History {
    fn now(&self) -> u64 {
        self.now.fetch_add(1, SeqCst)
    }

    fn note(&self, key: &str, began: u64, seen: Seen) {
        let (key, ended) = (key.to_owned(), self.now());
        let event = Event {
            key,
            began,
            ended,
            seen,
        };
        self.events.lock().push(event);
    }
}

async fn open(store: impl Provider) -> PersistentMap<u64> {
    let soon = Duration::from_millis(1);
    let retry = RetryPolicy::default().base_delay(soon).max_delay(soon);
    let retry = retry.max_attempts(50).probe_delay(soon);
    crate::support::open(store, "map", |map| map.retry(retry)).await
}

/// Saves on the condition that the entry is unchanged since it was last read. With `reads`, reads
/// of memory are part of the history.
async fn work(map: PersistentMap<u64>, history: Arc<History>, task: u64, how: (u64, bool)) {
    let (rounds, reads) = how;
    for round in 0..rounds {
        let key = format!("k{}", (task + round) % KEYS);
        let began = history.now();
        let (_, mut known) = map.get_with_revision(&key).unwrap();
        if reads {
            history.note(&key, began, Seen::Found(known));
        }
        let value = (task + 1) * 1_000_000 + round;
        for _ in 0..1_000 {
            let began = history.now();
            match map.save_if(&key, value, Expect::At(known)).await {
                Ok(revision) => {
                    history.note(&key, began, Seen::Wrote(value, known, revision));
                    break;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                    known = error.found().unwrap().revision;
                    history.note(&key, began, Seen::Found(known));
                }
            }
        }
    }
}

fn check(events: &[Event], first: Revision) -> Vec<u64> {
    let mut places = HashMap::from([(first, 0)]);
    let mut values = Vec::new();
    let wrote = |event: &Event| match event.seen {
        Seen::Wrote(value, over, revision) => Some((over, (value, revision))),
        Seen::Found(_) => None,
    };
    let writes: HashMap<_, _> = events.iter().filter_map(wrote).collect();
    let count = events.iter().filter_map(wrote).count();
    assert_eq!(writes.len(), count, "two saves over the same revision");
    let mut last = first;
    while let Some((value, revision)) = writes.get(&last) {
        values.push(*value);
        places.insert(*revision, values.len());
        last = *revision;
    }
    assert_eq!(values.len(), count, "the saves form no chain");
    let place = |event: &Event| match event.seen {
        Seen::Wrote(_, _, revision) | Seen::Found(revision) => places[&revision],
    };
    for write in events.iter().filter(|event| wrote(event).is_some()) {
        for other in events {
            if write.ended < other.began {
                assert!(
                    place(write) <= place(other),
                    "stale: {other:?} after {write:?}"
                );
            } else if other.ended < write.began {
                assert!(
                    place(other) < place(write),
                    "early: {other:?} before {write:?}"
                );
            }
        }
    }
    values
}

async fn run(maps: Vec<PersistentMap<u64>>, rounds: u64, reads: bool) {
    let mut first = HashMap::new();
    for n in 0..KEYS {
        let key = format!("k{n}");
        let revision = maps[0].save_if(&key, 0, Expect::Absent).await.unwrap();
        first.insert(key, revision);
    }
    for map in &maps {
        map.reload().await.unwrap();
    }
    let history = Arc::new(History::default());
    let tasks = (0..TASKS).map(|task| {
        let map = maps[usize::try_from(task).unwrap() % maps.len()].clone();
        tokio::spawn(work(map, history.clone(), task, (rounds, reads)))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let events = std::mem::take(&mut *history.events.lock());
    let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
    for event in events {
        by_key.entry(event.key.clone()).or_default().push(event);
    }
    let mut saved = 0;
    for (key, events) in by_key {
        let values = check(&events, first[&key]);
        saved += values.len() as u64;
        maps[0].reload().await.unwrap();
        assert_eq!(maps[0].get(&key), values.last().copied());
    }
    assert_eq!(saved, TASKS * rounds);
}

#[cfg(feature = "postgres")]
pub(crate) async fn on_two_stores(stores: [impl Provider; 2], rounds: u64) {
    let mut maps = Vec::new();
    for store in stores {
        maps.push(open(store).await);
    }
    run(maps, rounds, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_tasks_on_one_map_over_a_failing_store() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(3);
    let map = open(store.clone()).await;
    run(vec![map], ROUNDS, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_tasks_on_two_maps_of_one_store() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(4);
    let open = || open(store.clone());
    run(vec![open().await, open().await], ROUNDS, false).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_tasks_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = persistify::Sqlite::builder(folder.path().join("maps.db"));
    let file = file.synchronous(persistify::Synchronous::Normal);
    let file = file.open().await.unwrap();
    let open = || open(file.clone());
    run(vec![open().await, open().await], ROUNDS, false).await;
}
