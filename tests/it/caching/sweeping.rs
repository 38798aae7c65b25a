//! The sweeper beside writes, failing stores and clocks that jump.

use super::*;

/// An entry that expired while its first commit was in flight left a tombstone without a
/// revision to compare. When the commit failed, the removal was committed without a condition,
/// and removed a new value of another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_never_reached_the_store_expires_without_touching_it() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let (listened, heard) = listening(builder(&store, &clock));
    let map = open(listened).await;
    let (inner, swept) = (store.inner().clone(), heard.clone());
    store.set_rule(move |call| {
        if call.method != Method::Commit || call.number > 1 {
            return Fault::None;
        }
        let theirs = write_as_another(&inner, vec![put("k", "2")]);
        theirs.now_or_never().expect("memory does not wait");
        // The sweeper may need this very thread to run.
        tokio::task::block_in_place(|| {
            while swept.lock().is_empty() {
                std::thread::yield_now();
            }
        });
        Fault::Before(ErrorKind::Unavailable)
    });
    map.insert_with_ttl("k", 1, seconds(10));
    let flushing = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    store.begun(Method::Commit, 1).await;
    clock.advance(seconds(10));
    while !flushing.is_finished() {
        clock.advance(Duration::from_millis(50));
        tokio::task::yield_now().await;
    }
    flushing.await.unwrap().unwrap();
    assert_eq!(
        stored_values::<u64>(store.inner()).await,
        HashMap::from([("k".to_owned(), 2)])
    );
    map.reload().await.unwrap();
    assert_eq!(map.get("k"), Some(2));
}

/// A clock whose handles are counted.
#[derive(Debug)]
struct Counted {
    clock: ManualClock,
    _count: Arc<()>,
}

impl Clock for Counted {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(deadline)
    }
}

/// The sweeper holds a handle of the map's clock, so the count shows when the sweeper has ended.
#[tokio::test]
async fn the_sweeper_ends_with_the_map() {
    for closed in [false, true] {
        let count = Arc::new(());
        let clock = Counted {
            clock: ManualClock::new(start()),
            _count: count.clone(),
        };
        let map = open_caching::<u64>(Memory::new(), "map", |map| {
            map.clock(clock).time_to_live(seconds(10))
        })
        .await;
        map.insert("a", 1);
        settle().await;
        if closed {
            map.close().await.unwrap();
        }
        drop(map);
        settle().await;
        assert_eq!(Arc::strong_count(&count), 1, "closed: {closed}");
    }
}

#[tokio::test]
async fn an_entry_that_expires_during_an_outage_is_gone_at_once_and_deleted_later() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let policy = RetryPolicy::default().max_attempts(1).probe_delay(SECOND);
    let map = open(
        builder(&store, &clock)
            .time_to_live(seconds(10))
            .retry(policy),
    )
    .await;
    map.extend((0..100).map(|n| (n.to_string(), n)));
    map.flush().await.unwrap();
    store.down(ErrorKind::Unavailable);
    // These never reach the store, so their expiry leaves no removal pending.
    map.extend((100..200).map(|n| (n.to_string(), n)));
    clock.advance(seconds(10));
    settle().await;
    assert_eq!((map.len(), map.pending()), (0, 100));
    map.insert("0", 1_000);
    store.up();
    for _ in 0..5 {
        clock.advance(SECOND);
        settle().await;
    }
    map.flush().await.unwrap();
    assert_eq!(
        stored_values::<u64>(store.inner()).await,
        HashMap::from([("0".to_owned(), 1_000)])
    );
    assert_eq!(map.pending(), 0);
}

/// An entry that overwrites an expired one stays, even if the sweeper is about to remove the
/// expired one.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_fresh_entry_in_the_place_of_an_expired_one_is_never_lost() {
    let store = Memory::new();
    let soon = Duration::from_millis(1);
    let map = open_caching::<u64>(store.clone(), "map", |map| map.batch(10, soon)).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = |n: u64| {
        let (map, done) = (map.clone(), done.clone());
        tokio::task::spawn_blocking(move || {
            let key = format!("k{n}");
            for round in 0..400 {
                let ttl = Duration::from_millis(round % 3);
                map.insert_with_ttl(&key, 0, ttl);
                // Some have been swept by now, others not.
                (0..round % 7 * 40).for_each(|_| std::thread::yield_now());
                map.insert(&key, round + 1);
                for _ in 0..50 {
                    assert_eq!(map.get(&key), Some(round + 1));
                    std::thread::yield_now();
                }
            }
            done.store(true, SeqCst);
        })
    };
    for writer in (0..4).map(writer).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    map.flush().await.unwrap();
    assert_eq!(map.snapshot(), stored_values(&store).await);
    assert_eq!(map.len(), 4);
}

/// A clock that advances by a millisecond at its n-th call of `now`.
#[derive(Clone, Debug)]
struct Jumping {
    clock: ManualClock,
    left: Arc<AtomicUsize>,
}

impl Clock for Jumping {
    fn now(&self) -> SystemTime {
        let count = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(SeqCst, SeqCst, count) == Ok(1) {
            self.clock.advance(Duration::from_millis(1));
        }
        self.clock.now()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(deadline)
    }
}

/// If the entry expired before it could be changed, `upsert` did nothing at all, and `replace`
/// wrote the value but reported that there was no entry.
#[tokio::test]
async fn an_entry_that_expires_during_a_write_keeps_the_written_value() {
    let mut jumps = 0;
    for nth in 1..10 {
        let clock = ManualClock::new(start());
        let left = Arc::new(AtomicUsize::new(0));
        let jumping = Jumping {
            clock: clock.clone(),
            left: left.clone(),
        };
        let map = open_caching::<u64>(Memory::new(), "map", |map| map.clock(jumping)).await;
        map.insert_with_ttl("a", 1, SECOND);
        map.insert_with_ttl("b", 1, SECOND);
        clock.advance(Duration::from_millis(999));
        left.store(nth, SeqCst);
        map.upsert("a", 5, |n| *n += 1);
        jumps += usize::from(left.swap(0, SeqCst) == 0);
        assert!(
            matches!(map.get("a"), Some(2 | 5)),
            "{nth}: {:?}",
            map.get("a")
        );
        if map.get("b").is_none() {
            continue;
        }
        left.store(nth, SeqCst);
        let replaced = map.replace("b", 6);
        left.store(0, SeqCst);
        assert_eq!(map.get("b"), replaced.map(|_| 6), "{nth}");
        map.close().await.unwrap();
    }
    assert!(jumps >= 2, "{jumps}");
}

/// A value whose `Drop` panicked ended the sweeper if there was no listener: entries that
/// expired later stayed in memory and in the store.
#[tokio::test]
async fn a_value_that_panics_when_it_is_dropped_does_not_end_the_sweeper() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Touchy(bool);
    impl Drop for Touchy {
        fn drop(&mut self) {
            assert!(!self.0, "dropped");
        }
    }
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open_caching(store.clone(), "map", |map| map.clock(clock.clone())).await;
    map.insert_with_ttl("bad", Touchy(true), SECOND);
    map.insert_with_ttl("good", Touchy(false), seconds(2));
    map.flush().await.unwrap();
    for _ in 0..2 {
        clock.advance(SECOND);
        settle().await;
    }
    map.flush().await.unwrap();
    assert!(records(&store).await.is_empty());
}
