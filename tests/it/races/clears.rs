//! Clears that run concurrently with writers, commits and flushes.

use super::*;

/// A thread writes the next number to `a` and then to `b`, over and over, while another one
/// clears. If a clear is one point in time, then a reader that sees `a` at n sees `b` at n-1 or
/// n, or no `b` because the clear came between `b` at n-1 and `a` at n. Once both were written
/// for n, a state with `a` at n and no `b` never existed: it means that a clear removed the
/// younger write and left the older one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clear_never_takes_a_younger_write_and_leaves_an_older_one() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(4);
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    let done = Arc::new(AtomicBool::new(false));
    let clears = Arc::new(AtomicU64::new(0));
    let clearing = {
        let (map, done, clears) = (map.clone(), done.clone(), clears.clone());
        std::thread::spawn(move || {
            while !done.load(SeqCst) {
                map.clear();
                clears.fetch_add(1, SeqCst);
            }
        })
    };
    let looks = tokio::task::spawn_blocking({
        let map = map.clone();
        move || {
            // Many keys are in many shards, so a clear that goes shard by shard is visible halfway.
            let keys: Vec<_> = (0..64).map(|n| format!("key {n}")).collect();
            for round in 0..3_000 {
                for key in &keys {
                    map.insert(key, round);
                }
                // There is one writer, so a removed entry stays removed until the next
                // round, and a clear removes a prefix of the writes.
                let first = keys.iter().position(|key| map.contains_key(key));
                if let Some(first) = first {
                    let rest = &keys[first..];
                    let gone = rest.iter().find(|key| map.get(key) != Some(round));
                    // If a clear has come since, `first` is gone as well.
                    if let Some(gone) = gone {
                        assert!(
                            !map.contains_key(&keys[first]),
                            "a clear took {gone} and left {}, which is older",
                            keys[first]
                        );
                    }
                }
            }
        }
    });
    let mut looked = 0;
    while !looks.is_finished() {
        // The stored entries are only counted, because a commit may contain any of the writes.
        let _ = map.flush().await;
        looked += stored_values::<u64>(store.inner()).await.len();
    }
    looks.await.unwrap();
    done.store(true, SeqCst);
    clearing.join().unwrap();
    flush(&map).await;
    assert_eq!(map.snapshot(), stored_values(store.inner()).await);
    assert!(clears.load(SeqCst) > 100, "{clears:?}, {looked}");
}

/// Writes after a clear stay, and entries from before it do not come back: a commit in flight with
/// old values is applied, or fails, or is applied and fails, after the clear.
#[tokio::test(start_paused = true)]
async fn a_clear_during_a_commit_resurrects_nothing_and_loses_nothing_newer() {
    let unavailable = ErrorKind::Unavailable;
    let fates = [
        Fault::None,
        Fault::Before(unavailable),
        Fault::Lost(unavailable),
        Fault::After(unavailable),
        Fault::Before(ErrorKind::Unusable),
        Fault::After(ErrorKind::Unusable),
    ];
    for fate in fates {
        let store = Faulty::new(Memory::new());
        let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
        map.insert_and_save("stored", 1).await.unwrap();
        map.extend([("stored", 2), ("both", 1), ("before", 1)]);
        let (inside, outcome) = (map.clone(), fate.clone());
        let mut calls = 0;
        // During the commit: after the batch was assembled, before it takes effect.
        store.set_rule(move |call| {
            if call.method != Method::Commit {
                return Fault::None;
            }
            calls += 1;
            if calls > 1 {
                return Fault::None;
            }
            inside.insert("before", 2);
            inside.clear();
            inside.extend([("both", 2), ("after", 2)]);
            outcome.clone()
        });
        flush_whatever(&map).await;
        let expected = HashMap::from([("both".to_owned(), 2), ("after".to_owned(), 2)]);
        assert_eq!(map.snapshot(), expected, "{fate:?}");
        assert_eq!(
            stored_values::<u64>(store.inner()).await,
            expected,
            "{fate:?}"
        );
        let again: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
        assert_eq!(again.snapshot(), expected, "{fate:?}");
    }
}

/// After a clear, a removal found nothing in memory and was acknowledged at once. But the clear
/// was not committed yet, and after a crash the entry was back.
#[tokio::test(start_paused = true)]
async fn a_saved_removal_after_a_clear_waits_for_the_clear() {
    let store = Faulty::new(Memory::new());
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    assert_eq!(map.remove_and_save("a").await.unwrap(), None);
    assert_eq!(stored_values::<u64>(store.inner()).await, HashMap::new());
}

/// Each first key in an empty queue restarted the age of pending changes, even if a clear had
/// waited for long: a program that inserted and removed a key now and then kept its clear from
/// the store forever.
#[tokio::test(start_paused = true)]
async fn a_clear_is_saved_within_the_interval_whatever_comes_after_it() {
    let store = Faulty::new(Memory::new());
    let second = Duration::from_secs(1);
    let map: PersistentMap<u64> = open(store.clone(), "map", |map| map.batch(1_000, second)).await;
    map.insert_and_save("a", 1).await.unwrap();
    settle().await;
    map.clear();
    for _ in 0..6 {
        tokio::time::sleep(second / 4).await;
        map.insert("b", 2);
        map.remove("b");
    }
    assert_eq!(stored_values::<u64>(store.inner()).await, HashMap::new());
}

/// A clear removes the keys of a flush from the queue, so the flush has to wait for that clear. It
/// must not wait for later ones: with a clear in each commit, it never ended.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_one_clear_that_came_after_it_and_not_for_all() {
    let store = Faulty::new(Memory::new());
    let map = hasty(PersistentMap::builder(store.clone(), "map"))
        .batch(1_000, Duration::from_hours(1))
        .max_batch(1);
    let map: PersistentMap<u64> = map.open().await.unwrap();
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    map.extend([("a", 2), ("b", 2)]);
    let clearer = map.clone();
    let before = store.calls(Method::Commit);
    store.set_rule(move |call| {
        if call.method == Method::Commit && call.number < 1_000 {
            clearer.clear();
            clearer.insert("c", 2);
        }
        Fault::None
    });
    map.flush().await.unwrap();
    assert!(store.calls(Method::Commit) - before < 10);
    let stored = stored_values::<u64>(store.inner()).await;
    let old = stored.values().any(|value| *value == 1);
    assert!(!old, "what the flush waited for is not there: {stored:?}");
}

/// When `clear_and_save` returns, the store is empty, also among flushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acknowledged_clear_is_in_the_store() {
    let store = Faulty::new(Memory::new());
    let map: PersistentMap<u64> = open(store.clone(), "map", hasty).await;
    let done = Arc::new(AtomicBool::new(false));
    let (flushing, stop) = (map.clone(), done.clone());
    let flushing = tokio::spawn(async move {
        while !stop.load(SeqCst) {
            flushing.flush().await.unwrap();
        }
    });
    for round in 0..2_000 {
        map.insert_and_save("a", round).await.unwrap();
        map.clear_and_save().await.unwrap();
        assert_eq!(
            stored_values::<u64>(store.inner()).await,
            HashMap::new(),
            "{round}"
        );
    }
    done.store(true, SeqCst);
    flushing.await.unwrap();
}
