//! Saves that wait for a store that was down, and the errors they get.

use std::{error::Error as _, sync::Arc, time::Duration};

use parking_lot::Mutex;
use persistify::{
    ErrorKind, Expect, PersistentMap, RetryPolicy, Transaction,
    testing::{Fault, Method},
};
use tokio::time::{Instant, sleep};

use crate::support::{HOUR, SECOND, Store, impatient, open, pairs, settle, steady, store, stored};

const BASE: Duration = Duration::from_millis(100);
const MS: Duration = Duration::from_millis(1);

/// A map with a pending change, whose store went down a second ago. It probes once an hour.
async fn down(kind: ErrorKind) -> (Store, PersistentMap<u32>) {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map)
            .batch(1_000, HOUR)
            .retry(impatient().probe_delay(HOUR))
    })
    .await;
    store.down(kind);
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    sleep(SECOND).await;
    (store, map)
}

/// Makes every commit fail, and records when each begins.
fn note_attempts(store: &Store) -> Arc<Mutex<Vec<Instant>>> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = times.clone();
    store.set_rule(move |call| {
        if call.method == Method::Commit {
            noted.lock().push(Instant::now());
        }
        Fault::Before(ErrorKind::Unavailable)
    });
    times
}

fn least_gap(times: &Mutex<Vec<Instant>>) -> Duration {
    let times = times.lock();
    let gaps = times.windows(2).map(|two| two[1] - two[0]);
    gaps.min().unwrap()
}

/// After an outage, a close, a flush or a save waited until the next probe, up to 30 seconds,
/// although the store was up: a deployment at that moment timed out, and lost the pending
/// changes.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_well_again_is_tried_as_soon_as_somebody_waits() {
    for way in 0..7 {
        let (store, map) = down(ErrorKind::Unusable).await;
        store.up();
        let begun = Instant::now();
        match way {
            0 => map.close().await.unwrap(),
            1 => map.flush().await.unwrap(),
            2 => drop(map.insert_and_save("a", 1).await.unwrap()),
            3 => drop(map.save_if("b", 1, Expect::Absent).await.unwrap()),
            4 => map.reload().await.unwrap(),
            5 => {
                let mut tx = Transaction::new(&store);
                tx.insert(&map, "b", 1);
                tx.commit().await.unwrap();
            }
            _ => map.close_within(SECOND).await.unwrap(),
        }
        assert!(begun.elapsed() <= BASE, "{way}: {:?}", begun.elapsed());
        assert_eq!(stored(&store).await["a"], "1", "{way}");
    }
}

