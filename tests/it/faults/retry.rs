//! The number and the pauses of attempts to save, and how failures are reported.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use persistify::{
    ErrorKind, Operation, PersistentMap, RetryPolicy, SaveFailure,
    testing::{Fault, Method},
};
use tokio::{sync::broadcast, time::Instant};

use crate::support::{
    HOUR, SECOND, Store, as_it_is, impatient, open, open_numbers, pairs, settle, steady, store,
    stored,
};

const MS: Duration = Duration::from_millis(1);

/// Makes every commit fail from now on, and records the time of each.
fn note_attempts(store: &Store) -> Arc<Mutex<Vec<Instant>>> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = times.clone();
    store.set_rule(move |call| {
        if call.method != Method::Commit {
            return Fault::None;
        }
        noted.lock().push(Instant::now());
        Fault::Before(ErrorKind::Unavailable)
    });
    times
}

fn gaps(times: &Mutex<Vec<Instant>>) -> Vec<Duration> {
    let times = times.lock();
    times.windows(2).map(|two| two[1] - two[0]).collect()
}

fn drain(events: &mut broadcast::Receiver<SaveFailure>) -> Vec<SaveFailure> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn delays_double_up_to_the_cap_and_probes_go_on_after_them() {
    let store = store();
    let policy = RetryPolicy::default()
        .max_attempts(6)
        .base_delay(100 * MS)
        .max_delay(500 * MS)
        .probe_delay(600 * MS)
        .jitter(false);
    let map = open(store.clone(), "map", |map| steady(map).retry(policy)).await;
    let times = note_attempts(&store);
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    tokio::time::sleep(1_600 * MS).await;
    let expected = [100, 200, 400, 500, 500, 600, 600];
    let gaps = gaps(&times);
    assert_eq!(gaps.len(), expected.len(), "{gaps:?}");
    for (gap, expected) in gaps.iter().zip(expected) {
        let late = gap.checked_sub(expected * MS);
        assert!(late.is_some_and(|late| late < 5 * MS), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_stays_between_nothing_and_the_full_delay() {
    let store = store();
    let policy = RetryPolicy::default()
        .max_attempts(300)
        .patience(HOUR)
        .base_delay(SECOND)
        .max_delay(SECOND);
    let map = open(store.clone(), "map", |map| steady(map).retry(policy)).await;
    let times = note_attempts(&store);
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    let gaps = gaps(&times);
    assert_eq!(gaps.len(), 299);
    assert!(gaps.iter().all(|gap| *gap < SECOND + 5 * MS));
    assert!(gaps.iter().any(|gap| *gap < SECOND / 4));
    assert!(gaps.iter().any(|gap| *gap > SECOND * 3 / 4));
}

#[tokio::test(start_paused = true)]
async fn every_failed_attempt_is_told_once_and_the_last_one_says_so() {
    let store = store();
    let map = open_numbers(&store).await;
    let mut events = map.failures();
    map.extend((0..25).map(|n| (n.to_string(), n)));
    store.fail_next(3, Fault::Before(ErrorKind::Unavailable));
    map.flush().await.unwrap();
    let told = drain(&mut events);
    let attempts: Vec<_> = told.iter().map(|e| (e.attempt, e.is_final)).collect();
    assert_eq!(attempts, [(1, false), (2, false), (3, false)]);
    for event in &told {
        assert_eq!(
            (event.operation, event.max_attempts),
            (Operation::Commit, 5)
        );
        assert_eq!((event.keys.count, event.keys.first.len()), (25, 10));
        assert_eq!(&*event.keys.first[0], "0");
        assert_eq!(event.error.kind(), ErrorKind::Unavailable);
        assert_eq!(event.map.as_str(), "map");
    }

    map.insert("a", 1);
    store.down(ErrorKind::Unavailable);
    let error = map.insert_and_save("b", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let told = drain(&mut events);
    let attempts: Vec<_> = told.iter().map(|e| (e.attempt, e.is_final)).collect();
    let expected = [(1, false), (2, false), (3, false), (4, false), (5, true)];
    assert_eq!(attempts, expected);
    assert_eq!(told[4].keys.count, 2);
    assert_eq!(map.stats().failed_attempts, 8);

    tokio::time::sleep(61 * SECOND).await;
    let told = drain(&mut events);
    let probes: Vec<_> = told.iter().map(|e| (e.operation, e.is_final)).collect();
    assert_eq!(probes, [(Operation::Probe, false); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_success_starts_the_count_again() {
    let store = store();
    let map = open_numbers(&store).await;
    let mut events = map.failures();
    for _ in 0..3 {
        map.insert("a", 1);
        store.fail_next(4, Fault::Before(ErrorKind::Unavailable));
        map.flush().await.unwrap();
        let attempts: Vec<_> = drain(&mut events).iter().map(|e| e.attempt).collect();
        assert_eq!(attempts, [1, 2, 3, 4]);
    }
    assert!(map.health().borrow().is_healthy());
}

/// A change that was removed between two attempts passed its attempt count on to the next change,
/// hours later.
#[tokio::test(start_paused = true)]
async fn a_change_that_is_gone_leaves_no_attempts_behind() {
    let store = store();
    let map = open_numbers(&store).await;
    let mut events = map.failures();
    let taking_back = map.clone();
    store.set_rule(move |call| {
        if call.number == 1 {
            taking_back.remove("a");
        }
        Fault::Before(ErrorKind::Unavailable)
    });
    map.insert("a", 1);
    map.flush().await.unwrap();
    map.insert("b", 1);
    map.flush().await.unwrap_err();
    let attempts: Vec<_> = drain(&mut events).iter().map(|e| e.attempt).collect();
    assert_eq!(attempts, [1, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn health_goes_down_and_comes_up_again_without_help() {
    let store = store();
    let map = open_numbers(&store).await;
    let mut health = map.health();
    assert!(health.borrow().is_healthy());
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    let down = health.wait_for(|health| !health.is_healthy()).await;
    assert_eq!(down.unwrap().kind(), Some(ErrorKind::Unavailable));
    tokio::time::sleep(HOUR).await;
    assert_eq!(map.pending(), 1);
    assert!(map.stats().oldest_pending.unwrap() > HOUR);
    store.up();
    let up = Instant::now();
    health.wait_for(|health| health.is_healthy()).await.unwrap();
    assert!(up.elapsed() <= 31 * SECOND);
    settle().await;
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    assert_eq!((map.pending(), map.stats().oldest_pending), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_store_with_nothing_to_write_is_asked_whether_it_is_well() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    let mut health = map.health();
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    map.remove("a");
    assert_eq!(map.pending(), 0);
    tokio::time::sleep(10 * SECOND).await;
    assert!(!health.borrow_and_update().is_healthy());
    assert_eq!(store.calls(Method::Commit), 1);
    assert!(store.calls(Method::Ping) >= 9);
    store.up();
    health.wait_for(|health| health.is_healthy()).await.unwrap();
    assert!(stored(&store).await.is_empty());
}

/// Writes without a waiting caller, and a new batch size, do not cause a probe.
#[tokio::test(start_paused = true)]
async fn a_dead_store_that_nobody_waits_for_sees_one_attempt_per_probe_delay() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| steady(map).batch(1, MS)).await;
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    let before = store.calls(Method::Commit);
    assert_eq!(before, 5);
    let start = Instant::now();
    for n in 0..6_000_u32 {
        map.insert("a", n);
        map.set_batch(1, MS).unwrap();
        tokio::time::sleep(100 * MS).await;
    }
    let probes = store.calls(Method::Commit) - before;
    let delays = start.elapsed().as_secs() / 30;
    assert!(
        probes <= delays && probes >= delays - 1,
        "{probes} of {delays}"
    );
}

/// Five attempts were spent in about a second and a half: every restart of a server caused errors
/// for all waiting callers, and an alert.
#[tokio::test(start_paused = true)]
async fn the_restart_of_a_server_is_a_delay_and_a_longer_outage_is_told() {
    for _ in 0..20 {
        let store = store();
        let map = open::<u32>(store.clone(), "map", as_it_is).await;
        let health = map.health();
        store.down(ErrorKind::Unavailable);
        let begun = Instant::now();
        let saved = tokio::spawn({
            let map = map.clone();
            async move { map.insert_and_save("a", 1).await }
        });
        tokio::time::sleep(9 * SECOND).await;
        store.up();
        saved.await.unwrap().unwrap();
        let waited = begun.elapsed();
        assert!(waited < 10 * SECOND + 100 * MS, "{waited:?}");
        assert!(!health.has_changed().unwrap());

        store.down(ErrorKind::Unavailable);
        let begun = Instant::now();
        let error = map.insert_and_save("a", 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let waited = begun.elapsed();
        let late = waited.checked_sub(10 * SECOND);
        assert!(late.is_some_and(|late| late < 100 * MS), "{waited:?}");
        let events = map.stats().failed_attempts;
        assert!((10..=80).contains(&events), "{events}");
    }
}

/// If a call takes long to fail, five attempts would take minutes. The `patience` limits the time.
#[tokio::test(start_paused = true)]
async fn attempts_that_hang_are_spent_with_the_patience() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| map.commit_timeout(30 * SECOND)).await;
    let hang = persistify::testing::Hang::new();
    store.set_rule(move |_| Fault::Hang(hang.clone()));
    let begun = Instant::now();
    map.insert_and_save("a", 1).await.unwrap_err();
    assert!(begun.elapsed() <= 71 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(store.calls(Method::Commit), 2);
}

/// A store that refuses a change is up. With nothing else to save, its map stayed `Down` until the
/// next probe.
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_up() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).batch(1_000, HOUR).retry(impatient())
    })
    .await;
    store.down(ErrorKind::Unavailable);
    map.insert_and_save("bad", 1).await.unwrap_err();
    assert!(!map.health().borrow().is_healthy());
    store.up();
    store.refuse(["bad"]);
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(map.health().borrow().is_healthy());
}
