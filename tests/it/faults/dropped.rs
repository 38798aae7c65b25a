//! Futures that are dropped at every poll: before the first poll nothing happens; after it nothing
//! is lost, and no other caller hangs.

use std::{collections::BTreeMap, pin::pin};

use futures_util::poll;
use persistify::{ErrorKind, PersistentMap, testing::Fault};

use crate::support::{HOUR, Store, builder, in_memory, open, settle, steady, store, stored};

/// More polls than any of the calls takes.
const POLLS: usize = 12;

/// Polls the future a number of times, lets other tasks run between the polls, and drops it if
/// it is not ready by then.
async fn polled<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let std::task::Poll::Ready(done) = poll!(&mut future) {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn filled(store: &Store) -> PersistentMap<u32> {
    let map = open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.extend([("a", 1), ("b", 2)]);
    map.flush().await.unwrap();
    map
}

/// Drops a call at every poll, on a healthy store and on one that fails first. The map has to stay
/// usable and lose nothing.
async fn drop_at_every_poll<T>(
    call: impl AsyncFn(&PersistentMap<u32>) -> T,
    effect: impl Fn(&mut BTreeMap<String, String>),
) {
    let faults = [
        Fault::None,
        Fault::Before(ErrorKind::Unavailable),
        Fault::Lost(ErrorKind::Unavailable),
        Fault::After(ErrorKind::Unavailable),
    ];
    let mut done = 0;
    for (polls, fault) in (0..POLLS).flat_map(|polls| faults.iter().map(move |f| (polls, f))) {
        let store = store();
        let map = filled(&store).await;
        store.fail_next(1, fault.clone());
        let mut expected = in_memory(&map);
        done += usize::from(polled(polls, call(&map)).await.is_some());
        if polls > 0 {
            effect(&mut expected);
        }
        assert_eq!(in_memory(&map), expected, "{polls} polls");
        settle().await;
        map.insert_and_save("c", 3).await.unwrap();
        expected.insert("c".into(), "3".into());
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, expected, "{polls} polls, {fault:?}");
        assert_eq!(map.pending(), 0);
        map.close().await.unwrap();
    }
    assert!(done >= 4, "never done: more polls");
}

#[tokio::test(start_paused = true)]
async fn an_insert_dropped_at_any_poll_loses_nothing() {
    let call = async |map: &PersistentMap<u32>| map.insert_and_save("a", 7).await;
    drop_at_every_poll(call, |kept| drop(kept.insert("a".into(), "7".into()))).await;
    let call = async |map: &PersistentMap<u32>| map.try_insert_and_save("x", 7).await;
    drop_at_every_poll(call, |kept| drop(kept.insert("x".into(), "7".into()))).await;
}

#[tokio::test(start_paused = true)]
async fn updates() {
    let call = async |map: &PersistentMap<u32>| map.update_and_save("a", |n| *n += 8).await;
    drop_at_every_poll(call, |kept| drop(kept.insert("a".into(), "9".into()))).await;
}

#[tokio::test(start_paused = true)]
async fn removals_and_clears() {
    let call = async |map: &PersistentMap<u32>| map.remove_and_save("a").await;
    drop_at_every_poll(call, |kept| drop(kept.remove("a"))).await;
    let call = async |map: &PersistentMap<u32>| map.clear_and_save().await;
    drop_at_every_poll(call, |kept| kept.clear()).await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_or_reload_dropped_at_any_poll_loses_nothing() {
    let call = async |map: &PersistentMap<u32>| {
        map.insert("x", 7);
        map.flush().await
    };
    drop_at_every_poll(call, |kept| drop(kept.insert("x".into(), "7".into()))).await;
    let call = async |map: &PersistentMap<u32>| {
        map.insert("x", 7);
        map.reload().await
    };
    drop_at_every_poll(call, |kept| drop(kept.insert("x".into(), "7".into()))).await;
}

#[tokio::test(start_paused = true)]
async fn loaders() {
    let call = async |map: &PersistentMap<u32>| {
        let load = async || {
            tokio::task::yield_now().await;
            Ok::<_, ()>(7)
        };
        map.get_or_try_insert_with("x", load).await
    };
    for polls in 0..POLLS {
        let map = filled(&store()).await;
        polled(polls, call(&map)).await;
        assert_eq!(call(&map).await, Ok(7), "{polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_dropped_at_any_poll_loses_nothing() {
    for polls in 0..POLLS {
        for fault in [
            Fault::None,
            Fault::After(ErrorKind::Unavailable),
            Fault::Before(ErrorKind::Unusable),
        ] {
            let store = store();
            let map = filled(&store).await;
            map.insert("c", 3);
            store.fail_next(1, fault);
            polled(polls, map.close()).await;
            settle().await;
            // The map is closed by now, or open again. Either way, another close succeeds.
            let closed = tokio::time::timeout(HOUR, map.close()).await.unwrap();
            if closed.is_err() {
                map.close().await.unwrap();
            }
            assert_eq!(stored(&store).await, in_memory(&map));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_dropped_at_any_poll_loses_nothing() {
    for polls in 0..POLLS {
        let store = store();
        drop(filled(&store).await);
        polled(polls, builder::<u32>(&store).open()).await;
        assert_eq!(open::<u32>(store.clone(), "map", steady).await.len(), 2);
    }
}
