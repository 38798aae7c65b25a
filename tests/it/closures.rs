//! Foreign code that runs inside a map call: closures, `Clone`, `Serialize`, `Drop`.

mod calls;

use std::{
    cell::RefCell,
    sync::{Arc, Barrier, mpsc},
    time::Duration,
};

use persistify::{CachingMap, ErrorKind, Memory, PersistentMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::runtime::Runtime;

use crate::support::{
    HOUR, builder, open, open_caching, open_numbers, pairs, settle, steady, store, stored,
};
use calls::{calls, outsides};

/// A call that hangs fails the test after this time.
const PATIENCE: Duration = Duration::from_secs(30);

fn ignore<T>(_: T) {}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    { runtime }.worker_threads(1).enable_all().build().unwrap()
}

fn map(runtime: &Runtime) -> PersistentMap<u32> {
    runtime.block_on(async {
        let map = open_numbers(&store()).await;
        map.extend((0..100).map(|n| (n.to_string(), n)));
        map.insert("a", 1);
        map
    })
}

/// The panic message of a call on a thread of its own.
fn panic_of(call: impl FnOnce() + Send + 'static) -> String {
    let (send, said) = mpsc::channel();
    std::thread::spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        let text = done.err().map(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        });
        ignore(send.send(text.flatten()));
    });
    let said = said.recv_timeout(PATIENCE).expect("the call hangs");
    said.expect("the call did not panic")
}

fn is_about_nesting(said: &str) {
    assert!(said.contains("a map was called from inside"), "{said}");
}

