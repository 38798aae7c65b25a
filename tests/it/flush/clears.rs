//! Flushes of maps that are cleared.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_cleared_map_is_flushed_by_age_and_by_request() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    assert_eq!(map.pending(), 1);
    let start = Instant::now();
    store.ended(Method::Commit, 2).await;
    about(start.elapsed(), SECOND);
    assert!(stored(&store).await.is_empty());
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    map.insert("b", 2);
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("b", 2)]));
}

/// Clears the map, and writes a key of it again, when it is woken.
struct ClearAndInsert(PersistentMap<f64>);

impl std::task::Wake for ClearAndInsert {
    fn wake(self: Arc<Self>) {
        self.0.clear();
        self.0.insert("b", 2.0);
    }
}

/// A subscriber clears the map when it receives a refused value, while the batch is still being
/// collected. A value that was written after the clear must not be committed before it.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_put_together_during_a_clear_is_put_together_again() {
    let store = store();
    let map = open::<f64>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    let mut events = map.failures();
    let mut heard = std::pin::pin!(events.recv());
    let waker = Arc::new(ClearAndInsert(map.clone())).into();
    let mut context = std::task::Context::from_waker(&waker);
    assert!(heard.as_mut().poll(&mut context).is_pending());
    let saved = tokio::join!(
        map.insert_and_save("a", 1.0),
        map.insert_and_save("nan", f64::NAN),
        map.insert_and_save("b", 1.0),
    );
    assert_eq!(saved.1.unwrap_err().kind(), ErrorKind::Refused);
    assert!(saved.0.is_ok() && saved.2.is_ok());
    assert_eq!(map.len(), 1);
    map.flush().await.unwrap();
    let stored = stored(&store).await;
    assert_eq!(stored, [("b".to_owned(), "2.0".to_owned())].into());
}

/// A clear with a save came between two checks of the flusher: whether a clear is pending, and
/// which callers wait. The save got `Ok`, and the store still had all entries.
#[test]
fn a_clear_that_was_saved_is_in_the_store() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store();
        let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let flushing = tokio::spawn(flush_all_the_time(map.clone(), stop.clone()));
        for round in 0..5_000 {
            map.insert_and_save("a", round).await.unwrap();
            map.clear_and_save().await.unwrap();
            assert!(is_empty(&store).await, "round {round}");
        }
        stop.store(true, Relaxed);
        flushing.await.unwrap();
    });
}

async fn flush_all_the_time(map: PersistentMap<u32>, stop: Arc<AtomicBool>) {
    while !stop.load(Relaxed) {
        map.flush().await.unwrap();
    }
}

/// After a clear that was not committed yet, the removal of a key was acknowledged at once,
/// because memory had no such key. After a crash, the key was back.
#[tokio::test(start_paused = true)]
async fn a_removal_after_a_clear_waits_for_the_clear() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    map.clear();
    assert_eq!(map.remove_and_save("a").await.unwrap(), None);
    assert!(stored(&store).await.is_empty());
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    map.insert("a", 2);
    assert_eq!(map.remove_and_save("a").await.unwrap(), Some(2));
    assert!(stored(&store).await.is_empty());
}

/// A clear came after the pending changes were committed and before the reload began. The reload
/// brought all entries back.
#[tokio::test(start_paused = true)]
async fn a_reload_brings_nothing_back_that_was_cleared() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.extend([("a", 1), ("b", 1)]);
    let clearing = map.clone();
    store.set_rule(move |call| {
        if call.method == Method::Commit && call.number == 1 {
            clearing.clear();
            clearing.insert("c", 3);
        }
        Fault::None
    });
    map.reload().await.unwrap();
    assert_eq!(in_memory(&map), pairs([("c", 3)]));
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("c", 3)]));
    map.reload().await.unwrap();
    assert_eq!(in_memory(&map), pairs([("c", 3)]));
}

/// A clear during a flush is not part of it. A stream of clears kept a flush from ever ending.
#[tokio::test(start_paused = true)]
async fn a_stream_of_clears_does_not_starve_a_flush() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    let clearing = map.clone();
    store.set_rule(move |call| {
        if call.method == Method::Commit && call.number < MANY {
            clearing.clear();
        }
        Fault::None
    });
    map.insert("a", 1);
    map.flush().await.unwrap();
    assert_eq!(store.calls(Method::Commit), 1);
}

async fn is_empty(store: &Store) -> bool {
    stored(store).await.is_empty()
}
