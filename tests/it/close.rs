//! The end of a map: closed, dropped, or outlived by nobody.

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

mod told;

fn names(error: &persistify::Error) -> Vec<&str> {
    error.keys().iter().map(|key| &**key).collect()
}

/// What a panic of this closure says.
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
async fn on_a_dead_store_it_fails_names_the_keys_and_leaves_the_map_open() {
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
async fn while_it_closes_nothing_is_written_and_after_a_failure_it_is() {
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
async fn it_fails_while_changes_are_refused_and_names_them() {
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

/// Of two who closed the map and gave up, the second was told that it was closed.
#[tokio::test(start_paused = true)]
async fn of_two_who_give_up_closing_both_are_told() {
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

/// One who gave up made another fail who still waited, on a store that was well.
#[tokio::test(start_paused = true)]
async fn one_who_gives_up_does_not_keep_another_from_closing() {
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

/// One gave up while the store was letting go of the map, which was open then
/// and written to; another closed it, before the store was done with the first.
/// That it was closing again was taken for that it still was: the map closed,
/// the save was told that it was in the store, and it never was.
#[tokio::test(start_paused = true)]
async fn what_is_written_between_two_closings_is_saved() {
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

/// Whoever came while the store was letting go of the map was told that the
/// runtime had ended and the change was in memory only; it was in the store.
#[tokio::test(start_paused = true)]
async fn those_who_come_while_it_closes_are_answered() {
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

/// A save whose write rode along with an earlier one of its key was still
/// waiting for its answer when the task ended.
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

/// Many threads write while the map is closed, on real threads and real time.
#[test]
fn what_was_written_before_an_ok_close_is_in_the_store() {
    let runtime = threads(2);
    std::panic::set_hook(Box::new(quiet));
    for round in 0..200 {
        let store = store();
        let map: PersistentMap<u32> = runtime
            .block_on(builder(&store).batch(50, SECOND).open())
            .unwrap();
        let start = Arc::new(Barrier::new(9));
        let writers: Vec<_> = (0..8)
            .map(|thread| {
                let (map, start) = (map.clone(), start.clone());
                let handle = runtime.handle().clone();
                std::thread::spawn(move || {
                    start.wait();
                    let written = AtomicU64::new(0);
                    let write = || write_until_closed(&map, &handle, thread, &written);
                    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(write));
                    drop(stopped);
                    written.into_inner()
                })
            })
            .collect();
        start.wait();
        std::thread::sleep(Duration::from_micros(50 * (round % 20)));
        runtime.block_on(map.close()).unwrap();
        let written: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        let stored = runtime.block_on(stored(&store));
        for (thread, written) in written.into_iter().enumerate() {
            for n in 0..written {
                assert!(
                    stored.contains_key(&format!("{thread}/{n}")),
                    "round {round}"
                );
            }
        }
        assert_eq!(stored, in_memory(&map), "round {round}");
    }
    drop(std::panic::take_hook());
}

/// Says nothing of the panics of writes to a closed map: there are hundreds.
fn quiet(panic: &std::panic::PanicHookInfo<'_>) {
    let said = panic.payload_as_str().unwrap_or_default();
    if !said.contains("the map is closed") {
        eprintln!("{panic}");
    }
}

/// Every second write is a save; `written` counts those that returned well.
fn write_until_closed(
    map: &PersistentMap<u32>,
    runtime: &tokio::runtime::Handle,
    thread: usize,
    written: &AtomicU64,
) {
    for n in 0.. {
        let key = format!("{thread}/{n}");
        if n % 64 == 0 {
            match runtime.block_on(map.insert_and_save(&key, n)) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Closed);
                    assert!(!map.contains_key(&key), "{error}");
                    return;
                }
            }
        } else {
            map.insert(&key, n);
        }
        written.fetch_add(1, SeqCst);
    }
}

fn threads(workers: usize) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    { runtime }
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap()
}

fn current_thread() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread();
    { runtime }.enable_all().build().unwrap()
}

#[test]
fn blocking_close_works_from_a_plain_thread() {
    let runtime = threads(1);
    let store = store();
    let map = runtime.block_on(open_numbers(&store));
    map.insert("a", 1);
    map.blocking_close().unwrap();
    map.blocking_close().unwrap();
    assert_eq!(runtime.block_on(stored(&store)), pairs([("a", 1)]));
    let map = runtime
        .block_on(builder::<u32>(&store).retry(impatient()).open())
        .unwrap();
    store.down(ErrorKind::Unusable);
    map.insert("b", 1);
    assert_eq!(names(&map.blocking_close().unwrap_err()), ["b"]);
    map.insert("c", 1);
}

#[test]
fn blocking_close_never_hangs_where_it_cannot_work() {
    let runtime = current_thread();
    let map = runtime.block_on(open_numbers(&store()));
    map.insert("a", 1);
    let error = map.blocking_close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("block_on"), "{error}");
    runtime.block_on(async {
        assert_eq!(map.blocking_close().unwrap_err().kind(), ErrorKind::Invalid);
        map.insert("b", 1);
        map.close().await.unwrap();
    });
    let runtime = threads(1);
    let map = runtime.block_on(open_numbers(&store()));
    runtime.block_on(async {
        assert_eq!(map.blocking_close().unwrap_err().kind(), ErrorKind::Invalid);
        map.insert("a", 1);
    });
}

