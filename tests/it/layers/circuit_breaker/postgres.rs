//! A real server that stops and starts behind a breaker.

use persistify::{PersistentMap, Postgres, RetryPolicy};

use super::*;
use crate::{
    postgres::{Database, Server, Stop},
    support::HOUR,
};

#[tokio::test]
async fn a_breaker_on_postgres_conforms() {
    let database = Database::fresh();
    let open = async || Postgres::connect(database.url()).await;
    conformance(async || Ok(open().await?.layer(patient()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_and_starts_is_found_again() {
    let server = Server::private();
    let database = Database::on(&server);
    let cool_down = Duration::from_millis(500);
    let breaker = CircuitBreaker::new().failures(2).cool_down(cool_down);
    let postgres = Postgres::connect(database.url()).await.unwrap();
    let store = postgres.layer(breaker);
    let open = |name: &'static str| {
        let retry = RetryPolicy::default().patience(Duration::from_millis(200));
        let map = PersistentMap::<u64>::builder(store.clone(), name);
        map.retry(retry.probe_delay(HOUR)).open()
    };
    let (a, b) = (open("a").await.unwrap(), open("b").await.unwrap());
    for round in 0..2 {
        server.stop(Stop::Fast);
        while store.state() == CircuitState::Closed {
            a.insert_and_save("k", round).await.unwrap_err();
        }
        let refused = b.insert_and_save("k", round).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
        server.start();
        // It closes at the latest with the first attempt after the cool-down.
        let mut states = store.watch();
        while *states.borrow_and_update() != CircuitState::Closed {
            let _ = tokio::time::timeout(cool_down, a.flush()).await;
        }
        a.flush().await.unwrap();
        // The other map is woken: its own probe would come in an hour.
        let mut health = b.health();
        let is_well = health.wait_for(|health| health.is_healthy());
        let is_well = tokio::time::timeout(Duration::from_secs(20), is_well);
        drop(is_well.await.unwrap().unwrap());
        b.flush().await.unwrap();
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(open(name).await.unwrap().get("k"), Some(1));
    }
}
