//! Maps that are closed at the end of a scope, by `close_on_drop`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    time::{Duration, Instant},
};

use persistify::{ErrorKind, JsonFile, PersistentMap, blocking};
use tokio::{runtime::Runtime, task::LocalSet};

use crate::support::{HOUR, Store, open, pairs, steady, store, stored};

const PATIENCE: Duration = Duration::from_secs(60);

async fn quiet(store: &Store) -> PersistentMap<u32> {
    open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await
}

fn one_worker() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    { runtime }.worker_threads(1).enable_all().build().unwrap()
}

fn alone() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread();
    { runtime }.enable_all().build().unwrap()
}

/// Writes an entry, and returns early by `?`.
async fn fails_early(store: &Store) -> Result<(), std::num::ParseIntError> {
    let map = quiet(store).await;
    let _closes = map.close_on_drop(PATIENCE);
    map.insert("a", 1);
    map.insert("b", "no number".parse()?);
    Ok(())
}

/// With one worker, the task that saves is queued on the very thread that waits for it.
#[test]
fn a_close_on_drop_on_several_threads_saves_at_an_early_return() {
    let runtime = one_worker();
    let (main, spawned) = (store(), store());
    runtime.block_on(async {
        fails_early(&main).await.unwrap_err();
        assert_eq!(stored(&main).await, pairs([("a", 1)]));
        let there = spawned.clone();
        let task = tokio::spawn(async move { fails_early(&there).await });
        task.await.unwrap().unwrap_err();
        assert_eq!(stored(&spawned).await, pairs([("a", 1)]));
    });
}

#[test]
fn a_panic_on_its_way_closes_the_map() {
    let runtime = one_worker();
    let store = store();
    let map = runtime.block_on(quiet(&store));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _closes = map.close_on_drop(PATIENCE);
        map.insert("a", 1);
        panic!("on purpose")
    }));
    panicked.unwrap_err();
    assert_eq!(runtime.block_on(stored(&store)), pairs([("a", 1)]));
    let error = runtime.block_on(map.insert_and_save("a", 2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    // The same in a task.
    let map = runtime.block_on(quiet(&store));
    let task = runtime.spawn(async move {
        let _closes = map.close_on_drop(PATIENCE);
        map.insert("a", 3);
        panic!("on purpose")
    });
    runtime.block_on(task).unwrap_err();
    assert_eq!(runtime.block_on(stored(&store)), pairs([("a", 3)]));
}

#[test]
fn a_close_on_drop_leaves_a_closed_map_alone() {
    let runtime = one_worker();
    let store = store();
    let map = runtime.block_on(quiet(&store));
    let closes = map.close_on_drop(PATIENCE);
    runtime.block_on(map.close()).unwrap();
    store.down(ErrorKind::Unavailable);
    let begun = Instant::now();
    drop(closes);
    assert!(begun.elapsed() < PATIENCE);
}

/// The waiting thread is the one that would have to save. The guard gives up at once and leaves the
/// map open.
#[test]
fn a_close_on_drop_on_the_runtimes_only_thread_gives_up_at_once() {
    let store = store();
    let given_up = async |store: &Store| {
        let map = quiet(store).await;
        map.insert("a", 1);
        let begun = Instant::now();
        drop(map.close_on_drop(PATIENCE));
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(map.pending(), 1);
        map.close().await.unwrap();
        assert_eq!(stored(store).await, pairs([("a", 1)]));
    };
    alone().block_on(given_up(&store));
    LocalSet::new().block_on(&one_worker(), given_up(&store));
}

#[test]
fn a_current_thread_runtime_can_be_waited_for_from_elsewhere() {
    let (own, other) = (one_worker(), alone());
    let store = store();
    let map = own.block_on(quiet(&store));
    other.block_on(async move {
        map.insert("a", 1);
        drop(map.close_on_drop(PATIENCE));
    });
    assert_eq!(own.block_on(stored(&store)), pairs([("a", 1)]));
    // Another thread drives the runtime while `spawn_blocking` waits.
    other.block_on(async {
        let map = quiet(&store).await;
        map.insert("a", 2);
        let guard = map.close_on_drop(PATIENCE);
        tokio::task::spawn_blocking(move || drop(guard))
            .await
            .unwrap();
        assert_eq!(stored(&store).await, pairs([("a", 2)]));
    });
}

/// A change that can never be saved is reported on stderr if there is no subscriber. A child
/// process prints it, and the test reads it.
#[test]
fn a_close_on_drop_without_a_subscriber_names_the_lost_keys_on_stderr() {
    const CHILD: &str = "PERSISTIFY_CLOSES_BADLY";
    if std::env::var_os(CHILD).is_none() {
        let test =
            "close_on_drop::a_close_on_drop_without_a_subscriber_names_the_lost_keys_on_stderr";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output();
        let child = child.unwrap();
        assert!(child.status.success());
        let told = String::from_utf8(child.stderr).unwrap();
        for part in ["persistify: ", "\"apple\"", "map \"map\"", "not saved"] {
            assert!(told.contains(part), "no {part} in {told}");
        }
        return;
    }
    let runtime = one_worker();
    let store = store();
    let map = runtime.block_on(quiet(&store));
    let _closes = map.close_on_drop(Duration::from_millis(50));
    map.insert("apple", 1);
    store.down(ErrorKind::Unavailable);
}

/// A guard that outlives the runtime cannot save, but does not hang.
#[test]
fn a_close_on_drop_after_the_end_of_the_runtime_gives_up_at_once() {
    let runtime = one_worker();
    let map = runtime.block_on(quiet(&store()));
    map.insert("a", 1);
    let guard = map.close_on_drop(PATIENCE);
    runtime.shutdown_timeout(PATIENCE);
    let begun = Instant::now();
    drop(guard);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_blocking_map_in_files_is_closed_at_the_end_of_main() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("stock.json");
    {
        let runtime = blocking::Runtime::start().unwrap();
        let files = runtime.wait(JsonFile::open(folder.path())).unwrap();
        let stock = PersistentMap::<u32>::builder(files, "stock");
        let stock: blocking::PersistentMap<u32> = runtime.open(stock).unwrap();
        let _closes = stock.close_on_drop(PATIENCE);
        stock.insert("apple", 3);
    }
    let text = std::fs::read_to_string(text).unwrap();
    assert_eq!(text.trim(), "{\n  \"apple\": 3\n}");
}