/// After its runtime had ended, a map whose close had failed could not be
/// written to, as if it were closed; and `close_within` panicked.
#[test]
fn a_map_that_outlives_its_runtime_errs_and_never_hangs() {
    for workers in [0, 2] {
        let runtime = if workers == 0 {
            current_thread()
        } else {
            threads(workers)
        };
        let store = store();
        let map = runtime.block_on(open_numbers(&store));
        runtime.block_on(map.insert_and_save("a", 1)).unwrap();
        map.insert("b", 2);
        let mut waiting = Box::pin(map.flush());
        if workers == 0 {
            assert!((&mut waiting).now_or_never().is_none());
        }
        drop(runtime);
        if workers == 0 {
            assert_eq!(run(waiting).unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
        assert_eq!((map.get("a"), map.len()), (Some(1), 2));
        let errors = [
            run(Box::pin(map.flush())).unwrap(),
            run(Box::pin(map.reload())).unwrap(),
            run(Box::pin(map.clear_and_save())).unwrap(),
            run(Box::pin(async {
                map.insert_and_save("c", 3).await.map(drop)
            }))
            .unwrap(),
            run(Box::pin(async { map.remove_and_save("c").await.map(drop) })).unwrap(),
            run(Box::pin(map.close())).unwrap(),
            run(Box::pin(map.close_within(SECOND))).unwrap(),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let said = cause.unwrap_or_else(|| error.to_string());
            assert!(said.contains("runtime"), "{said}");
        }
        map.insert("d", 4);
        let error = run(Box::pin(map.close())).unwrap().unwrap_err();
        assert_eq!(names(&error), ["d"]);
        map.blocking_close().unwrap_err();
        assert_eq!(map.get("d"), Some(4));
    }
}

/// What a future says that has to be ready at once.
fn run(future: BoxFuture<'_, persistify::Result<()>>) -> Option<persistify::Result<()>> {
    future.now_or_never()
}

/// `close_within` needs a timer, and whoever closes may be on no runtime.
#[test]
fn close_within_works_from_a_plain_thread() {
    let runtime = threads(1);
    let store = store();
    let map = runtime.block_on(open_numbers(&store));
    map.insert("a", 1);
    let (send, closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let closing = async move { drop(send.send(map.close_within(HOUR).await)) };
        run_here(closing);
    });
    closed.recv().unwrap().unwrap();
    assert_eq!(runtime.block_on(stored(&store)), pairs([("a", 1)]));
}

/// Runs a future on this thread, with no runtime.
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

/// What was said of this map's losses.
fn losses_of(map: &str) -> Vec<String> {
    let mut said = warnings_of(map);
    said.retain(|said| said.contains("lost="));
    said
}

#[tokio::test(start_paused = true)]
async fn a_map_dropped_without_a_close_warns_with_what_is_lost() {
    assert!(losses_of("left").is_empty());
    let store = store();
    let again = || open::<u32>(store.clone(), "left", as_it_is);
    let map = again().await;
    let other = map.clone();
    store.refuse(["bad"]);
    map.insert_and_save("bad", 1).await.unwrap_err();
    map.extend([("a", 1), ("b", 2)]);
    drop(map);
    assert!(losses_of("left").is_empty(), "a handle is left");
    drop(other);
    let said = losses_of("left").join("\n");
    assert!(said.contains("lost=3") && said.contains("close"), "{said}");
    let calls = store.calls(Method::Commit);
    tokio::time::sleep(HOUR).await;
    assert_eq!(store.calls(Method::Commit), calls, "the task has ended");

    let map = again().await;
    map.insert("a", 1);
    map.close().await.unwrap();
    drop(map);
    drop(again().await);
    assert_eq!(
        losses_of("left").len(),
        1,
        "nothing was lost, nothing is said"
    );
}

#[derive(Clone, Default, Deserialize, Serialize)]
struct Held {
    #[serde(skip)]
    held: Arc<()>,
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_and_lets_go_of_the_values() {
    let store = store();
    let map: PersistentMap<Held> =
        open(store.clone(), "map", |map| steady(map).batch(1, SECOND)).await;
    let value = Held::default();
    let _hang = store.hang_next();
    map.insert("a", value.clone());
    settle().await;
    let iterator = map.iter();
    drop(map);
    settle().await;
    assert_eq!(iterator.count(), 1);
    settle().await;
    assert_eq!(Arc::strong_count(&value.held), 1);
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

/// What ends with the tests must not be in use elsewhere.
#[test]
fn handles_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<PersistentMap<u32>>();
    shared::<Store>();
}

/// The task answered the one who closed the map before it let go of the
/// provider: whoever closed the only map of a folder and opened the folder again
/// at once found it locked, now and then.
#[cfg(feature = "json")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_map_holds_its_folder_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let files = persistify::JsonFile::open(folder.path()).await.unwrap();
        let map: PersistentMap<u32> = open(files, "map", as_it_is).await;
        map.insert("round", round);
        map.close().await.unwrap();
    }
}

