//! The end of a map: a close, a drop, or the end of its runtime.

use std::{
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture, poll};
use persistify::{
    ErrorKind, PersistentMap, RetryPolicy,
    testing::{Fault, Hang, Method},
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::support::{
    HOUR, SECOND, Store, as_it_is, builder, impatient, in_memory, open, open_numbers, pairs,
    settle, steady, store, stored, warnings_of,
};

mod ended;
mod runtimes;
mod told;

fn names(error: &persistify::Error) -> Vec<&str> {
    error.keys().iter().map(|key| &**key).collect()
}

/// The panic message of a closure.
fn panic_of(call: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_closed_map_is_saved_and_takes_no_more() {
    let store = store();
    let map = open_numbers(&store).await;
    map.extend([("a", 1), ("b", 2)]);
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
    assert_eq!(store.calls(Method::Release), 1);
    assert_eq!((map.get("a"), map.len()), (Some(1), 2));
    assert_eq!(map.read("b", |n| n * 2), Some(4));
    assert_eq!(map.iter().count(), 2);

    let errors = [
        map.insert_and_save("c", 3).await.unwrap_err(),
        map.try_insert_and_save("c", 3).await.unwrap_err(),
        map.update_and_save("a", |n| *n += 1).await.unwrap_err(),
        map.remove_and_save("a").await.unwrap_err(),
        map.clear_and_save().await.unwrap_err(),
        map.flush().await.unwrap_err(),
        map.reload().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            (error.kind(), error.map()),
            (ErrorKind::Closed, Some("map"))
        );
        assert!(error.to_string().contains("closed"), "{error}");
    }
    let writes: [&dyn Fn(); 7] = [
        &|| {
            map.insert("c", 3);
        },
        &|| {
            map.remove("a");
        },
        &|| {
            map.update("a", |n| *n += 1);
        },
        &|| map.upsert("a", 1, |n| *n += 1),
        &|| map.clear(),
        &|| map.retain(|_, _| false),
        &|| drop(map.try_insert("c", 3)),
    ];
    for write in writes {
        let said = panic_of(write);
        assert!(
            said.contains("closed") && said.contains("\"map\""),
            "{said}"
        );
    }
    assert_eq!(in_memory(&map), pairs([("a", 1), ("b", 2)]));
    map.close().await.unwrap();
    map.close_within(SECOND).await.unwrap();
    map.clone().close().await.unwrap();
    assert_eq!(store.calls(Method::Release), 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_on_a_dead_store_fails_names_the_keys_and_leaves_the_map_open() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    map.insert_and_save("saved", 1).await.unwrap();
    store.down(ErrorKind::Unavailable);
    map.extend([("a", 1), ("b", 2)]);
    let error = map.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(names(&error), ["a", "b"]);
    map.insert("c", 3);
    map.remove("saved");
    let error = map.close().await.unwrap_err();
    assert_eq!(names(&error), ["a", "b", "c", "saved"]);
    assert_eq!((map.pending(), store.calls(Method::Release)), (4, 0));
    store.up();
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2), ("c", 3)]));
}

#[tokio::test(start_paused = true)]
async fn a_write_during_a_close_panics_and_works_after_a_failed_one() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    map.insert("a", 1);
    let hang = store.hang_next();
    let mut closing = pin!(map.close());
    assert!(poll!(&mut closing).is_pending());
    hang.hangs().await;
    assert!(
        panic_of(|| {
            map.insert("b", 2);
        })
        .contains("closed")
    );
    let error = map.insert_and_save("b", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(map.get("a"), Some(1));
    hang.fail(ErrorKind::Unavailable);
    assert_eq!(names(&closing.await.unwrap_err()), ["a"]);
    map.insert("b", 2);
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_close_with_refused_changes_fails_and_names_them() {
    let store = store();
    let map = open_numbers(&store).await;
    store.refuse(["bad"]);
    map.extend([("a", 1), ("bad", 2)]);
    let error = map.close().await.unwrap_err();
    assert_eq!(
        (error.kind(), names(&error)),
        (ErrorKind::Refused, vec!["bad"])
    );
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    map.remove("bad");
    map.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_within_gives_up_in_time_and_leaves_the_map_open() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    let hang = store.hang_next();
    let start = tokio::time::Instant::now();
    let error = map.close_within(3 * SECOND).await.unwrap_err();
    assert!(start.elapsed() < 4 * SECOND);
    assert_eq!(
        (error.kind(), names(&error)),
        (ErrorKind::Unavailable, vec!["a"])
    );
    map.insert("b", 2);
    hang.release();
    settle().await;
    map.insert("c", 3);
    map.close_within(SECOND).await.unwrap();
    assert_eq!(stored(&store).await, in_memory(&map));
}

/// Of two closes that were given up, the second got `Closed`.
#[tokio::test(start_paused = true)]
async fn two_closes_that_run_out_of_time_both_fail() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    let _hang = store.hang_next();
    let (first, second) = tokio::join!(map.close_within(SECOND), map.close_within(2 * SECOND));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(
            (error.kind(), names(&error)),
            (ErrorKind::Unavailable, vec!["a"])
        );
    }
    map.insert("b", 2);
}

