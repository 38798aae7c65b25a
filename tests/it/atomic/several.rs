//! Transactions over several maps.

mod outcomes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use persistify::{
    ErrorKind, Expect, MapName, Memory, PersistentMap, RetryPolicy, Transaction,
    testing::{Fault, Faulty, ManualClock, Method},
};
use tokio::time::{Instant, sleep};

use crate::support::{
    HOUR, SECOND, Store, as_it_is, impatient, open, pairs, settle, start, store, stored_in,
};

async fn map(store: &Store, name: &str) -> PersistentMap<u32> {
    let map = PersistentMap::builder(store.clone(), name).batch(1_000, HOUR);
    let map = map.commit_timeout(30 * SECOND).retry(impatient());
    map.open().await.unwrap()
}

async fn stored(store: &Store, name: &str) -> std::collections::BTreeMap<String, String> {
    stored_in(store, &MapName::new(name).unwrap()).await
}

/// Whether the call commits a batch that spans several maps.
fn is_joint(call: &persistify::testing::Call) -> bool {
    call.batch
        .as_ref()
        .is_some_and(|batch| batch.maps.len() > 1)
}

#[tokio::test(start_paused = true)]
async fn a_transaction_lands_in_all_maps_or_in_none() {
    let store = store();
    // Opened in an order that differs from the order of the names.
    let (b, a) = (map(&store, "b").await, map(&store, "a").await);
    a.extend([("x", 1), ("y", 1), ("z", 1)]);
    let mut tx = Transaction::new(&store);
    tx.insert(&b, "x", 2).remove(&a, "x").insert(&a, "n", 2);
    let revision = tx.commit().await.unwrap().unwrap();
    assert_eq!(stored(&store, "a").await, pairs([("n", 2)]));
    assert_eq!(stored(&store, "b").await, pairs([("x", 2)]));
    assert_eq!(a.get_with_revision("n"), Some((2, revision)));
    assert_eq!(b.get_with_revision("x"), Some((2, revision)));
    assert_eq!(
        (a.get("x"), a.len(), a.pending(), b.pending()),
        (None, 3, 2, 0)
    );

    let another = map(&store, "b").await;
    let last = another.save_if("x", 3, Expect::Present).await.unwrap();
    let mut tx = Transaction::new(&store);
    tx.insert(&a, "n", 9).remove(&a, "y").insert(&b, "w", 9);
    tx.insert(&b, "x", 9).require(&b, "x", Expect::At(revision));
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!((error.map(), error.keys()), (Some("b"), &["x".into()][..]));
    assert_eq!(error.found().unwrap().revision, last);
    assert_eq!(b.get_with_revision("x"), Some((3, last)));
    assert_eq!(
        (a.get("n"), a.get("y"), b.get("w")),
        (Some(2), Some(1), None)
    );
    assert_eq!(stored(&store, "a").await, pairs([("n", 2), ("y", 1)]));
    a.close().await.unwrap();
    b.close().await.unwrap();
    let mut tx = Transaction::new(&store);
    tx.insert(&a, "n", 9);
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_does_nothing_before_its_first_poll_and_all_after_it() {
    let store = store();
    let (a, b) = (map(&store, "a").await, map(&store, "b").await);
    let both = || {
        let mut tx = Transaction::new(&store);
        tx.insert(&a, "x", 1).insert(&b, "x", 1);
        tx
    };
    assert_eq!(Transaction::new(&store).commit().await.unwrap(), None);
    drop(both());
    drop(both().commit());
    settle().await;
    assert_eq!(store.calls(Method::Commit), 0);
    let mut left = 1;
    let hang = persistify::testing::Hang::new();
    let held = hang.clone();
    store.set_rule(move |call| {
        if is_joint(call) && left > 0 {
            left -= 1;
            return Fault::Hang(held.clone());
        }
        Fault::None
    });
    tokio::select! {
        biased;
        _ = both().commit() => panic!("it hangs"),
        () = hang.hangs() => {}
    }
    assert_eq!((a.get("x"), b.get("x")), (None, None));
    hang.release();
    a.insert("y", 1);
    a.flush().await.unwrap();
    assert_eq!((a.get("x"), b.get("x")), (Some(1), Some(1)));
    assert_eq!(stored(&store, "b").await, pairs([("x", 1)]));
}

#[tokio::test(start_paused = true)]
async fn maps_that_do_not_go_together_are_turned_away() {
    let (store, elsewhere) = (store(), store());
    let (a, b) = (map(&store, "a").await, map(&store, "b").await);
    let (twice, other) = (map(&store, "a").await, map(&elsewhere, "b").await);
    a.insert_and_save("x", 1).await.unwrap();
    let joined = |one: &PersistentMap<u32>, two: &PersistentMap<u32>| {
        let mut tx = Transaction::new(&store);
        tx.insert(one, "x", 2).insert(two, "y", 2);
        tx.commit()
    };
    let (opened_twice, of_another) = (
        "use one of them",
        "create the transaction with the provider",
    );
    for (error, remedy) in [
        (joined(&a, &twice).await.unwrap_err(), opened_twice),
        (joined(&a, &other).await.unwrap_err(), of_another),
        (joined(&other, &a).await.unwrap_err(), of_another),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(!error.may_have_applied() && error.map().is_some());
    }
    assert_eq!(
        (a.get("x"), twice.get("x"), other.len()),
        (Some(1), None, 0)
    );
    assert_eq!(stored(&store, "b").await, pairs([]));
    // Two handles of the same map are one, and clones of the provider as well.
    joined(&a, &a.clone()).await.unwrap();
    let mut tx = Transaction::new(&store.clone());
    tx.insert(&a, "x", 3).insert(&b, "x", 3);
    tx.commit().await.unwrap();
    assert_eq!(stored(&store, "a").await, pairs([("x", 3), ("y", 2)]));
}

/// Two providers that were opened separately on the same file count as one store.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn maps_of_two_openings_of_a_file_go_together_and_those_of_two_files_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| persistify::Sqlite::open(folder.path().join(name));
    let files = [file("1").await, file("1").await, file("2").await].map(Result::unwrap);
    let [one, same, other] = &files;
    let a: PersistentMap<u32> = open(one.clone(), "a", as_it_is).await;
    let shared: Arc<dyn persistify::Provider> = Arc::new(same.clone());
    let b: PersistentMap<u32> = open(shared, "b", as_it_is).await;
    for (provider, fits) in [(one, true), (same, true), (other, false)] {
        let mut tx = Transaction::new(provider);
        tx.insert(&a, "x", 1).insert(&b, "x", 1);
        let done = tx.commit().await.map_err(|error| error.kind());
        assert_eq!(
            done.map_err(|kind| kind == ErrorKind::Invalid).err(),
            (!fits).then_some(true)
        );
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
}

/// A store remembers a writer for a day. After an idle period, a transaction first makes the
/// store remember it again; otherwise the map would be taken for a map of another store.
#[tokio::test(start_paused = true)]
async fn a_map_that_was_idle_for_days_is_still_known() {
    let store = store();
    let clock = ManualClock::new(start());
    let open = |name: &'static str| {
        let map = PersistentMap::builder(store.clone(), name);
        map.clock(clock.clone()).batch(1_000, HOUR).open()
    };
    let a: PersistentMap<u32> = open("a").await.unwrap();
    let b: PersistentMap<u32> = open("b").await.unwrap();
    let mut commits = 0;
    // The transaction asks once about each map. A map that is not remembered commits before that.
    for (wait, expected) in [(0, 5), (0, 3), (59, 3), (48 * 60, 5)] {
        clock.advance(Duration::from_mins(wait));
        let mut tx = Transaction::new(&store);
        tx.insert(&a, "x", 1).insert(&b, "x", 1);
        tx.commit().await.unwrap();
        let before = std::mem::replace(&mut commits, store.calls(Method::Commit));
        assert_eq!(commits - before, expected, "after {wait} minutes");
    }
}

