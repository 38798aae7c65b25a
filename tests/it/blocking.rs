//! Maps in programs without a runtime of their own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc::channel,
    },
    time::Duration,
};

use persistify::{
    ErrorKind, Expect, Result, Rewind,
    blocking::{CachingMap, PersistentMap, Runtime},
    testing::Method,
};

use crate::support::{Store, pairs, store, stored};

fn open(runtime: &Runtime, store: &Store) -> PersistentMap<u32> {
    let map = persistify::PersistentMap::builder(store.clone(), "map");
    runtime.open(map).unwrap()
}

fn has(runtime: &Runtime, store: &Store) -> std::collections::BTreeMap<String, String> {
    runtime.wait(async { Ok(stored(store).await) }).unwrap()
}

#[test]
fn every_save_of_a_plain_thread_is_in_the_store_when_it_returns() {
    let runtime = Runtime::start().unwrap();
    let store = store();
    let map = open(&runtime, &store);
    assert_eq!(map.insert_and_save("a", 1).unwrap(), None);
    assert_eq!(map.update_and_save("a", |n| *n += 1).unwrap(), Some(()));
    map.try_insert_and_save("a", 9).unwrap().unwrap_err();
    let revision = map.get_with_revision("a").unwrap().1;
    map.save_if("a", 3, Expect::At(revision)).unwrap();
    let late = map.save_if("a", 4, Expect::At(revision));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(
        map.upsert_in_store("n", |n| n.or(Some(5))).unwrap(),
        Some(5)
    );
    assert_eq!(map.update_in_store("n", |n| n + 1).unwrap(), Some(6));
    let given_up = map.try_update_in_store("n", |_| Err::<(), _>("no"));
    assert_eq!(given_up.unwrap(), Err("no"));
    assert_eq!(has(&runtime, &store), pairs([("a", 3), ("n", 6)]));
    map.wait(map.batch().insert("b", 1).remove("n").commit())
        .unwrap();
    assert_eq!(has(&runtime, &store), pairs([("a", 3), ("b", 1)]));
    assert_eq!(map.remove_and_save("b").unwrap(), Some(1));
    // A plain write is committed by a flush.
    map.insert("c", 1);
    map.flush().unwrap();
    assert_eq!(has(&runtime, &store), pairs([("a", 3), ("c", 1)]));
    map.clear_and_save().unwrap();
    map.reload().unwrap();
    assert!(map.is_empty());
    map.close().unwrap();
    assert_eq!(
        map.insert_and_save("a", 1).unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[test]
fn a_caching_map_saves_with_times_of_entries() {
    let runtime = Runtime::start().unwrap();
    let store = store();
    let map = persistify::CachingMap::builder(store.clone(), "map");
    let map: CachingMap<u32> = runtime.open(map).unwrap();
    let hour = Duration::from_secs(3600);
    map.insert_with_ttl_and_save("a", 1, hour).unwrap();
    map.save_if_with_ttl("b", 1, Expect::Absent, hour).unwrap();
    assert!(map.expires_at("a").is_some() && map.expires_at("b").is_some());
    map.insert_with_ttl("c", 1, Duration::ZERO);
    assert_eq!(map.len(), 2);
    let deadline = map.expires_at("a");
    let updated = map.update_keeping_ttl_and_save("a", |n| *n += 1);
    assert_eq!(updated.unwrap(), Some(()));
    assert_eq!((map.get("a"), map.expires_at("a")), (Some(2), deadline));
    assert_eq!(has(&runtime, &store)["a"], "2");
    map.close_within(hour).unwrap();
}

#[test]
fn a_map_whose_store_went_back_resumes_as_decided() {
    let runtime = Runtime::start().unwrap();
    let store = store();
    let map = open(&runtime, &store);
    map.insert_and_save("old", 1).unwrap();
    let older = store.inner().backup();
    map.insert_and_save("new", 2).unwrap();
    store.inner().restore(&older);
    let stopped = map.insert_and_save("more", 3).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Rewound);
    map.resolve_rewind(Rewind::SaveAgain).unwrap();
    let all = pairs([("more", 3), ("new", 2), ("old", 1)]);
    assert_eq!(has(&runtime, &store), all);
    map.close().unwrap();
}

#[test]
fn an_import_is_in_the_store_when_it_returns() {
    let runtime = Runtime::start().unwrap();
    let (from, to) = (store(), store());
    let (source, target) = (open(&runtime, &from), open(&runtime, &to));
    source.insert("a", 1);
    let mut lines = Vec::new();
    assert_eq!(source.export(&mut lines).unwrap(), 1);
    assert_eq!(target.import(&lines[..]).unwrap(), 1);
    assert_eq!(has(&runtime, &to), pairs([("a", 1)]));
    source.close().unwrap();
    target.close().unwrap();
}

#[test]
fn a_loader_runs_for_a_missing_entry_and_may_block() {
    let runtime = Runtime::start().unwrap();
    let map = open(&runtime, &store());
    let failed = map.get_or_try_insert_with("a", || Err("no"));
    assert_eq!(*failed.unwrap().unwrap_err(), "no");
    let load = || map.insert_and_save("b", 1).map(|_| 7);
    let loaded = map.get_or_try_insert_with("a", load);
    assert_eq!(loaded.unwrap().unwrap(), 7);
    assert_eq!((map.get("a"), map.get("b")), (Some(7), Some(1)));
    let found = map.get_or_try_insert_with("a", || Err("not called"));
    assert_eq!(found.unwrap(), Ok(7));
    map.close().unwrap();
}

/// The waiting threads share one load, and none of them holds up another.
#[test]
fn threads_that_ask_for_a_key_at_the_same_time_share_one_loader() {
    let runtime = Runtime::start().unwrap();
    let map = open(&runtime, &store());
    let (asking, loads) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                asking.fetch_add(1, Relaxed);
                let loaded = map.get_or_try_insert_with("a", || {
                    while asking.load(Relaxed) < 8 {
                        std::thread::yield_now();
                    }
                    Ok::<_, ()>(loads.fetch_add(1, Relaxed))
                });
                assert_eq!(loaded.unwrap(), Ok(0));
            });
        }
    });
    map.close().unwrap();
}