/// A close that was given up made another one fail that still waited, on a healthy store.
#[tokio::test(start_paused = true)]
async fn a_close_that_runs_out_of_time_does_not_stop_another() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    let hang = store.hang_next();
    let patient = tokio::spawn({
        let map = map.clone();
        async move { map.close().await }
    });
    hang.hangs().await;
    map.close_within(SECOND).await.unwrap_err();
    map.insert("b", 2);
    hang.release();
    patient.await.unwrap().unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
    assert!(
        panic_of(|| {
            map.insert("c", 3);
        })
        .contains("closed")
    );
}

/// A close was given up while the store was releasing the map. The map stayed open and was
/// written to, and a second close began before the first release had ended. The second release
/// was taken for the first: the map closed, the save got `Ok`, and the change was never in the
/// store.
#[tokio::test(start_paused = true)]
async fn a_write_between_two_closes_is_saved() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    let hang = Hang::new();
    store.fail_next_of(Method::Release, 1, Fault::Hang(hang.clone()));
    map.close_within(SECOND).await.unwrap_err();
    hang.hangs().await;
    let mut save = pin!(map.insert_and_save("b", 2));
    assert!(poll!(&mut save).is_pending());
    let mut closing = pin!(map.close());
    assert!(poll!(&mut closing).is_pending());
    hang.release();
    closing.await.unwrap();
    save.await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
}

/// A call while the store was releasing the map failed with "the runtime has ended, the change
/// is in memory only", although the change was in the store.
#[tokio::test(start_paused = true)]
async fn a_call_during_a_close_is_answered() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    let hang = Hang::new();
    store.fail_next_of(Method::Release, 1, Fault::Hang(hang.clone()));
    let mut closing = pin!(map.close());
    assert!(poll!(&mut closing).is_pending());
    hang.hangs().await;
    let (mut flush, mut again, mut reload) =
        (pin!(map.flush()), pin!(map.close()), pin!(map.reload()));
    assert!(poll!(&mut flush).is_pending());
    assert!(poll!(&mut again).is_pending());
    assert!(poll!(&mut reload).is_pending());
    hang.release();
    closing.await.unwrap();
    flush.await.unwrap();
    again.await.unwrap();
    let error = reload.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(!error.to_string().contains("runtime"), "{error}");
}

/// A save that shared the commit of an earlier save of its key was still waiting for its answer
/// when the map's task ended.
#[tokio::test(start_paused = true)]
async fn saves_before_a_close_hear_that_they_are_in_the_store() {
    for saves in 1..20_u32 {
        let store = store();
        let map = open_numbers(&store).await;
        let saves: Vec<_> = (0..saves)
            .map(|n| {
                let map = map.clone();
                let key = (n % 3).to_string();
                tokio::spawn(async move { map.insert_and_save(key, n).await })
            })
            .collect();
        tokio::task::yield_now().await;
        map.close().await.unwrap();
        for save in saves {
            match save.await.unwrap() {
                Ok(_) => {}
                Err(error) => assert!(!error.to_string().contains("runtime"), "{error}"),
            }
        }
        assert_eq!(stored(&store).await, in_memory(&map));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_whose_future_is_dropped_goes_on() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    assert!(map.close().now_or_never().is_none());
    settle().await;
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    assert!(
        panic_of(|| {
            map.insert("b", 2);
        })
        .contains("closed")
    );
    map.close().await.unwrap();

    let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.down(ErrorKind::Unavailable);
    map.insert("b", 2);
    assert!(map.close().now_or_never().is_none());
    settle().await;
    map.insert("c", 3);
    drop(map.close());
    map.insert("d", 4);
}

/// Runs a future on this thread, without a runtime.
pub(crate) fn run_here(future: impl Future<Output = ()>) {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = pin!(future);
    while future.as_mut().poll(&mut context).is_pending() {
        std::thread::park();
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_during_retries_ends_with_them() {
    let store = store();
    let policy = RetryPolicy::default().max_attempts(3).jitter(false);
    let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(policy)).await;
    store.fail_next(2, Fault::Before(ErrorKind::Unavailable));
    map.insert("a", 1);
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
}

/// A close that was given up while the store was releasing the map ended another one that
/// still waited.
#[tokio::test(start_paused = true)]
async fn a_close_that_runs_out_of_time_at_the_very_end_does_not_stop_another() {
    let (store, hang) = (store(), Hang::new());
    let map = open_numbers(&store).await;
    store.fail_next_of(Method::Release, 1, Fault::Hang(hang.clone()));
    let gives_up = async {
        hang.hangs().await;
        map.close_within(SECOND).await.unwrap_err();
        map.insert("a", 1);
        hang.release();
    };
    let (closed, ()) = tokio::join!(map.close(), gives_up);
    closed.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
}