#[test]
fn a_closure_that_calls_its_map_or_another_panics_and_does_not_hang() {
    let runtime = Arc::new(runtime());
    for (inner, call) in calls() {
        for (outer, outside) in outsides() {
            for same in [true, false] {
                let (first, other) = (map(&runtime), map(&runtime));
                let called = if same { first.clone() } else { other.clone() };
                let (call, rt, outer_map) = (call.clone(), runtime.clone(), first.clone());
                let said = panic_of(move || outside(&outer_map, &|| call(&called, &rt)));
                assert!(
                    said.contains("inside a map's closure"),
                    "{inner} in {outer}: {said}"
                );
                // Both maps stay usable: open, unlocked and complete.
                for map in [first, other] {
                    assert_eq!((map.get("a"), map.get("99")), (Some(1), Some(99)));
                    map.insert("after", 1);
                    if outer == "read" || inner.contains("clo") {
                        runtime.block_on(map.flush()).unwrap();
                        runtime.block_on(map.close()).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn two_maps_that_call_each_other_crosswise_panic_and_do_not_hang() {
    let runtime = runtime();
    let (a, b) = (map(&runtime), map(&runtime));
    let both = Arc::new(Barrier::new(2));
    let cross = |from: PersistentMap<u32>, to: PersistentMap<u32>| {
        let both = both.clone();
        std::thread::spawn(move || {
            panic_of(move || {
                from.update("a", |n| {
                    both.wait();
                    *n = to.get("a").unwrap();
                });
            })
        })
    };
    let threads = [cross(a.clone(), b.clone()), cross(b.clone(), a.clone())];
    for thread in threads {
        is_about_nesting(&thread.join().unwrap());
    }
    assert_eq!((a.get("a"), b.get("a")), (Some(1), Some(1)));
    runtime.block_on(a.close()).unwrap();
}

thread_local! {
    static CALLED: RefCell<Option<PersistentMap<u32>>> = const { RefCell::new(None) };
}

fn call_the_map() {
    let map = CALLED.with_borrow(|map| map.clone());
    if let Some(map) = map {
        map.get("a");
    }
}

/// Calls a map in the configured places. It serializes as `null`.
#[derive(Debug, Default)]
struct Caller {
    on_clone: bool,
    on_serialize: bool,
    on_drop: bool,
}

impl Clone for Caller {
    fn clone(&self) -> Self {
        if self.on_clone {
            call_the_map();
        }
        Self {
            on_clone: false,
            on_serialize: false,
            on_drop: false,
        }
    }
}

impl Serialize for Caller {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.on_serialize {
            call_the_map();
        }
        to.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Caller {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <()>::deserialize(from).map(|()| Self::default())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.on_drop && !std::thread::panicking() {
            call_the_map();
        }
    }
}

#[test]
fn a_clone_that_calls_a_map_panics_and_does_not_hang() {
    let runtime = runtime();
    let map: PersistentMap<Caller> = runtime.block_on(builder(&store()).open()).unwrap();
    let called = self::map(&runtime);
    map.insert(
        "a",
        Caller {
            on_clone: true,
            ..Caller::default()
        },
    );
    let clones: [fn(&PersistentMap<Caller>); 4] = [
        |map| ignore(map.get("a")),
        |map| ignore(map.iter().count()),
        |map| ignore(map.snapshot()),
        |map| ignore(map.get_or_insert_with("a", Caller::default)),
    ];
    for clone in clones {
        let (map, called) = (map.clone(), called.clone());
        is_about_nesting(&panic_of(move || {
            CALLED.set(Some(called));
            clone(&map);
        }));
    }
    assert!(map.contains_key("a"));
    runtime.block_on(map.close()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_serialize_that_calls_a_map_is_refused_and_does_not_hang() {
    let map: PersistentMap<Caller> = open(store(), "map", steady).await;
    CALLED.set(Some(open_numbers(&store()).await));
    map.insert(
        "a",
        Caller {
            on_serialize: true,
            ..Caller::default()
        },
    );
    map.insert("b", Caller::default());
    let error = map.flush().await.unwrap_err();
    CALLED.set(None);
    assert_eq!((error.kind(), map.refused().len()), (ErrorKind::Refused, 1));
    let cause = std::error::Error::source(&map.refused()[0].error)
        .unwrap()
        .to_string();
    is_about_nesting(&cause);
    assert_eq!(map.pending(), 0);
}

/// Values that the map returns or discards are dropped under no lock; values that a closure
/// replaces are dropped under one.
#[test]
fn a_drop_that_calls_a_map_panics_or_works_and_does_not_hang() {
    let runtime = runtime();
    let loud = || Caller {
        on_drop: true,
        ..Caller::default()
    };
    let outside: [fn(&PersistentMap<Caller>); 5] = [
        |map| ignore(map.insert("a", Caller::default())),
        |map| ignore(map.remove("a")),
        |map| ignore(map.replace("a", Caller::default())),
        |map| map.clear(),
        |map| map.retain(|_, _| false),
    ];
    for free in outside {
        let map: PersistentMap<Caller> = runtime.block_on(builder(&store()).open()).unwrap();
        let called = self::map(&runtime);
        map.insert("a", loud());
        let (send, done) = mpsc::channel();
        std::thread::spawn(move || {
            CALLED.set(Some(called));
            free(&map);
            ignore(send.send(()));
        });
        done.recv_timeout(PATIENCE).unwrap();
    }
    let map: PersistentMap<Caller> = runtime.block_on(builder(&store()).open()).unwrap();
    let called = self::map(&runtime);
    map.insert("a", loud());
    let updated = map.clone();
    is_about_nesting(&panic_of(move || {
        CALLED.set(Some(called));
        updated.update("a", |value| *value = Caller::default());
    }));
    map.insert("b", Caller::default());
    runtime.block_on(map.close()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_leaves_a_working_map_and_its_entry_as_it_left_it() {
    let store = store();
    let map = open_numbers(&store).await;
    map.extend([("a", 1), ("b", 1), ("c", 1)]);
    map.flush().await.unwrap();
    let spoiled = map.clone();
    tokio::task::spawn_blocking(move || {
        let caught = |call: &dyn Fn()| {
            let call = std::panic::AssertUnwindSafe(call);
            assert!(std::panic::catch_unwind(call).is_err());
        };
        let spoil = |n: &mut u32| {
            *n = 7;
            panic!("half way");
        };
        caught(&|| ignore(spoiled.update("a", spoil)));
        caught(&|| spoiled.upsert("b", 2, spoil));
        caught(&|| ignore(spoiled.remove_if("c", |_| panic!("no"))));
        caught(&|| ignore(spoiled.get_or_insert_with("d", || panic!("no"))));
        caught(&|| spoiled.retain(|_, _| panic!("no")));
        caught(&|| ignore(spoiled.read("a", |_| panic!("no"))));
        caught(&|| spoiled.for_each(|_, _| panic!("no")));
    })
    .await
    .unwrap();
    assert_eq!((map.pending(), map.len()), (2, 3));
    map.insert("e", 5);
    settle().await;
    map.close().await.unwrap();
    let expected = pairs([("a", 7), ("b", 7), ("c", 1), ("e", 5)]);
    assert_eq!(stored(&store).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_closure_panics_is_saved_as_the_closure_left_it() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("a", 1).await.unwrap();
    let saving = map.clone();
    let saved = tokio::spawn(async move {
        let spoil = |n: &mut u32| {
            *n = 7;
            panic!("half way");
        };
        saving.update_and_save("a", spoil).await
    });
    assert!(saved.await.unwrap_err().is_panic());
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 7)]));
}

#[tokio::test(start_paused = true)]
async fn the_loop_over_a_map_and_a_listener_may_call_it() {
    let map = open_numbers(&store()).await;
    map.extend([("a", 1), ("b", 2)]);
    for (key, n) in &map {
        map.insert(key, n + 1);
        tokio::task::yield_now().await;
    }
    for key in map.keys() {
        map.remove(key);
    }
    assert!(map.is_empty());
    let other = map.clone();
    let cache: CachingMap<u32> = open_caching(Memory::new(), "cache", |map| {
        map.time_to_live(Duration::from_secs(1))
            .on_expire(move |key, n| ignore(other.insert(key, n)))
    })
    .await;
    cache.insert("x", 9);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(map.get("x"), Some(9));
}
