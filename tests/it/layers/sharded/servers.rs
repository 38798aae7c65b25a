//! Three Postgres servers, of which one is killed and started again while maps are written to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use persistify::{ErrorKind, PersistentMap, Postgres, RetryPolicy, Sharded};

use super::NAMES;
use crate::postgres::{Database, Server, Stop, eventually};

const KEYS: usize = 30;

async fn connected(databases: &[Database]) -> Sharded {
    let mut shards = Vec::new();
    for (name, database) in NAMES.into_iter().zip(databases) {
        shards.push((name, Postgres::connect(database.url()).await.unwrap()));
    }
    Sharded::new(shards).unwrap()
}

async fn opened(store: Sharded) -> PersistentMap<u64> {
    let retry = RetryPolicy::default()
        .max_attempts(3)
        .base_delay(Duration::from_millis(10))
        .probe_delay(Duration::from_millis(200));
    PersistentMap::builder(store, "map")
        .batch(10, Duration::from_millis(5))
        .commit_timeout(Duration::from_secs(1))
        .retry(retry)
        .open()
        .await
        .unwrap()
}

/// What was acknowledged by key, and whether the writers have done enough.
#[derive(Default)]
struct Book {
    acknowledged: [AtomicU64; KEYS],
    saves: AtomicU64,
    is_over: AtomicBool,
}

async fn write(map: PersistentMap<u64>, book: Arc<Book>, task: usize) {
    for number in 1.. {
        if book.is_over.load(SeqCst) {
            return;
        }
        let slot = (task + 4 * rand::random_range(0..KEYS)) % KEYS;
        if slot % 4 != task {
            continue;
        }
        let key = format!("key {slot}");
        if number % 3 == 0 {
            map.insert(&key, number);
            tokio::task::yield_now().await;
            continue;
        }
        match map.insert_and_save(&key, number).await {
            Ok(_) => {
                book.acknowledged[slot].store(number, SeqCst);
                book.saves.fetch_add(1, SeqCst);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
    }
}

async fn go_on(book: &Book, saves: u64) {
    let enough = book.saves.load(SeqCst) + saves;
    eventually("saves go on", || book.saves.load(SeqCst) >= enough).await;
}

async fn check(databases: &[Database], book: &Book) {
    let before: Vec<_> = book.acknowledged.iter().map(|n| n.load(SeqCst)).collect();
    let stored = opened(connected(databases).await).await;
    for (slot, acknowledged) in before.into_iter().enumerate() {
        let found = stored.get(format!("key {slot}")).unwrap_or(0);
        assert!(
            found >= acknowledged,
            "key {slot}: {found}, acknowledged {acknowledged}"
        );
    }
    stored.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_servers_is_killed_and_nothing_acknowledged_is_lost() {
    let servers: Vec<_> = (0..3).map(|_| Server::private()).collect();
    let databases: Vec<_> = servers.iter().map(Database::on).collect();
    let map = opened(connected(&databases).await).await;
    let book = Arc::new(Book::default());
    let tasks = (0..4).map(|task| tokio::spawn(write(map.clone(), book.clone(), task)));
    let tasks: Vec<_> = tasks.collect();
    for round in 0..4 {
        go_on(&book, 100).await;
        let server = &servers[round % 3];
        server.stop(Stop::Killed);
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        server.start();
        go_on(&book, 30).await;
        check(&databases, &book).await;
    }
    book.is_over.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    map.flush().await.unwrap();
    assert!(map.health().borrow().is_healthy());
    let last = opened(connected(&databases).await).await;
    assert_eq!(last.snapshot(), map.snapshot());
    map.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_more_gets_its_share() {
    let databases: Vec<_> = (0..3).map(|_| Database::fresh()).collect();
    let two = connected(&databases[..2]).await;
    let map = opened(two.clone()).await;
    for n in 0..1_000 {
        map.insert(format!("key {n}"), n);
    }
    map.flush().await.unwrap();
    let three = connected(&databases).await;
    let moved = two.reshard(&three).await.unwrap();
    assert!((250..420).contains(&moved), "{moved}");
    let late = map.insert_and_save("key 1", 0).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Superseded);
    let map = opened(three).await;
    assert!((0..1_000).all(|n| map.get(format!("key {n}")) == Some(n)));
    map.close().await.unwrap();
}