/// Waiting callers must not overload a failing store, however many there are and however often
/// they call. Each of them soon gets the reason.
#[tokio::test(start_paused = true)]
async fn a_thousand_callers_cause_one_attempt_per_base_delay() {
    let (store, map) = down(ErrorKind::Unavailable).await;
    store.up();
    let times = note_attempts(&store);
    let end = Instant::now() + 10 * SECOND;
    let callers: Vec<_> = (0..1_000_u32)
        .map(|n| {
            let map = map.clone();
            tokio::spawn(async move {
                while Instant::now() < end {
                    let asked = Instant::now();
                    let failed = match n % 4 {
                        0 => map.flush().await,
                        1 => map.insert_and_save(n.to_string(), n).await.map(drop),
                        2 => map.save_if("c", n, Expect::Any).await.map(drop),
                        _ => map.close().await,
                    };
                    let error = failed.unwrap_err();
                    // A map that is being closed rejects saves.
                    if error.kind() == ErrorKind::Closed {
                        sleep(MS).await;
                        continue;
                    }
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    assert!(asked.elapsed() <= 2 * BASE, "{:?}", asked.elapsed());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(least_gap(&times) >= BASE, "{:?}", least_gap(&times));
    let attempts = times.lock().len();
    assert!((50..=102).contains(&attempts), "{attempts}");
}

/// A probe may fail although the store has come up since it began. Callers that came during
/// the probe got that failure.
#[tokio::test(start_paused = true)]
async fn a_save_during_a_probe_gets_an_attempt_that_begins_later() {
    for closes in [true, false] {
        let (store, map) = down(ErrorKind::Unavailable).await;
        store.up();
        let hang = store.hang_next();
        let first = tokio::spawn({
            let map = map.clone();
            async move { map.flush().await }
        });
        hang.hangs().await;
        let second = tokio::spawn({
            let map = map.clone();
            async move {
                if closes {
                    map.close().await
                } else {
                    map.insert_and_save("b", 2).await.map(drop)
                }
            }
        });
        settle().await;
        hang.fail(ErrorKind::Unavailable);
        first.await.unwrap().unwrap_err();
        second.await.unwrap().unwrap();
        assert_eq!(stored(&store).await["a"], "1");
    }
}

/// The outcome of an unknown conditional commit was only checked at each probe. All callers that
/// waited for the map waited up to 30 seconds.
#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_fate_is_asked_after_as_soon_as_somebody_waits() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map)
            .batch(1_000, HOUR)
            .retry(impatient().probe_delay(HOUR))
    })
    .await;
    store.fail_next(1, Fault::After(ErrorKind::Unavailable));
    let error = map.save_if("a", 1, Expect::Absent).await.unwrap_err();
    assert!(error.may_have_applied());
    sleep(SECOND).await;
    let begun = Instant::now();
    map.insert_and_save("b", 2).await.unwrap();
    assert!(begun.elapsed() <= BASE, "{:?}", begun.elapsed());
    assert_eq!(map.get("a"), Some(1));
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
    assert!(map.health().borrow().is_healthy());
}

/// A commit with an unknown outcome is not sent more often if a thousand callers wait.
#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_fate_is_sent_once_per_base_delay() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map).retry(impatient().probe_delay(HOUR))
    })
    .await;
    let times = note_attempts(&store);
    store.fail_next(1, Fault::After(ErrorKind::Unavailable));
    map.save_if("a", 1, Expect::Absent).await.unwrap_err();
    let end = Instant::now() + 10 * SECOND;
    let callers = (0..1_000).map(|_| {
        let map = map.clone();
        tokio::spawn(async move {
            while Instant::now() < end {
                map.flush().await.unwrap_err();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert!(least_gap(&times) >= BASE, "{:?}", least_gap(&times));
    assert!(times.lock().len() >= 50, "{}", times.lock().len());
}

/// If the disk was full, the error of a close was only "closing took longer than 5s".
#[tokio::test(start_paused = true)]
async fn a_close_that_runs_out_of_time_tells_the_cause() {
    let (store, map) = down(ErrorKind::Unusable).await;
    store.up();
    let _hang = store.hang_next();
    let error = map.close_within(5 * SECOND).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert_eq!(error.keys(), ["a".into()]);
    let text = format!("{error:?}");
    for part in ["Unusable", "longer than 5s", "commit number 1 failed"] {
        assert!(text.contains(part), "{text}");
    }
    let cause = error.source().and_then(|late| late.source());
    let cause = cause.unwrap().downcast_ref::<persistify::Error>().unwrap();
    assert_eq!(cause.kind(), ErrorKind::Unusable);
    assert_eq!(map.pending(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_runs_out_of_time_between_two_attempts_tells_the_cause() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", steady).await;
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    let error = map.close_within(SECOND).await.unwrap_err();
    assert!(map.health().borrow().is_healthy(), "it is still trying");
    assert!(format!("{error:?}").contains("failed on purpose"));
    // A store that is only slow has no cause to report.
    store.up();
    map.flush().await.unwrap();
    map.insert("a", 2);
    let _hang = store.hang_next();
    let error = map.close_within(SECOND).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error:?}").contains("on purpose"), "{error:?}");
}

/// An operator who knew that the store was up again could not trigger an attempt.
#[tokio::test(start_paused = true)]
async fn retry_now_tries_a_store_that_is_down_at_once_and_does_not_hammer_it() {
    let (store, map) = down(ErrorKind::Unusable).await;
    let times = note_attempts(&store);
    store.up();
    for _ in 0..3_000 {
        map.retry_now();
        sleep(MS).await;
    }
    assert!(least_gap(&times) >= BASE, "{:?}", least_gap(&times));
    let attempts = times.lock().len();
    assert!((28..=31).contains(&attempts), "{attempts}");
    store.behave();
    sleep(SECOND).await;
    let begun = Instant::now();
    map.retry_now();
    let mut health = map.health();
    health.wait_for(|health| health.is_healthy()).await.unwrap();
    assert!(begun.elapsed() <= BASE);
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    // A healthy store is not probed.
    let commits = store.calls(Method::Commit);
    map.insert("b", 2);
    map.retry_now();
    sleep(SECOND).await;
    assert_eq!(store.calls(Method::Commit), commits);
}

#[tokio::test(start_paused = true)]
async fn retry_now_ends_the_wait_between_two_attempts() {
    let retry = RetryPolicy::default().max_attempts(5).jitter(false);
    let retry = retry.max_delay(HOUR).base_delay(HOUR / 100).patience(HOUR);
    for conditional in [false, true] {
        let store = store();
        let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(retry.clone())).await;
        store.fail_next(2, Fault::Before(ErrorKind::Unavailable));
        let saved = tokio::spawn({
            let map = map.clone();
            async move {
                if conditional {
                    map.save_if("a", 1, Expect::Absent).await.map(drop)
                } else {
                    map.insert_and_save("a", 1).await.map(drop)
                }
            }
        });
        store.ended(Method::Commit, 2).await;
        settle().await;
        let begun = Instant::now();
        map.retry_now();
        saved.await.unwrap().unwrap();
        // It waits one base delay, instead of the two that the policy asks for.
        let waited = begun.elapsed();
        assert!(waited < HOUR / 100 + SECOND, "{conditional}: {waited:?}");
    }
}
