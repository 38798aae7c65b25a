//! The server goes and comes back, while maps are being written to.

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
        // What is acknowledged while it is away would be a lie.
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
async fn nothing_is_lost_when_the_server_is_shut_down() {
    survives(Stop::Fast, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_is_shut_down_at_once() {
    survives(Stop::Immediate, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_is_killed() {
    survives(Stop::Killed, 4).await;
}

/// A server may be set to acknowledge what is not on its disk yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_a_server_that_is_in_a_hurry() {
    let hurry = ["synchronous_commit = off", "wal_writer_delay = 10s"];
    survives_on(&Server::with(&hurry), Stop::Killed, 3).await;
}

/// A program that starts before its database: the error says what to do; and
/// one that was given up on is no trouble once the server is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_is_unavailable() {
    let server = Server::private();
    let database = Database::on(&server);
    server.stop(Stop::Fast);
    let failed = error(Postgres::connect(database.url()).await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    server.start();
    Pen::new()
        .put(&database.connect().await, &name("map"), "k", "1")
        .await;
}
