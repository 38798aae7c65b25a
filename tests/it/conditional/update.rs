//! `update_in_store`: read, change and write, against the store.

use std::{
    future::poll_fn,
    sync::{
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use persistify::{
    Change, Clock, ErrorKind, Expect, PersistentMap, RetryPolicy, SystemClock, testing::Method,
};
use tokio::{runtime::Runtime, time::Instant};

use super::{put, quiet};
use crate::{
    close::run_here,
    support::{HOUR, builder, open, pairs, steady, store, stored, write_as_another},
};

#[tokio::test(start_paused = true)]
async fn an_update_in_the_store_starts_from_memory_and_continues_with_the_stored_value() {
    let store = store();
    let map = quiet(&store).await;
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    assert_eq!(store.calls(Method::Commit), 0);
    // Memory does not have the entry yet.
    write_as_another(store.inner(), vec![put("a", 1)]).await;
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), Some(2));
    assert_eq!((map.get("a"), store.calls(Method::Commit)), (Some(2), 1));
    // Memory has the current entry: no load and no second attempt.
    let loads = store.calls(Method::Load);
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), Some(3));
    assert_eq!(
        (store.calls(Method::Load), store.calls(Method::Commit)),
        (loads, 2)
    );
    // Memory has an older value than the store.
    write_as_another(store.inner(), vec![put("a", 10)]).await;
    let seen = AtomicU32::new(0);
    let add = |n: u32| {
        seen.fetch_add(n, SeqCst);
        n + 1
    };
    assert_eq!(map.update_in_store("a", add).await.unwrap(), Some(11));
    assert_eq!(seen.load(SeqCst), 3 + 10);
    // Pending changes are saved first, and the condition sees them.
    map.insert("a", 20);
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), Some(21));
    assert_eq!(stored(&store).await, pairs([("a", 21)]));
    map.remove("a");
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    map.insert_and_save("a", 1).await.unwrap();
    write_as_another(store.inner(), vec![Change::delete("a")]).await;
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    assert_eq!((map.get("a"), stored(&store).await), (None, pairs([])));
}

#[tokio::test(start_paused = true)]
async fn an_update_in_the_store_pauses_between_attempts_and_gives_up_after_the_last() {
    let store = store();
    let policy = persistify::RetryPolicy::default().jitter(false);
    let policy = policy.max_attempts(3).base_delay(Duration::from_millis(10));
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).batch(1_000, HOUR).retry_conflicts(policy)
    })
    .await;
    map.save_if("a", 0, Expect::Absent).await.unwrap();
    let inner = store.inner().clone();
    let begun = Instant::now();
    let mut calls = 0;
    let updated = map.update_in_store("a", |n| {
        calls += 1;
        // Another process is always faster.
        let theirs = write_as_another(&inner, vec![put("a", n + 100)]);
        futures_util::FutureExt::now_or_never(theirs).unwrap();
        n + 1
    });
    let error = updated.await.unwrap_err();
    assert_eq!((error.kind(), calls), (ErrorKind::Conflict, 3));
    assert_eq!(begun.elapsed(), Duration::from_millis(10 + 20));
    assert_eq!(
        (map.get("a"), stored(&store).await),
        (Some(300), pairs([("a", 300)]))
    );
    let bad =
        builder::<u32>(&store).retry_conflicts(persistify::RetryPolicy::default().max_attempts(0));
    let error = bad.open().await.unwrap_err();
    assert!(
        error.to_string().starts_with("retry_conflicts: "),
        "{error}"
    );
}

/// After a conflict, the update continued with the value from the conflict. Other processes had
/// written during the pause, so it conflicted again.
#[tokio::test(start_paused = true)]
async fn an_update_in_the_store_starts_from_the_stored_value_after_a_pause() {
    let store = store();
    let map = quiet(&store).await;
    map.save_if("a", 0, Expect::Absent).await.unwrap();
    let inner = store.inner().clone();
    let mut seen = Vec::new();
    let updating = map.update_in_store("a", |n| {
        if seen.is_empty() {
            let theirs = write_as_another(&inner, vec![put("a", 100)]);
            futures_util::FutureExt::now_or_never(theirs).unwrap();
        }
        seen.push(n);
        n + 1
    });
    let meanwhile = async {
        // The clock is paused meanwhile, so the pause does not end.
        while map.get("a") != Some(100) {
            tokio::task::yield_now().await;
        }
        write_as_another(&inner, vec![put("a", 200)]).await;
    };
    let (updated, ()) = tokio::join!(updating, meanwhile);
    assert_eq!(updated.unwrap(), Some(201));
    assert_eq!(seen, [0, 200]);
}

#[tokio::test(start_paused = true)]
async fn an_update_in_the_store_of_an_unreadable_or_unreachable_value_errs() {
    let store = store();
    let map = quiet(&store).await;
    let text = crate::support::put("a", "\"text\"");
    write_as_another(store.inner(), vec![text]).await;
    let error = map.update_in_store("a", |n| n + 1).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.keys()),
        (ErrorKind::Corrupt, &["a".into()][..])
    );
    store.down(ErrorKind::Unusable);
    let error = map.update_in_store("b", |n| n + 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
}

fn threads() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    { runtime }.worker_threads(1).enable_all().build().unwrap()
}

/// The load used a timer of the caller's runtime, and panicked if there was none.
#[test]
fn an_update_in_the_store_works_outside_of_a_runtime() {
    let runtime = threads();
    let store = store();
    let map = builder(&store).commit_timeout(HOUR).open();
    let map: PersistentMap<u32> = runtime.block_on(map).unwrap();
    runtime.block_on(write_as_another(&store, vec![put("a", 1)]));
    let (send, updated) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let update = async move { send.send(map.update_in_store("a", |n| n + 1).await) };
        run_here(async move { drop(update.await) });
    });
    assert_eq!(updated.recv().unwrap().unwrap(), Some(2));
}

/// Signals when a task begins to sleep for more than half an hour. Here, only the pause after a
/// conflict is that long.
#[derive(Debug)]
struct Telling {
    clock: SystemClock,
    told: Sender<()>,
}

impl Clock for Telling {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        let is_long = deadline > self.now() + HOUR / 2;
        let mut told = is_long.then(|| self.told.clone());
        let mut sleep = self.clock.sleep_until(deadline);
        Box::pin(poll_fn(move |context| {
            let slept = sleep.as_mut().poll(context);
            // By now its timer is set.
            if let Some(told) = told.take() {
                told.send(()).unwrap();
            }
            slept
        }))
    }
}

/// The pause after a conflict uses a timer of the map's runtime. When that runtime ended, the pause
/// panicked in the caller's runtime.
#[test]
fn the_runtime_of_the_map_may_end_while_it_waits() {
    let (own, other) = (threads(), threads());
    let store = store();
    let patient = RetryPolicy::default().base_delay(HOUR).max_delay(HOUR);
    let (told, pauses) = channel();
    let map = builder(&store)
        .retry_conflicts(patient.jitter(false))
        .clock(Telling {
            clock: SystemClock::new(),
            told,
        })
        .open();
    let map: PersistentMap<u32> = own.block_on(map).unwrap();
    own.block_on(map.insert_and_save("a", 1)).unwrap();
    own.block_on(write_as_another(&store, vec![put("a", 7)]));
    let update = other.spawn(async move { map.update_in_store("a", |n| n + 1).await });
    pauses.recv().unwrap();
    own.shutdown_background();
    let error = other.block_on(update).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
