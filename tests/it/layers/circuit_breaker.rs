//! Circuit breakers: when they open, what passes while they are open, and how they close.

mod maps;
#[cfg(feature = "metrics")]
mod measured;
mod outcomes;
#[cfg(feature = "postgres")]
mod postgres;
mod probes;

use std::time::Duration;

use persistify::{
    CircuitBreaker, CircuitState, Error, ErrorKind, Memory, Provider, ProviderExt,
    testing::{Fault, Method, conformance},
};

use crate::support::{SECOND, Store, store};

/// Never opens in a test.
fn patient() -> CircuitBreaker {
    CircuitBreaker::new().failures(10_000)
}

/// Opens after three failures in a row, for ten seconds.
fn breaker() -> CircuitBreaker {
    CircuitBreaker::new().failures(3).cool_down(10 * SECOND)
}

/// A breaker that has just opened because of three failed pings, and the store below.
async fn opened() -> (Store, CircuitBreaker<Store>) {
    let store = store();
    let guarded = store.clone().layer(breaker());
    store.down(ErrorKind::Unavailable);
    for _ in 0..3 {
        guarded.ping().await.unwrap_err();
    }
    assert_eq!(guarded.state(), CircuitState::Open);
    (store, guarded)
}

/// Checks that this is the error of an open breaker.
fn assert_refused(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.may_have_applied());
    assert!(error.to_string().contains("breaker is open"), "{error}");
}

#[tokio::test]
async fn a_breaker_in_memory_conforms() {
    let store = Memory::new();
    conformance(async || Ok(store.clone().layer(patient()))).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_breaker_on_json_files_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || persistify::JsonFile::open(folder.path()).await;
    conformance(async || Ok(open().await?.layer(patient()))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_breaker_on_sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open = async || persistify::Sqlite::open(&path).await;
    conformance(async || Ok(open().await?.layer(patient()))).await;
}

#[tokio::test]
async fn a_bad_option_is_an_error_of_open_that_names_it() {
    for (breaker, option) in [
        (CircuitBreaker::new().failures(0), "failures"),
        (CircuitBreaker::new().failures(10_001), "failures"),
        (CircuitBreaker::new().failure_rate(0.0, 10), "failure_rate"),
        (CircuitBreaker::new().failure_rate(1.1, 10), "failure_rate"),
        (
            CircuitBreaker::new().failure_rate(f64::NAN, 10),
            "failure_rate",
        ),
        (CircuitBreaker::new().failure_rate(0.5, 0), "failure_rate"),
        (CircuitBreaker::new().window(Duration::ZERO), "window"),
        (CircuitBreaker::new().cool_down(Duration::ZERO), "cool_down"),
    ] {
        let store = Memory::new().layer(breaker);
        let opened = persistify::PersistentMap::<u32>::builder(store, "map").open();
        let error = opened.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(option), "{error}");
    }
}

/// Two providers in clones of one breaker do not share its state.
#[tokio::test(start_paused = true)]
async fn a_breaker_is_shared_by_the_clones_of_a_provider_only() {
    let template = breaker();
    let (down, healthy) = (store(), store());
    let guarded = down.clone().layer(template.clone());
    let other = healthy.layer(template);
    down.down(ErrorKind::Unavailable);
    for _ in 0..3 {
        guarded.clone().ping().await.unwrap_err();
    }
    assert_eq!(guarded.clone().state(), CircuitState::Open);
    assert_eq!(other.state(), CircuitState::Closed);
    other.ping().await.unwrap();
}
