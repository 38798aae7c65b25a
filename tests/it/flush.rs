//! When a flush starts, what it takes, and for whom.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use persistify::{
    ErrorKind, PersistentMap,
    testing::{Fault, Hang, Method},
};
use tokio::time::{Instant, sleep};

use crate::support::{
    HOUR, SECOND, Store, in_memory, keys, open, open_numbers, pairs, settle, steady, store, stored,
    told,
};

/// A test that goes round in circles must fail, not hang.
const MANY: u64 = 1_000;

fn about(elapsed: Duration, expected: Duration) {
    let late = elapsed.checked_sub(expected);
    let late = late.unwrap_or_else(|| panic!("after {elapsed:?}, not {expected:?}"));
    assert!(late < Duration::from_millis(10), "{late:?} late");
}

#[tokio::test(start_paused = true)]
async fn enough_pending_keys_start_one() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(3, HOUR)).await;
    map.insert("a", 1);
    map.insert("b", 2);
    map.insert("b", 3);
    sleep(Duration::from_mins(59)).await;
    assert_eq!(store.calls(Method::Commit), 0);
    let start = Instant::now();
    map.insert("c", 4);
    store.ended(Method::Commit, 1).await;
    about(start.elapsed(), Duration::ZERO);
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 3), ("c", 4)]));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_oldest_change_starts_one() {
    let store = store();
    let map = open_numbers(&store).await;
    for _ in 0..3 {
        let (start, calls) = (Instant::now(), store.calls(Method::Commit));
        map.insert("a", 1);
        sleep(SECOND / 2).await;
        map.insert("b", 2);
        sleep(SECOND / 4).await;
        map.insert("a", 3);
        store.ended(Method::Commit, calls + 1).await;
        about(start.elapsed(), SECOND);
        settle().await;
        assert_eq!(map.pending(), 0);
        sleep(HOUR).await;
    }
    assert_eq!(store.calls(Method::Commit), 3);
    assert_eq!(stored(&store).await, pairs([("a", 3), ("b", 2)]));
}

