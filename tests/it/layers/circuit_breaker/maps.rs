//! Maps on a store behind a breaker.

use persistify::{Expect, PersistentMap, RetryPolicy};
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::support::{HOUR, MINUTE, impatient, name, open, pairs, settle, stored, stored_in};

/// Opens after one failure, for ten seconds.
fn strict() -> CircuitBreaker {
    CircuitBreaker::new().failures(1).cool_down(10 * SECOND)
}

/// One attempt, and then a probe every hour: only what wakes the map makes it try again.
fn sleepy() -> RetryPolicy {
    impatient().probe_delay(HOUR)
}

async fn map(store: &CircuitBreaker<Store>, name: &str, retry: RetryPolicy) -> PersistentMap<u32> {
    let options = |map: persistify::PersistentMapBuilder<u32>| {
        map.retry(retry)
            .batch(1_000, HOUR)
            .commit_timeout(Duration::MAX)
    };
    open(store.clone(), name, options).await
}

async fn is_healthy(map: &PersistentMap<u32>, within: Duration) -> Duration {
    let began = Instant::now();
    let mut health = map.health();
    let healthy = health.wait_for(|health| health.is_healthy());
    drop(timeout(within, healthy).await.expect("in time").unwrap());
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn the_failures_of_one_map_spare_the_others_their_own() {
    let store = store();
    let guarded = store.clone().layer(breaker());
    let one = map(&guarded, "one", RetryPolicy::default()).await;
    let two = map(&guarded, "two", sleepy()).await;
    store.down(ErrorKind::Unavailable);
    // Three attempts reach the store. The others fail at once.
    let began = Instant::now();
    let failed = one.insert_and_save("k", 1).await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.map()),
        (ErrorKind::Unavailable, Some("one"))
    );
    assert!(began.elapsed() <= 11 * SECOND);
    let tried = store.calls(Method::Commit);
    assert!(tried <= 5, "{tried} commits");
    let refused = two.insert_and_save("k", 2).await.unwrap_err();
    assert_refused(&refused);
    assert_eq!(refused.map(), Some("two"));
    assert!(
        refused.to_string().contains("failed on purpose"),
        "{refused}"
    );
    assert_eq!(store.calls(Method::Commit), tried);
    assert_eq!((one.pending(), two.pending()), (1, 1));

    // Both recover, although nobody waits for the second one.
    store.up();
    advance(10 * SECOND).await;
    one.flush().await.unwrap();
    is_healthy(&two, SECOND).await;
    assert_eq!(stored_in(&store, &name("one")).await, pairs([("k", 1)]));
    assert_eq!(stored_in(&store, &name("two")).await, pairs([("k", 2)]));
}

/// The probe is no call of a map: a map whose attempt was refused waited for its own probe.
#[tokio::test(start_paused = true)]
async fn closing_wakes_the_maps_that_are_down() {
    let store = store();
    let guarded = store.clone().layer(strict());
    let map = map(&guarded, "map", sleepy()).await;
    store.down(ErrorKind::Unavailable);
    map.insert_and_save("k", 1).await.unwrap_err();
    store.up();
    advance(10 * SECOND).await;
    assert!(!map.health().borrow().is_healthy());
    guarded.ping().await.unwrap();
    is_healthy(&map, SECOND).await;
    assert_eq!(stored(&store).await, pairs([("k", 1)]));
}

/// The worst case: a probe of the map is refused just before the end of the cool-down.
#[tokio::test(start_paused = true)]
async fn a_map_recovers_within_the_cool_down_and_its_own_delay() {
    for (cool_down, probe_delay) in [(10, 3), (10, 7), (3, 10), (10, 10), (1, 30)] {
        let (cool_down, probe_delay) = (cool_down * SECOND, probe_delay * SECOND);
        let store = store();
        let guarded = store.clone().layer(strict().cool_down(cool_down));
        let map = map(&guarded, "map", impatient().probe_delay(probe_delay)).await;
        store.down(ErrorKind::Unavailable);
        map.insert_and_save("k", 1).await.unwrap_err();
        tokio::time::sleep(MINUTE).await;
        // The store comes back when another call has just failed.
        let last = store.calls(Method::Commit);
        store.begun(Method::Commit, last + 1).await;
        settle().await;
        store.up();
        let took = is_healthy(&map, HOUR).await;
        assert!(
            took <= cool_down + probe_delay,
            "{cool_down:?} {probe_delay:?}: {took:?}"
        );
        assert_eq!(stored(&store).await, pairs([("k", 1)]));
    }
}

