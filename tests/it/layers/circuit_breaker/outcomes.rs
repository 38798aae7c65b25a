//! Which calls count as failed, and when that opens the breaker.

use futures_util::StreamExt;
use persistify::{Load, MapName, Record, Result, Revision, Wanted, async_trait};
use tokio::time::{advance, timeout};

use super::*;
use crate::support::{MINUTE, Pen, name};

const DOWN: Fault = Fault::Before(ErrorKind::Unavailable);

/// A store under a breaker.
fn guarded(breaker: CircuitBreaker) -> (Store, CircuitBreaker<Store>) {
    let store = store();
    (store.clone(), store.layer(breaker))
}

/// Pings once for each letter: `x` fails, `o` succeeds.
async fn ping(store: &Store, guarded: &CircuitBreaker<Store>, outcomes: &str) {
    for outcome in outcomes.chars() {
        if outcome == 'x' {
            store.fail_next_of(Method::Ping, 1, DOWN);
        }
        assert_eq!(guarded.ping().await.is_err(), outcome == 'x', "{outcomes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_of_failures_opens_it() {
    let (store, guarded) = guarded(breaker());
    ping(&store, &guarded, "xxoxxoxx").await;
    assert_eq!(guarded.state(), CircuitState::Closed);
    ping(&store, &guarded, "x").await;
    assert_eq!(guarded.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn failures_outside_the_window_do_not_open_it() {
    let (store, guarded) = guarded(breaker().window(MINUTE));
    for _ in 0..10 {
        ping(&store, &guarded, "x").await;
        advance(31 * SECOND).await;
    }
    assert_eq!(guarded.state(), CircuitState::Closed);
    // Two within the window, and a third.
    ping(&store, &guarded, "xx").await;
    assert_eq!(guarded.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failure_rate_opens_it() {
    let rate = |rate| patient().failure_rate(rate, 10);
    let (store, half) = guarded(rate(0.5));
    ping(&store, &half, "xoxoxoxox").await;
    assert_eq!(half.state(), CircuitState::Closed);
    // Five of the last ten: the first success is no longer among them.
    ping(&store, &half, "o").await;
    assert_eq!(half.state(), CircuitState::Closed);
    ping(&store, &half, "x").await;
    assert_eq!(half.state(), CircuitState::Open);

    let (store, most) = guarded(rate(0.6));
    ping(&store, &most, "xoxoxoxoxoxoxoxo").await;
    assert_eq!(most.state(), CircuitState::Closed);
    // One call after the other leaves the window.
    advance(10 * MINUTE).await;
    ping(&store, &most, "xxxxxxxxx").await;
    assert_eq!(most.state(), CircuitState::Closed);
    ping(&store, &most, "x").await;
    assert_eq!(most.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn the_answers_of_a_store_that_works_are_successes() {
    let (store, guarded) = guarded(breaker());
    for kind in [
        ErrorKind::Unusable,
        ErrorKind::Refused,
        ErrorKind::Conflict,
        ErrorKind::Superseded,
        ErrorKind::Rewound,
        ErrorKind::Corrupt,
        ErrorKind::Invalid,
        ErrorKind::Unsupported,
    ] {
        ping(&store, &guarded, "xx").await;
        for _ in 0..3 {
            store.fail_next_of(Method::Ping, 1, Fault::Before(kind));
            assert_eq!(guarded.ping().await.unwrap_err().kind(), kind);
        }
        assert_eq!(guarded.state(), CircuitState::Closed, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_to_the_store_counts_and_is_refused_while_open() {
    let (store, map) = (store(), name("map"));
    let guarded = store.clone().layer(CircuitBreaker::new());
    let batch = || Pen::new().changes(&map, Vec::new());
    store.down(ErrorKind::Unavailable);
    guarded.load(&map, Wanted::All).await.unwrap_err();
    guarded.commit(&batch()).await.unwrap_err();
    guarded.ping().await.unwrap_err();
    guarded.maps().await.unwrap_err();
    assert_eq!(guarded.state(), CircuitState::Closed);
    guarded.drop_map(&map).await.unwrap_err();
    assert_eq!(guarded.state(), CircuitState::Open);

    store.up();
    assert_refused(&guarded.load(&map, Wanted::All).await.unwrap_err());
    assert_refused(&guarded.commit(&batch()).await.unwrap_err());
    assert_refused(&guarded.ping().await.unwrap_err());
    assert_refused(&guarded.maps().await.unwrap_err());
    assert_refused(&guarded.drop_map(&map).await.unwrap_err());
    for method in [Method::Load, Method::Commit, Method::Ping, Method::Maps] {
        assert_eq!(store.calls(method), 1, "{method}");
    }
    // What frees resources passes, and does not close the breaker.
    guarded.release(&map).await.unwrap();
    guarded.close().await.unwrap();
    assert_eq!(guarded.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_the_last_error_of_the_store_as_its_source() {
    let (store, guarded) = opened().await;
    let said = |error: Error| std::error::Error::source(&error).unwrap().to_string();
    let refused = guarded.ping().await.unwrap_err();
    assert!(
        refused.to_string().contains("3 of the last 3 calls"),
        "{refused}"
    );
    assert!(said(refused).contains("ping number 3 failed on purpose"));
    advance(10 * SECOND).await;
    guarded.ping().await.unwrap_err();
    assert!(said(guarded.ping().await.unwrap_err()).contains("ping number 4"));
    assert_eq!(store.calls(Method::Ping), 4);
}

/// Hangs, as the calls of a store behind a network that drops packets.
async fn give_up_after(guarded: &CircuitBreaker<Store>, limit: Duration) {
    timeout(limit, guarded.ping()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_after_a_while_has_failed() {
    let (store, guarded) = guarded(breaker());
    store.set_rule(|_| Fault::Hang(persistify::testing::Hang::new()));
    let ms = Duration::from_millis;
    for _ in 0..10 {
        // A caller that changed its mind says nothing.
        give_up_after(&guarded, ms(99)).await;
    }
    assert_eq!(guarded.state(), CircuitState::Closed);
    for _ in 0..3 {
        assert_eq!(guarded.state(), CircuitState::Closed);
        give_up_after(&guarded, ms(100)).await;
    }
    let refused = guarded.ping().await.unwrap_err();
    assert_refused(&refused);
    assert!(
        refused.to_string().contains("gave up after 100ms"),
        "{refused}"
    );
}

/// Panics, or returns pages that fail or hang.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Panics,
    PageFails,
    PageHangs,
}

#[async_trait]
impl Provider for Broken {
    async fn load<'a>(&'a self, _: &MapName, _: Wanted) -> Result<Load<'a>> {
        let record = Record::new("k", None, Revision::ZERO);
        let first = futures_util::stream::iter([Ok(vec![record])]);
        let pages = match self {
            Self::Panics => panic!("a bug in the provider"),
            Self::PageFails => {
                let error = Error::new(ErrorKind::Unavailable, "the connection is gone");
                first
                    .chain(futures_util::stream::iter([Err(error)]))
                    .boxed()
            }
            Self::PageHangs => first.chain(futures_util::stream::pending()).boxed(),
        };
        Ok(Load::new(Revision::ZERO, pages))
    }

    async fn commit(&self, _: &persistify::Batch) -> Result<persistify::Committed> {
        Err(Error::new(ErrorKind::Unavailable, "down"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_has_failed() {
    let guarded = Broken::Panics.layer(breaker());
    for _ in 0..3 {
        let panicking = guarded.clone();
        let call =
            tokio::spawn(async move { panicking.load(&name("map"), Wanted::All).await.is_ok() });
        assert!(call.await.unwrap_err().is_panic());
    }
    assert_eq!(guarded.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_counts() {
    for broken in [Broken::PageFails, Broken::PageHangs] {
        let guarded = broken.layer(CircuitBreaker::new().failures(2));
        // The first answer is a success; the page is a failure.
        let load = guarded.load(&name("map"), Wanted::All).await.unwrap();
        let read = timeout(SECOND, load.into_records()).await;
        assert!(!matches!(read, Ok(Ok(_))));
        assert_eq!(guarded.state(), CircuitState::Closed);
        let batch = Pen::new().changes(&name("map"), Vec::new());
        guarded.commit(&batch).await.unwrap_err();
        assert_eq!(guarded.state(), CircuitState::Open, "{broken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_dropped_between_two_pages_has_not_failed() {
    let guarded = Broken::PageHangs.layer(CircuitBreaker::new().failures(1));
    for _ in 0..5 {
        let mut load = guarded.load(&name("map"), Wanted::All).await.unwrap();
        load.pages.next().await.unwrap().unwrap();
        advance(MINUTE).await;
        drop(load);
    }
    assert_eq!(guarded.state(), CircuitState::Closed);
}