#[tokio::test(start_paused = true)]
async fn what_is_written_during_a_commit_waits_from_its_own_time() {
    let store = store();
    let map = open_numbers(&store).await;
    let hang = store.hang_next();
    map.insert("a", 1);
    hang.hangs().await;
    sleep(SECOND / 2).await;
    map.insert("b", 2);
    let written = Instant::now();
    assert_eq!(map.pending(), 2);
    hang.release();
    store.begun(Method::Commit, 2).await;
    assert!(written.elapsed() <= SECOND + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_request_starts_one() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    let start = Instant::now();
    map.flush().await.unwrap();
    about(start.elapsed(), Duration::ZERO);
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    sleep(HOUR).await;
    assert_eq!(store.calls(Method::Commit), 1);
}

#[tokio::test(start_paused = true)]
async fn many_writes_to_a_key_are_one_change() {
    let store = store();
    let map = open_numbers(&store).await;
    for n in 0..10_000 {
        map.insert("a", n);
    }
    map.remove("a");
    map.upsert("a", 7, |n| *n += 1);
    assert_eq!(map.pending(), 1);
    map.flush().await.unwrap();
    assert_eq!(store.batches().len(), 1);
    assert_eq!(
        told(&store.batches()[0]),
        [("a".into(), Some("7".into()))].into()
    );
    assert_eq!(map.stats().changes, 1);
}

#[tokio::test(start_paused = true)]
async fn with_nothing_pending_nobody_is_called() {
    let store = store();
    let map = open_numbers(&store).await;
    map.flush().await.unwrap();
    map.insert("a", 1);
    map.remove("a");
    map.flush().await.unwrap();
    map.insert("a", 1);
    map.flush().await.unwrap();
    assert_eq!(store.calls(Method::Commit), 1);
    map.flush().await.unwrap();
    map.remove("nothing");
    map.update("nothing", |_| ());
    map.replace("nothing", 1);
    assert_eq!(map.remove_and_save("nothing").await.unwrap(), None);
    sleep(HOUR).await;
    let quiet = [Method::Release, Method::Maps, Method::Ping, Method::Close];
    assert_eq!(quiet.map(|method| store.calls(method)), [0; 4]);
    assert_eq!(store.calls(Method::Commit), 1);
    assert_eq!(map.stats().oldest_pending, None);
}

/// Whoever was told that all is saved, and asked at once how old the oldest
/// pending change was, heard of one that was not pending any more.
#[tokio::test(start_paused = true)]
async fn with_nothing_pending_nothing_is_the_oldest() {
    let store = store();
    let map = open_numbers(&store).await;
    for n in 0..3 {
        sleep(SECOND).await;
        map.insert_and_save("a", n).await.unwrap();
        assert_eq!((map.pending(), map.stats().oldest_pending), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_split_by_keys() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| steady(map).max_batch(10)).await;
    map.extend((0..25).map(|n| (n.to_string(), n)));
    map.flush().await.unwrap();
    let sizes: Vec<_> = store.batches().iter().map(|b| keys(b).len()).collect();
    assert_eq!(sizes, [10, 10, 5]);
    let order: Vec<_> = store.batches().iter().flat_map(keys).collect();
    let written: Vec<_> = (0..25).map(|n| n.to_string()).collect();
    assert_eq!(order, written, "they leave in the order in which they came");
    assert_eq!(stored(&store).await, in_memory(&map));
}

#[tokio::test(start_paused = true)]
async fn batches_are_split_by_bytes() {
    let store = store();
    let map: PersistentMap<String> =
        open(store.clone(), "map", |map| steady(map).max_batch_bytes(100)).await;
    for n in 0..4 {
        map.insert(n.to_string(), "x".repeat(47)); // with key and quotes, 50 bytes
    }
    map.insert("large", "x".repeat(10_000));
    map.insert("z", String::new());
    map.flush().await.unwrap();
    let batches: Vec<_> = store.batches().iter().map(keys).collect();
    let expected: [&[&str]; 4] = [&["0", "1"], &["2", "3"], &["large"], &["z"]];
    assert_eq!(batches, expected);
}

#[tokio::test(start_paused = true)]
async fn the_triggers_change_while_the_map_runs() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.extend([("a", 1), ("b", 2)]);
    sleep(SECOND).await;
    map.set_batch(2, HOUR).unwrap();
    store.ended(Method::Commit, 1).await;
    map.insert("c", 3);
    sleep(SECOND).await;
    let start = Instant::now();
    map.set_batch(1_000, SECOND * 3).unwrap();
    store.ended(Method::Commit, 2).await;
    about(start.elapsed(), SECOND * 2);
    map.set_batch(1_000, HOUR).unwrap();
    map.insert("d", 4);
    sleep(Duration::from_mins(59)).await;
    assert_eq!(store.calls(Method::Commit), 2);
    let error = map.set_batch(1, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// An interval of `Duration::MAX` is how one says "never by age". The deadline
/// overflowed, the background task panicked, and nothing was saved any more.
#[tokio::test(start_paused = true)]
async fn the_longest_times_mean_never() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map).batch(2, Duration::MAX)
    })
    .await;
    map.insert("a", 1);
    sleep(HOUR).await;
    assert_eq!(store.calls(Method::Commit), 0);
    map.insert("b", 2);
    store.ended(Method::Commit, 1).await;
    map.close_within(Duration::MAX).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn saves_at_the_same_time_share_a_commit() {
    let store = store();
    let map = open_numbers(&store).await;
    let hang = store.hang_next();
    let save = |n: u32| {
        let map = map.clone();
        tokio::spawn(async move { map.insert_and_save(n.to_string(), n).await })
    };
    let mut saves = vec![save(0)];
    hang.hangs().await;
    saves.extend((1..100).map(save));
    settle().await;
    hang.release();
    for saved in saves {
        assert_eq!(saved.await.unwrap().unwrap(), None);
    }
    let sizes: Vec<_> = store.batches().iter().map(|b| keys(b).len()).collect();
    assert_eq!(sizes, [1, 99]);
}

#[tokio::test(start_paused = true)]
async fn keys_that_someone_waits_for_go_first() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| steady(map).max_batch(10)).await;
    map.extend((0..50).map(|n| (n.to_string(), n)));
    map.insert_and_save("waited", 1).await.unwrap();
    let batches = store.batches();
    assert_eq!(batches.len(), 1);
    assert_eq!(keys(&batches[0])[0], "waited");
    assert_eq!(keys(&batches[0]).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_save_does_not_wait_for_a_whole_flush() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| steady(map).max_batch(10)).await;
    map.extend((0..1_000).map(|n| (n.to_string(), n)));
    let hang = store.hang_next();
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    let mut save = std::pin::pin!(map.insert_and_save("waited", 1));
    assert!(futures_util::poll!(&mut save).is_pending());
    hang.release();
    save.await.unwrap();
    assert!(store.calls(Method::Commit) <= 4);
    flush.await.unwrap().unwrap();
}

