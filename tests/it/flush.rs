//! When a flush starts, which changes it includes, and which calls it answers.

mod clears;
mod triggers;

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

fn about(elapsed: Duration, expected: Duration) {
    let late = elapsed.checked_sub(expected);
    let late = late.unwrap_or_else(|| panic!("after {elapsed:?}, not {expected:?}"));
    assert!(late < Duration::from_millis(10), "{late:?} late");
}

/// The number of commits after which a test fails instead of looping forever.
const MANY: u64 = 1_000;

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

/// With a small `max_batch`, sequential saves filled every batch, and changes that were pending
/// before them waited forever, even with a flush.
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

/// A key that was changed again while its commit failed was queued behind the mark up to which
/// the flush takes keys. The flush ended with `Ok`, with neither value in the store.
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

/// As above, with a refused change: the change that replaced it belongs to the flush, too.
#[tokio::test(start_paused = true)]
async fn a_flush_covers_the_replacement_of_a_refused_change() {
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

/// Two saves of one key were taken into one batch, and another caller wrote the key between them.
/// The batch had the key twice, and a store that applies changes in any order might have kept the
/// older value.
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

/// A change was refused during a flush, and retried before the flush ended. It was neither in
/// the store nor on the list of refused keys, and the flush returned `Ok`.
#[tokio::test(start_paused = true)]
async fn a_flush_covers_a_refused_change_that_is_retried_meanwhile() {
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