/// While the breaker is open, a caller gets its attempt at once, with the cause, and the
/// store is spared.
#[tokio::test(start_paused = true)]
async fn callers_that_wait_get_the_cause_at_once() {
    let store = store();
    let guarded = store.clone().layer(strict());
    let map = map(&guarded, "map", sleepy()).await;
    store.down(ErrorKind::Unavailable);
    map.insert_and_save("k", 1).await.unwrap_err();
    let tried = store.calls(Method::Commit);
    for _ in 0..5 {
        let began = Instant::now();
        assert_refused(&map.flush().await.unwrap_err());
        assert!(began.elapsed() < SECOND);
        map.retry_now();
    }
    assert_eq!(store.calls(Method::Commit), tried);
    store.up();
    advance(10 * SECOND).await;
    map.retry_now();
    is_healthy(&map, SECOND).await;
    assert_eq!(stored(&store).await, pairs([("k", 1)]));
}

/// A call that hangs is dropped by the time limit of the map, and that counts.
#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_map_opens_the_breaker() {
    let store = store();
    let guarded = store.clone().layer(CircuitBreaker::new());
    let map = open::<u32>(guarded.clone(), "map", |map| map.batch(1_000, HOUR)).await;
    store.set_rule(|_| Fault::Hang(persistify::testing::Hang::new()));
    map.insert("k", 1);
    map.flush().await.unwrap_err();
    let mut states = guarded.watch();
    let opens = states.wait_for(|state| *state == CircuitState::Open);
    drop(timeout(5 * MINUTE, opens).await.expect("opens").unwrap());
    assert_eq!(store.calls(Method::Commit), 5);
    // The next attempt fails at once instead of after 30 seconds.
    let began = Instant::now();
    assert_refused(&map.flush().await.unwrap_err());
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

/// The first attempt has an unknown outcome, and the second one is refused by the breaker:
/// "nothing was sent" is true of that attempt only.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_unknown_while_the_breaker_is_open() {
    for (fault, applied) in [
        (Fault::After(ErrorKind::Unavailable), true),
        (Fault::Lost(ErrorKind::Unavailable), false),
    ] {
        let store = store();
        let guarded = store.clone().layer(strict());
        let map = map(&guarded, "map", impatient().max_attempts(2)).await;
        store.fail_next(1, fault);
        let unknown = map.save_if("k", 1, Expect::Absent).await.unwrap_err();
        assert!(unknown.may_have_applied(), "{unknown}");
        assert!(unknown.to_string().contains("breaker is open"), "{unknown}");
        assert_eq!(stored(&store).await.len(), usize::from(applied));
        assert_eq!(store.calls(Method::Commit), 1);
        // The same batch is sent again once the breaker lets it through, and not before.
        tokio::time::sleep(9 * SECOND).await;
        assert_eq!(store.calls(Method::Commit), 1);
        is_healthy(&map, 3 * SECOND).await;
        let batches = store.batches();
        assert_eq!(batches[0], batches[1]);
        assert_eq!(map.get("k"), Some(1));
        assert_eq!(stored(&store).await, pairs([("k", 1)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_batch_of_unknown_outcome_is_applied_once() {
    let store = store();
    let guarded = store.clone().layer(strict());
    let map = map(&guarded, "map", impatient()).await;
    store.fail_next(1, Fault::After(ErrorKind::Unavailable));
    let unknown = map.insert_and_save("k", 1).await.unwrap_err();
    assert!(unknown.may_have_applied());
    // A later write waits behind the batch of unknown outcome.
    let refused = map.insert_and_save("k", 2).await.unwrap_err();
    assert_refused(&refused.clone().nothing_applied());
    tokio::time::sleep(11 * SECOND).await;
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("k", 2)]));
    let batches = store.batches();
    assert_eq!(batches[0], batches[1]);
    assert_eq!(batches.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_map_closes_and_opens_through_a_breaker() {
    let store = store();
    let guarded = store.clone().layer(strict());
    let clean = map(&guarded, "clean", sleepy()).await;
    let pending = map(&guarded, "pending", sleepy()).await;
    store.down(ErrorKind::Unavailable);
    pending.insert_and_save("k", 1).await.unwrap_err();
    store.up();
    // Nothing is to be saved, so the open breaker does not keep the map from closing.
    clean.close().await.unwrap();
    let error = pending.close().await.unwrap_err();
    assert_eq!(error.keys(), ["k".into()]);
    let builder = || PersistentMap::<u32>::builder(guarded.clone(), "late");
    assert_refused(&builder().open().await.unwrap_err());
    // An open with patience gets the probe.
    let began = Instant::now();
    let late = builder().open_timeout(MINUTE).open().await.unwrap();
    assert!(began.elapsed() <= 12 * SECOND, "{:?}", began.elapsed());
    drop(late);
    pending.close().await.unwrap();
    assert_eq!(stored_in(&store, &name("pending")).await, pairs([("k", 1)]));
}