/// With a small `max_batch`, those who save one key after the other filled every
/// batch, and what was pending before them waited for ever, a flush included.
#[tokio::test(start_paused = true)]
async fn a_stream_of_saves_does_not_starve_a_flush() {
    for max_batch in [1, 2, 3, 10, 1_000] {
        let store = store();
        let map = open::<u32>(store.clone(), "map", |map| {
            steady(map).batch(1_000, HOUR).max_batch(max_batch)
        })
        .await;
        let stop = Arc::new(AtomicBool::new(false));
        for task in 0..12 {
            let (map, stop) = (map.clone(), stop.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    map.insert_and_save(format!("saver {task}"), n)
                        .await
                        .unwrap();
                }
            });
        }
        settle().await;
        map.extend((0..20).map(|n| (n.to_string(), n)));
        let begun = store.calls(Method::Commit);
        tokio::select! {
            flushed = map.flush() => flushed.unwrap(),
            () = store.begun(Method::Commit, begun + MANY) => {
                panic!("{max_batch} keys a batch: the flush still waits")
            }
        }
        let stored = stored(&store).await;
        assert!((0..20).all(|n| stored.contains_key(&n.to_string())));
        stop.store(true, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_does_not_starve_the_others() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map).batch(1, HOUR).max_batch(1)
    })
    .await;
    let hot = map.clone();
    store.set_rule(move |call| {
        if call.method == Method::Commit && call.number < MANY {
            hot.insert("hot", u32::try_from(call.number).unwrap());
        }
        Fault::None
    });
    map.insert("hot", 0);
    map.extend([("a", 1), ("b", 2), ("c", 3)]);
    map.flush().await.unwrap();
    assert!(store.calls(Method::Commit) <= 5);
    store.behave();
    let stored = stored(&store).await;
    assert_eq!(
        ["a", "b", "c"].map(|key| stored[key].as_str()),
        ["1", "2", "3"]
    );
}

/// A key that was changed again while its commit failed was queued behind the
/// mark up to which the flush takes keys. So the flush was over, and said Ok,
/// with neither value in the store.
#[tokio::test(start_paused = true)]
async fn a_flush_covers_a_key_that_changes_while_its_commit_fails() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.insert("a", 1);
    let hot = map.clone();
    store.set_rule(move |call| {
        if call.method != Method::Commit || call.number > 1 {
            return Fault::None;
        }
        hot.insert("a", 2);
        Fault::Before(ErrorKind::Unavailable)
    });
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
}

/// The same with a change that was refused: the one that replaced it stands in
/// its place, and a flush has to take it along.
#[tokio::test(start_paused = true)]
async fn a_flush_covers_what_replaced_a_refused_change() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.insert("a", 1);
    let hot = map.clone();
    store.set_rule(move |call| {
        if call.method != Method::Commit || call.number > 1 {
            return Fault::None;
        }
        hot.insert("a", 2);
        Fault::Before(ErrorKind::Refused)
    });
    map.flush().await.unwrap();
    assert!(map.refused().is_empty());
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_flush_covers_what_came_before_it_and_not_what_comes_after() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.insert("before", 1);
    let hang = store.hang_next();
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    map.insert("after", 2);
    hang.release();
    flush.await.unwrap().unwrap();
    assert_eq!(stored(&store).await, pairs([("before", 1)]));
    assert_eq!(map.pending(), 1);
}

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

/// Someone who hears of a refused value clears the map while the batch that it
/// would have been part of is still put together. A value that came after the
/// clear must not go before it.
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

/// One who clears and waits came between the moment in which the flusher looked
/// whether there was a clear to save, and the one in which it looked who waits:
/// it answered Ok, and the store had everything still.
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

/// After a clear that the store had not heard of yet, the removal of a key was
/// said to be saved at once: there was nothing at the key. After a crash it was
/// back.
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

/// A clear came when the pending changes were committed and the reload had not
/// begun: it brought everything back.
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

/// A clear that comes during a flush is not part of it; a stream of them kept it
/// from ever being over.
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

/// Two who save the same key were taken into one batch, and a third wrote it
/// between the two: then the batch had the key twice, and a store that applies
/// changes in any order might have kept the older value.
#[test]
fn a_batch_never_holds_a_key_twice() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store();
        let map = open::<u32>(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (map, stop) = (map.clone(), stop.clone());
            move || {
                while !stop.load(Relaxed) {
                    map.insert("hot", 1);
                }
            }
        });
        let saves = (0..8).map(|_| {
            let map = map.clone();
            tokio::spawn(async move {
                for n in 0..300 {
                    map.insert_and_save("hot", n).await.unwrap();
                }
            })
        });
        for saved in saves.collect::<Vec<_>>() {
            saved.await.unwrap();
        }
        stop.store(true, Relaxed);
        writer.join().unwrap();
        assert!(store.batches().iter().all(|batch| keys(batch).len() == 1));
    });
}

/// What was refused while a flush was on its way, and told to try again before
/// that ended, was neither in the store nor on the list: the flush was `Ok`.
#[tokio::test(start_paused = true)]
async fn a_flush_covers_what_was_refused_and_is_retried_meanwhile() {
    let (store, hang) = (store(), Hang::new());
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).batch(1_000, HOUR).max_batch(1)
    })
    .await;
    map.insert("bad", 1);
    map.insert("good", 1);
    store.refuse(["bad"]);
    store.fail_nth(2, Fault::Hang(hang.clone()));
    let retry = async {
        hang.hangs().await;
        assert_eq!(map.refused().len(), 1);
        store.behave();
        map.retry_refused();
        hang.release();
    };
    let (flushed, ()) = tokio::join!(map.flush(), retry);
    flushed.unwrap();
    assert_eq!(stored(&store).await, pairs([("bad", 1), ("good", 1)]));
}