/// Many tasks transfer money between accounts in four maps, in every order of the maps. The store
/// fails one commit in three. At the end, memory and store agree, and the sum is unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transfers_among_four_maps_neither_block_each_other_nor_lose_anything() {
    const MAPS: usize = 4;
    let store = Faulty::new(Memory::new());
    let soon = Duration::from_millis(1);
    let retry = RetryPolicy::default().base_delay(soon).max_delay(soon);
    let retry = retry.probe_delay(soon);
    let mut maps = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let map: PersistentMap<i64> = open(store.clone(), name, |map| {
            map.batch(3, soon).retry(retry.clone().max_attempts(50))
        })
        .await;
        map.batch()
            .insert("0", 100)
            .insert("1", 100)
            .commit()
            .await
            .unwrap();
        maps.push(map);
    }
    store.fail_one_in(3);
    let done = Arc::new(AtomicBool::new(false));
    let noise = tokio::spawn({
        let (maps, done) = (maps.clone(), done.clone());
        async move {
            for n in 0.. {
                if done.load(SeqCst) {
                    break;
                }
                // Fails while the store seems down; pending changes stay pending.
                let _ = maps[n % MAPS].insert_and_save("noise", 0).await;
                maps[n % MAPS].insert("noise", 0);
            }
        }
    });
    let transfer = |task: usize| {
        let (maps, store) = (maps.clone(), store.clone());
        async move {
            let mut done = 0;
            for round in 0..500 {
                let (from, to) = (task + round, task * 3 + round * 7 + 1);
                let (one, two) = (&maps[from % MAPS], &maps[to % MAPS]);
                let (x, y) = ((from / 5 % 2).to_string(), (to / 5 % 2).to_string());
                if (from % MAPS, &x) == (to % MAPS, &y) {
                    continue;
                }
                let (had, revision) = one.get_with_revision(&x).unwrap();
                let (has, other) = two.get_with_revision(&y).unwrap();
                let mut tx = Transaction::new(&store);
                tx.insert(one, &x, had - 1)
                    .require(one, &x, Expect::At(revision));
                tx.insert(two, &y, has + 1)
                    .require(two, &y, Expect::At(other));
                match tx.commit().await {
                    Ok(_) => done += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
                }
                if done == 10 {
                    break;
                }
            }
            done
        }
    };
    let tasks: Vec<_> = (0..16).map(|task| tokio::spawn(transfer(task))).collect();
    let mut moved = 0;
    for task in tasks {
        moved += task.await.unwrap();
    }
    done.store(true, SeqCst);
    noise.await.unwrap();
    let mut sum = 0;
    for (map, name) in maps.iter().zip(["a", "b", "c", "d"]) {
        while map.flush().await.is_err() {}
        let name = MapName::new(name).unwrap();
        let stored = stored_in(&store, &name).await;
        for (key, value) in map {
            assert_eq!(stored[&*key], value.to_string());
            sum += value;
        }
    }
    assert_eq!(sum, 800);
    assert!(moved > 16, "{moved}");
}

