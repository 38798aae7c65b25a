//! The server stops and restarts while maps are written to.

use persistify::RetryPolicy;

use super::{
    server::{Server, Stop},
    writers::{Writers, open},
    *,
};

async fn survives(stop: Stop, times: usize) {
    survives_on(&Server::private(), stop, times).await;
}

async fn survives_on(server: &Server, stop: Stop, times: usize) {
    let database = Database::on(server);
    let map = open(database.connect().await).await;
    let writers = Writers::at(&map);
    for n in 0..times {
        writers.go_on(200).await;
        server.stop(stop);
        // While the server is down, no save may be acknowledged.
        let before = writers.saves();
        if n % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(writers.saves() <= before + 4);
        server.start();
        writers.check(&database);
        writers.go_on(50).await;
        writers.check(&database);
    }
    writers.finish(&database).await;
    map.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_shutdown_of_the_server_loses_nothing() {
    survives(Stop::Fast, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immediate_shutdown_of_the_server_loses_nothing() {
    survives(Stop::Immediate, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing() {
    survives(Stop::Killed, 4).await;
}

/// A server may be configured to acknowledge commits before they are on its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_synchronous_commit_off_loses_nothing() {
    let hurry = ["synchronous_commit = off", "wal_writer_delay = 10s"];
    survives_on(&Server::with(&hurry), Stop::Killed, 3).await;
}

/// After an outage, a close waited for the next probe, up to 30 seconds, although the server was
/// up again. A deployment at that moment lost its pending changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_after_an_outage_does_not_wait_for_a_probe() {
    let server = Server::private();
    let database = Database::on(&server);
    let postgres = database.connect().await;
    let open = |name: &'static str| {
        let retry = RetryPolicy::default().patience(Duration::from_millis(200));
        let map = PersistentMap::<u64>::builder(postgres.clone(), name);
        map.retry(retry.probe_delay(Duration::from_hours(1))).open()
    };
    let (a, b) = (open("a").await.unwrap(), open("b").await.unwrap());
    server.stop(Stop::Fast);
    a.insert("k", 1);
    b.insert("k", 2);
    let error = a.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    b.flush().await.unwrap_err();
    let error = a.close_within(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.keys(), ["k".into()]);
    server.start();
    a.close_within(Duration::from_secs(20)).await.unwrap();
    // The other map also recovered, although no caller was waiting on it.
    let mut health = b.health();
    let is_well = health.wait_for(|health| health.is_healthy());
    let is_well = tokio::time::timeout(Duration::from_secs(20), is_well);
    drop(is_well.await.unwrap().unwrap());
    b.close().await.unwrap();
    for (name, value) in [("a", 1), ("b", 2)] {
        let map = open(name).await.unwrap();
        assert_eq!(map.get("k"), Some(value));
    }
}

/// The server stops after the connect and before the open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_waits_for_a_server_that_restarts() {
    let server = Server::private();
    let database = Database::on(&server);
    let postgres = database.connect().await;
    server.stop(Stop::Fast);
    let builder = || PersistentMap::<u64>::builder(postgres.clone(), "map");
    let failed = error(builder().open().await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    let opening = tokio::spawn(builder().open_timeout(Duration::from_mins(1)).open());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    server.start();
    let map = opening.await.unwrap().unwrap();
    map.insert_and_save("k", 1).await.unwrap();
}

/// A program that starts before its database gets an error with the reason, and can connect once
/// the server is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_a_server_is_unavailable() {
    let server = Server::private();
    let database = Database::on(&server);
    server.stop(Stop::Fast);
    let failed = error(Postgres::connect(database.url()).await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert!(failed.to_string().contains("refused"), "{failed}");
    server.start();
    Pen::new()
        .put(&database.connect().await, &name("map"), "k", "1")
        .await;
}