/// What a store did to let go of a map must not be in the way of the map that is
/// open again because it failed.
async fn a_map_that_was_not_released_goes_on(store: impl persistify::Provider + Clone) {
    let unavailable = ErrorKind::Unavailable;
    for fault in [
        Fault::Before(unavailable),
        Fault::Lost(unavailable),
        Fault::After(unavailable),
        Fault::After(ErrorKind::Unusable),
    ] {
        let store = persistify::testing::Faulty::new(store.clone());
        let map = open::<u32>(store.clone(), "map", |map| {
            map.commit_timeout(Duration::MAX)
        })
        .await;
        map.clear();
        map.extend([("a", 1), ("b", 1), ("c", 1)]);
        store.fail_next_of(Method::Release, 2, fault);
        map.close().await.unwrap_err();
        map.insert_and_save("a", 2).await.unwrap();
        map.remove("b");
        map.flush().await.unwrap();
        map.close().await.unwrap_err();
        assert_eq!(map.get("a"), Some(2));
        // Also if nothing is written in between.
        map.reload().await.unwrap();
        map.insert("d", 4);
        map.close().await.unwrap();
        let again = open::<u32>(store.clone(), "map", as_it_is).await;
        assert_eq!(in_memory(&again), pairs([("a", 2), ("c", 1), ("d", 4)]));
        again.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_map_that_was_not_released_goes_on_in_memory() {
    a_map_that_was_not_released_goes_on(persistify::Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_map_that_was_not_released_goes_on_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    a_map_that_was_not_released_goes_on(files).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_map_that_was_not_released_goes_on_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = persistify::Sqlite::open(folder.path().join("maps.db")).await;
    a_map_that_was_not_released_goes_on(file.unwrap()).await;
}

/// One who gave up while the store let go of the map took the one with him who
/// went on waiting.
#[tokio::test(start_paused = true)]
async fn one_who_gives_up_at_the_very_end_does_not_keep_another_from_closing() {
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
