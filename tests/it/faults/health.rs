//! Health and the failures channel during an outage, and at the end of it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use persistify::{ErrorKind, Health, Operation, PersistentMap};
use tokio::{runtime::Runtime, sync::broadcast::error::TryRecvError, time::sleep};

use crate::support::{SECOND, impatient, open, open_numbers, settle, steady, store};

/// All health states that a subscriber receives.
fn watch(map: &PersistentMap<u32>) -> Arc<Mutex<Vec<Option<ErrorKind>>>> {
    let (told, mut health) = (Arc::new(Mutex::new(Vec::new())), map.health());
    let telling = told.clone();
    tokio::spawn(async move {
        while health.changed().await.is_ok() {
            telling.lock().push(health.borrow_and_update().kind());
        }
    });
    told
}

/// Health changed at each failed probe, and each probe was reported as final: alerts fired
/// every 30 seconds for as long as the store was down.
#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_however_long_it_is() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    let (told, mut events) = (watch(&map), map.failures());
    let unavailable = ErrorKind::Unavailable;
    for outage in 1..=2 {
        store.down(unavailable);
        map.insert("a", 1);
        sleep(100 * SECOND).await;
        // Waiting saves cause more probes; these are not reported either.
        map.flush().await.unwrap_err();
        let expected = [Some(unavailable), None];
        let until_now = expected.into_iter().cycle().take(outage * 2 - 1);
        assert_eq!(*told.lock(), until_now.collect::<Vec<_>>());
        // The last state stays readable.
        match &*map.health().borrow() {
            Health::Down { error, .. } => {
                let last = persistify::testing::Method::Commit;
                let number = format!("number {} ", store.calls(last));
                assert!(error.to_string().contains(&number), "{error}");
            }
            other => panic!("{other:?}"),
        }
        store.up();
        map.flush().await.unwrap();
        settle().await;
        let (mut finals, mut probes) = (0, 0);
        loop {
            match events.try_recv() {
                Ok(event) => {
                    finals += usize::from(event.is_final);
                    probes += usize::from(event.operation == Operation::Probe);
                }
                Err(TryRecvError::Empty) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(finals, 1, "outage {outage}");
        assert!(probes > 90, "{probes}");
    }
}

/// When an outage turns into an error that needs an operator, it is reported again.
#[tokio::test(start_paused = true)]
async fn another_remedy_is_told_as_a_change() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    let (told, mut since) = (watch(&map), Vec::new());
    map.insert("a", 1);
    for kind in [ErrorKind::Unavailable, ErrorKind::Unusable] {
        store.down(kind);
        sleep(10 * SECOND).await;
        match &*map.health().borrow() {
            Health::Down { since: at, .. } => since.push(*at),
            other => panic!("{other:?}"),
        }
    }
    let expected = [ErrorKind::Unavailable, ErrorKind::Unusable].map(Some);
    assert_eq!(*told.lock(), expected);
    assert_eq!(since[0], since[1], "it is the same outage");
}

/// Health stayed `Healthy` forever after the runtime had ended, while every save got
/// `Closed`.
#[test]
fn a_map_whose_runtime_has_ended_is_not_healthy() {
    let runtime = Runtime::new().unwrap();
    let map = runtime.block_on(open_numbers(&store()));
    let mut health = map.health();
    assert!(health.borrow_and_update().is_healthy());
    drop(runtime);
    assert!(health.has_changed().unwrap());
    check_ended(&health.borrow_and_update());
    let other = Runtime::new().unwrap();
    let error = other.block_on(map.insert_and_save("a", 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

fn check_ended(health: &Health) {
    assert!(!health.is_healthy());
    assert_eq!(health.kind(), Some(ErrorKind::Closed));
    assert!(matches!(health, Health::Ended { error, .. } if error.map() == Some("map")));
}

#[tokio::test(start_paused = true)]
async fn a_closed_map_says_so_by_the_time_that_close_returns() {
    let map = open_numbers(&store()).await;
    map.insert("a", 1);
    map.close().await.unwrap();
    check_ended(&map.health().borrow());
    assert!(map.health().borrow().kind() == map.clone().health().borrow().kind());
}

#[tokio::test(start_paused = true)]
async fn a_map_whose_last_handle_is_dropped_ends() {
    let map = open_numbers(&store()).await;
    let mut health = map.health();
    drop(map);
    health.changed().await.unwrap();
    check_ended(&health.borrow());
}

/// A close that fails leaves the map open, and at work.
#[tokio::test(start_paused = true)]
async fn a_map_that_could_not_be_closed_has_not_ended() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    map.close().await.unwrap_err();
    assert_eq!(map.health().borrow().kind(), Some(ErrorKind::Unavailable));
    store.up();
    map.flush().await.unwrap();
    assert!(map.health().borrow().is_healthy());
}

/// The age of a pending change keeps growing through an outage, also if callers wait or
/// request further attempts.
#[tokio::test(start_paused = true)]
async fn a_pending_change_ages_through_all_attempts() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).batch(1_000, SECOND).retry(impatient())
    })
    .await;
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    let begun = tokio::time::Instant::now();
    for n in 0..50 {
        sleep(Duration::from_millis(700)).await;
        match n % 3 {
            0 => map.flush().await.unwrap_err(),
            1 => map.insert_and_save("b", n).await.map(drop).unwrap_err(),
            _ => {
                map.retry_now();
                continue;
            }
        };
        let oldest = map.stats().oldest_pending.unwrap();
        let late = oldest.checked_sub(begun.elapsed());
        assert!(late.is_some_and(|late| late < SECOND / 10), "{oldest:?}");
    }
    store.up();
    map.flush().await.unwrap();
    assert_eq!(map.stats().oldest_pending, None);
}

/// Waiters were answered before health was published: a caller whose save had
/// just failed read `Healthy`, and one whose save had just succeeded read `Down`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_published_before_a_save_is_answered() {
    let store = store();
    let retry = impatient().base_delay(Duration::from_millis(1));
    let map = open(store.clone(), "map", |map| steady(map).retry(retry)).await;
    let health = map.health();
    for n in 0..200 {
        store.down(ErrorKind::Unusable);
        map.insert_and_save("a", n).await.unwrap_err();
        assert_eq!(health.borrow().kind(), Some(ErrorKind::Unusable), "{n}");
        store.up();
        map.retry_now();
        map.insert_and_save("a", n).await.unwrap();
        assert!(health.borrow().is_healthy(), "{n}");
    }
}
