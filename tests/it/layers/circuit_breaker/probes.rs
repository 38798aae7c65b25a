//! How an open breaker tries the store, and closes.

use persistify::testing::Hang;
use tokio::{
    task::JoinHandle,
    time::{advance, timeout},
};

use super::*;
use crate::support::settle;

/// A ping that hangs, once it has reached the store.
async fn hanging_ping(
    store: &Store,
    guarded: &CircuitBreaker<Store>,
) -> (Hang, JoinHandle<persistify::Result<()>>) {
    let hang = Hang::new();
    store.fail_next_of(Method::Ping, 1, Fault::Hang(hang.clone()));
    let guarded = guarded.clone();
    let call = tokio::spawn(async move { guarded.ping().await.map(drop) });
    hang.hangs().await;
    (hang, call)
}

#[tokio::test(start_paused = true)]
async fn it_stays_open_for_the_cool_down_and_then_lets_one_call_through() {
    let (store, guarded) = opened().await;
    store.up();
    advance(Duration::from_millis(9_999)).await;
    assert_refused(&guarded.ping().await.unwrap_err());
    advance(Duration::from_millis(1)).await;
    assert_eq!(guarded.state(), CircuitState::Open);
    let (hang, probe) = hanging_ping(&store, &guarded).await;
    assert_eq!(guarded.state(), CircuitState::HalfOpen);
    for _ in 0..3 {
        assert_refused(&guarded.ping().await.unwrap_err());
    }
    assert_eq!(store.calls(Method::Ping), 4);
    hang.release();
    probe.await.unwrap().unwrap();
    assert_eq!(guarded.state(), CircuitState::Closed);
    guarded.ping().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_opens_it_for_another_cool_down() {
    let (store, guarded) = opened().await;
    for round in 1..4 {
        advance(9 * SECOND).await;
        assert_refused(&guarded.ping().await.unwrap_err());
        advance(SECOND).await;
        guarded.ping().await.unwrap_err();
        assert_eq!(store.calls(Method::Ping), 3 + round);
        assert_eq!(guarded.state(), CircuitState::Open);
    }
    store.up();
    advance(10 * SECOND).await;
    guarded.ping().await.unwrap();
    assert_eq!(guarded.state(), CircuitState::Closed);
}

/// The failures from before do not count after it has closed.
#[tokio::test(start_paused = true)]
async fn a_closed_breaker_starts_anew() {
    let (store, guarded) = opened().await;
    store.up();
    advance(10 * SECOND).await;
    guarded.ping().await.unwrap();
    store.fail_next_of(Method::Ping, 2, Fault::Before(ErrorKind::Unavailable));
    for _ in 0..2 {
        guarded.ping().await.unwrap_err();
    }
    assert_eq!(guarded.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_any_kind_closes_it() {
    let (store, guarded) = opened().await;
    store.up();
    store.fail_next_of(Method::Ping, 1, Fault::Before(ErrorKind::Unusable));
    advance(10 * SECOND).await;
    assert_eq!(
        guarded.ping().await.unwrap_err().kind(),
        ErrorKind::Unusable
    );
    assert_eq!(guarded.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_makes_room_for_the_next_call() {
    let (store, guarded) = opened().await;
    store.up();
    advance(10 * SECOND).await;
    for _ in 0..3 {
        let (_hang, probe) = hanging_ping(&store, &guarded).await;
        assert_refused(&guarded.ping().await.unwrap_err());
        probe.abort();
        settle().await;
        assert_eq!(guarded.state(), CircuitState::HalfOpen);
    }
    guarded.ping().await.unwrap();
    assert_eq!(guarded.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_after_a_while_has_failed() {
    let (store, guarded) = opened().await;
    store.up();
    let hang = Hang::new();
    store.fail_next_of(Method::Ping, 1, Fault::Hang(hang.clone()));
    advance(10 * SECOND).await;
    timeout(2 * SECOND, guarded.ping()).await.unwrap_err();
    assert_eq!(guarded.state(), CircuitState::Open);
    let refused = guarded.ping().await.unwrap_err();
    assert!(
        refused.to_string().contains("gave up after 2s"),
        "{refused}"
    );
    advance(10 * SECOND).await;
    guarded.ping().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_replaced_after_the_cool_down() {
    let (store, guarded) = opened().await;
    store.up();
    advance(10 * SECOND).await;
    let (_hang, hung) = hanging_ping(&store, &guarded).await;
    advance(Duration::from_millis(9_999)).await;
    assert_refused(&guarded.ping().await.unwrap_err());
    advance(Duration::from_millis(1)).await;
    guarded.ping().await.unwrap();
    assert_eq!(guarded.state(), CircuitState::Closed);
    // It belongs to the past.
    hung.abort();
    settle().await;
    assert_eq!(guarded.state(), CircuitState::Closed);
}

/// On a store that needs longer than the cool-down, each probe is replaced before its answer.
#[tokio::test(start_paused = true)]
async fn the_answer_of_a_replaced_probe_closes_it() {
    let (store, guarded) = opened().await;
    store.up();
    advance(10 * SECOND).await;
    let (slow, first) = hanging_ping(&store, &guarded).await;
    advance(10 * SECOND).await;
    let (_never, _second) = hanging_ping(&store, &guarded).await;
    slow.release();
    first.await.unwrap().unwrap();
    assert_eq!(guarded.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_a_replaced_probe_does_not_prolong_the_outage() {
    let (store, guarded) = opened().await;
    store.up();
    advance(10 * SECOND).await;
    let (hang, first) = hanging_ping(&store, &guarded).await;
    advance(10 * SECOND).await;
    let (_never, _second) = hanging_ping(&store, &guarded).await;
    advance(9 * SECOND).await;
    hang.fail(ErrorKind::Unavailable);
    first.await.unwrap().unwrap_err();
    assert_eq!(guarded.state(), CircuitState::HalfOpen);
    advance(SECOND).await;
    guarded.ping().await.unwrap();
}

/// Calls that hung before the outage end when it is over.
#[tokio::test(start_paused = true)]
async fn calls_from_before_the_outage_do_not_open_it_again() {
    let store = store();
    let guarded = store.clone().layer(breaker());
    let mut hung = Vec::new();
    for _ in 0..5 {
        hung.push(hanging_ping(&store, &guarded).await);
    }
    store.down(ErrorKind::Unavailable);
    for _ in 0..3 {
        guarded.ping().await.unwrap_err();
    }
    let (answered, call) = hung.pop().unwrap();
    answered.release();
    call.await.unwrap().unwrap();
    assert_eq!(guarded.state(), CircuitState::Open);
    store.up();
    advance(10 * SECOND).await;
    guarded.ping().await.unwrap();
    for (hang, call) in hung {
        hang.fail(ErrorKind::Unavailable);
        call.await.unwrap().unwrap_err();
    }
    assert_eq!(guarded.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_every_change() {
    let store = store();
    let guarded = store.clone().layer(breaker());
    let mut states = guarded.watch();
    assert_eq!(*states.borrow_and_update(), CircuitState::Closed);
    let mut next = async || {
        let changed = timeout(SECOND, states.changed()).await;
        changed.expect("a change").unwrap();
        *states.borrow_and_update()
    };
    store.fail_next_of(Method::Ping, 4, Fault::Before(ErrorKind::Unavailable));
    for _ in 0..3 {
        guarded.ping().await.unwrap_err();
    }
    assert_eq!(next().await, CircuitState::Open);
    advance(10 * SECOND).await;
    guarded.ping().await.unwrap_err();
    assert_eq!(next().await, CircuitState::Open);
    advance(10 * SECOND).await;
    let (hang, probe) = hanging_ping(&store, &guarded).await;
    assert_eq!(next().await, CircuitState::HalfOpen);
    hang.release();
    probe.await.unwrap().unwrap();
    assert_eq!(next().await, CircuitState::Closed);
}

/// Futures do nothing before the first poll.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_is_no_probe() {
    let (store, guarded) = opened().await;
    store.up();
    advance(10 * SECOND).await;
    let unpolled = guarded.ping();
    assert_eq!(guarded.state(), CircuitState::Open);
    guarded.ping().await.unwrap();
    drop(unpolled);
    assert_eq!(guarded.state(), CircuitState::Closed);
}