/// A transaction repeatedly writes the same number to two maps. A reader that reads one map and
/// then the other must never find the second map behind the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_of_memory_sees_all_of_a_transaction_or_nothing() {
    let store = store();
    let (a, b) = (map(&store, "a").await, map(&store, "b").await);
    let done = Arc::new(AtomicBool::new(false));
    let look = |first: PersistentMap<u32>, second: PersistentMap<u32>| {
        let done = done.clone();
        std::thread::spawn(move || {
            let mut looks = 0u32;
            while !done.load(SeqCst) {
                for (one, other) in [("x", "x"), ("x", "y"), ("y", "x")] {
                    let before = first.get(one);
                    let after = second.get(other);
                    assert!(before <= after, "{before:?} and then {after:?}");
                    looks += 1;
                }
            }
            looks
        })
    };
    let readers = [
        look(a.clone(), b.clone()),
        look(b.clone(), a.clone()),
        look(a.clone(), a.clone()),
    ];
    for n in 0..2_000 {
        let mut tx = Transaction::new(&store);
        tx.insert(&a, "x", n).insert(&a, "y", n);
        tx.insert(&b, "x", n).insert(&b, "y", n);
        tx.commit().await.unwrap();
    }
    done.store(true, SeqCst);
    for reader in readers {
        assert!(reader.join().unwrap() > 1_000);
    }
}
