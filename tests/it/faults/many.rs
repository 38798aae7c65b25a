//! Batches with very many refused changes.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use persistify::{
    Batch, Committed, Error, ErrorKind, Load, MapName, Memory, PersistentMap, Provider, Result,
    Wanted, async_trait, testing::Method,
};

use crate::support::{HOUR, in_memory, open, steady, store, stored};

const MANY: usize = 30_000;

/// Each key that the store named was searched for in the whole batch, and the error with all keys
/// was copied for each of them. A batch of 100,000 changes kept the map's task busy for many
/// minutes.
#[tokio::test]
async fn a_store_that_names_all_of_a_large_batch_does_so_at_a_price_that_follows_it() {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map).batch(2 * MANY, HOUR)
    })
    .await;
    let key = |n: usize| format!("k{n}");
    store.refuse((0..MANY).map(key));
    map.extend((0..=MANY).map(|n| (key(n), n)));
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!((error.keys().len(), map.refused().len()), (MANY, MANY));
    let named = map
        .refused()
        .iter()
        .all(|r| r.error.keys() == [r.key.clone()]);
    assert!(named);
    // The key that was not refused is committed in the next batch.
    assert_eq!(
        (stored(&store).await.len(), store.calls(Method::Commit)),
        (1, 2)
    );
}

/// When a batch is halved, each waiting save gets the result of its own key only, once,
/// whichever half it was in.
#[tokio::test]
async fn a_save_in_a_bisected_batch_is_answered() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(10_000, HOUR)).await;
    let is_bad = |n: u32| n.is_multiple_of(10);
    store.refuse_unnamed((0..1_000).filter(|n| is_bad(*n)).map(|n| n.to_string()));
    let save = |n: u32| {
        let map = map.clone();
        tokio::spawn(async move { map.insert_and_save(n.to_string(), n).await })
    };
    let saves: Vec<_> = (0..1_000).map(|n| (n, save(n))).collect();
    for (n, save) in saves {
        match save.await.unwrap() {
            Ok(_) => assert!(!is_bad(n), "{n}"),
            Err(error) => {
                assert!(is_bad(n), "{n}: {error:?}");
                assert_eq!(*error.keys()[0], *n.to_string());
            }
        }
    }
    assert_eq!((map.refused().len(), map.pending()), (100, 0));
}

/// When the store goes down while a batch is being halved, a save in the part that was not
/// sent yet must get the error and not wait.
#[tokio::test(start_paused = true)]
async fn a_save_in_a_half_that_is_not_sent_hears_that_the_store_is_down() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(10_000, HOUR)).await;
    store.refuse_unnamed(["7"]);
    store.fail_nth(3, persistify::testing::Fault::Before(ErrorKind::Unusable));
    let save = |n: u32| {
        let map = map.clone();
        tokio::spawn(async move { map.insert_and_save(n.to_string(), n).await })
    };
    let saves: Vec<_> = (0..64).map(save).collect();
    let mut down = 0;
    for save in saves {
        let done = save.await.unwrap();
        down += usize::from(done.is_err_and(|error| error.kind() == ErrorKind::Unusable));
    }
    assert!(down > 0);
    map.flush().await.unwrap_err();
    assert_eq!(
        (stored(&store).await.len(), in_memory(&map).len()),
        (63, 64)
    );
}

/// Refuses every change, with a cause that holds a handle of the map.
#[derive(Debug)]
struct Reluctant(Arc<OnceLock<PersistentMap<u32>>>);

#[derive(Debug)]
struct Reason(Arc<OnceLock<PersistentMap<u32>>>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not today")
    }
}

impl std::error::Error for Reason {}

/// Calls the map, as foreign code may do.
impl Drop for Reason {
    fn drop(&mut self) {
        if let Some(map) = self.0.get() {
            map.insert("dropped", 1);
        }
    }
}

#[async_trait]
impl Provider for Reluctant {
    async fn load<'a>(&'a self, _: &MapName, _: Wanted) -> Result<Load<'a>> {
        Ok(Load::of(persistify::Revision::ZERO, Vec::new()))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        if batch.maps[0].changes.is_empty() {
            return Memory::new().commit(batch).await;
        }
        let error = Error::new(ErrorKind::Refused, "no");
        Err(error.with_source(Reason(self.0.clone())))
    }
}

/// The contents of the queues were dropped while the whole map was locked. Other calls were
/// blocked for as long as that took, and the `Drop` of a refusal's reason could not call the
/// map.
#[tokio::test]
async fn a_cleared_value_is_dropped_without_a_lock() {
    let slot = Arc::new(OnceLock::new());
    let map = open::<u32>(Reluctant(slot.clone()), "map", |map| {
        map.batch(10_000, HOUR)
    })
    .await;
    map.insert("a", 1);
    drop(map.flush().await.unwrap_err());
    slot.set(map.clone()).unwrap();
    map.clear();
    assert_eq!(map.get("dropped"), Some(1));
}