#[test]
fn a_due_write_is_saved_in_the_background() {
    let runtime = Runtime::start().unwrap();
    let store = store();
    let map = persistify::PersistentMap::builder(store.clone(), "map");
    let map = map.batch(1, Duration::from_secs(3600));
    let map: PersistentMap<u32> = runtime.open(map).unwrap();
    map.insert("a", 1);
    // Only the background thread can make this commit.
    while store.calls(Method::Commit) == 0 {
        std::thread::yield_now();
    }
    map.close().unwrap();
}

/// A blocking call would block a thread of the runtime. It returns an error before it does
/// anything, where Tokio would panic.
#[test]
fn a_blocking_call_errs_in_async_code_and_works_in_spawn_blocking() {
    let runtime = Runtime::start().unwrap();
    let store = store();
    let map = open(&runtime, &store);
    let errs = |saved: Result<Option<u32>>| {
        let error = saved.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("spawn_blocking"), "{error}");
    };
    let (one, many) = (
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap(),
        tokio::runtime::Runtime::new().unwrap(),
    );
    for other in [one, many] {
        other.block_on(async {
            errs(map.insert_and_save("a", 1));
            assert_eq!(
                runtime.open(map_builder(&store)).unwrap_err().kind(),
                ErrorKind::Invalid
            );
            assert!(!map.contains_key("a"));
            let blocking = map.clone();
            let spawned = tokio::task::spawn_blocking(move || blocking.insert_and_save("b", 1));
            spawned.await.unwrap().unwrap();
        });
        assert_eq!(has(&runtime, &store), pairs([("b", 1)]));
    }
    // On the map's own thread, the call would wait for itself.
    let inside = map.clone();
    let task = async move {
        let task = tokio::spawn(async move { errs(inside.insert_and_save("a", 1)) });
        task.await.unwrap();
        Ok(())
    };
    runtime.wait(task).unwrap();
    map.close().unwrap();
}

fn map_builder(store: &Store) -> persistify::PersistentMapBuilder<u32> {
    persistify::PersistentMap::builder(store.clone(), "other")
}

/// Reports when it is dropped. A task holds it, so it is dropped when the task's thread ends.
struct Ends(std::sync::mpsc::Sender<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn the_thread_ends_with_the_last_handle_and_not_before() {
    let (ends, ended) = channel();
    let runtime = Runtime::start().unwrap();
    let map = open(&runtime, &store());
    let ends = Ends(ends);
    // The task lives as long as its runtime.
    let task = async move {
        tokio::spawn(async move {
            let _ends = ends;
            std::future::pending::<()>().await;
        });
        Ok(())
    };
    runtime.wait(task).unwrap();
    drop(runtime);
    map.insert_and_save("a", 1).unwrap();
    assert!(ended.try_recv().is_err());
    let again = map.clone();
    drop(map);
    again.insert_and_save("a", 2).unwrap();
    assert!(ended.try_recv().is_err());
    drop(again);
    ended.try_recv().unwrap();
}

/// A map that is dropped by its own thread must not wait for that thread to end.
#[test]
fn the_last_handle_may_be_dropped_on_the_thread_itself() {
    let (ends, ended) = channel();
    let runtime = Runtime::start().unwrap();
    let map = open(&runtime, &store());
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let task = async move {
        tokio::spawn(async move {
            let _ = gone.await;
            drop(map);
            drop(Ends(ends));
        });
        Ok(())
    };
    runtime.wait(task).unwrap();
    drop(runtime);
    go.send(()).unwrap();
    ended.recv().unwrap();
}

#[test]
fn a_call_inside_a_closure_panics_as_everywhere_and_the_map_works_on() {
    let runtime = Runtime::start().unwrap();
    let map = open(&runtime, &store());
    map.insert("a", 1);
    let nested = || map.read("a", |_| map.flush());
    catch_unwind(AssertUnwindSafe(nested)).unwrap_err();
    map.close().unwrap();
}
