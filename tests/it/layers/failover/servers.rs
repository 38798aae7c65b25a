//! Real servers: a Postgres primary that stops and starts, with a SQLite file or a streaming
//! replica as its standby.

use std::time::{Duration, Instant};

use persistify::{
    Failover, Health, OnConflict, PersistentMap, Postgres, Provider, ProviderExt, Result,
    RetryPolicy, Revision, Sqlite, Wanted,
};

use super::assert_copied;
use crate::{
    postgres::{Database, Server, Stop},
    support::{
        map_name,
        records::{all, load},
    },
};

fn quick() -> RetryPolicy {
    let retry = RetryPolicy::default().patience(Duration::from_millis(100));
    retry.probe_delay(Duration::from_millis(200))
}

async fn open(layer: &Failover<Postgres>) -> Result<PersistentMap<u64>> {
    let map = PersistentMap::builder(layer.clone(), "map");
    map.retry(quick())
        .conflicts(OnConflict::StoreWins)
        .open()
        .await
}

async fn healthy(map: &PersistentMap<u64>) {
    let mut health = map.health();
    let healthy = health.wait_for(Health::is_healthy);
    let healthy = tokio::time::timeout(Duration::from_secs(60), healthy).await;
    drop(healthy.unwrap().unwrap());
}

fn is_degraded(map: &PersistentMap<u64>) -> bool {
    matches!(*map.health().borrow(), Health::Degraded { .. })
}

fn entry(n: u64) -> (String, u64) {
    (format!("key {n}"), n)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maps_open_from_a_sqlite_file_while_postgres_is_down() {
    let (server, folder) = (Server::private(), tempfile::tempdir().unwrap());
    let database = Database::on(&server);
    for stop in [Stop::Fast, Stop::Killed] {
        let primary = Postgres::connect(database.url()).await.unwrap();
        let standby = Sqlite::open(folder.path().join("standby.db"))
            .await
            .unwrap();
        let layer = primary.clone().layer(Failover::to(standby.clone()));
        let map = open(&layer).await.unwrap();
        map.extend((0..2_500).map(entry));
        map.flush().await.unwrap();
        map.remove("key 7");
        map.close().await.unwrap();
        assert_copied(&primary, &standby, &map_name()).await;

        server.stop(stop);
        let map = open(&layer).await.unwrap();
        assert!(is_degraded(&map));
        assert_eq!(
            (map.len(), map.get("key 7"), map.get("key 8")),
            (2_499, None, Some(8))
        );
        let keys = Wanted::Keys(["key 8".into()].into());
        let some = layer.load(&map_name(), keys).await.unwrap();
        assert!(some.copied_at.is_some());
        assert_eq!(some.into_records().await.unwrap().len(), 1);
        map.insert_and_save("meanwhile", 1).await.unwrap_err();
        map.remove("key 9");
        map.insert("key 10", 0);
        map.reload().await.unwrap();
        assert_eq!((map.get("key 9"), map.get("meanwhile")), (None, Some(1)));
        assert_eq!(layer.maps().await.unwrap(), [map_name()]);

        server.start();
        healthy(&map).await;
        map.flush().await.unwrap();
        assert_eq!(all(&primary, &map_name()).await.len(), map.len());
        assert_eq!(map.get("meanwhile"), Some(1));
        // An entry of a copy has no revision, so its change is a conflict, and the store won.
        assert_eq!((map.get("key 9"), map.get("key 10")), (Some(9), Some(10)));
        map.insert_and_save("key 10", 0).await.unwrap();
        map.clear_and_save().await.unwrap();
        layer.catch_up().await.unwrap();
        assert_copied(&primary, &standby, &map_name()).await;
        map.close().await.unwrap();
        layer.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maps_open_from_a_streaming_replica() {
    let server = Server::private();
    let database = Database::on(&server);
    let primary = Postgres::connect(database.url()).await.unwrap();
    let map = PersistentMap::<u64>::builder(primary.clone(), "map").open();
    map.await
        .unwrap()
        .insert_and_save("first", 1)
        .await
        .unwrap();
    let replica = server.standby();
    let replica = Postgres::connect(replica.url(database.name()))
        .await
        .unwrap();
    let layer = primary
        .clone()
        .layer(Failover::to(replica.clone()).replicated());

    let map = open(&layer).await.unwrap();
    map.extend((0..2_500).map(entry));
    map.remove("first");
    map.close().await.unwrap();
    let written = all(&primary, &map_name()).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while all(&replica, &map_name()).await != written {
        assert!(Instant::now() < deadline, "it is not replicated");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop(Stop::Killed);

    let map = open(&layer).await.unwrap();
    let Health::Degraded { copied_at, .. } = map.health().borrow().clone() else {
        panic!("{:?}", map.health().borrow());
    };
    // The last commit of the map was just before.
    assert!(
        copied_at.elapsed().unwrap() < Duration::from_secs(60),
        "{copied_at:?}"
    );
    assert_eq!((map.len(), map.get("first")), (2_500, None));
    let (_, revision) = map.get_with_revision("key 1").unwrap();
    assert!(
        revision > Revision::ZERO,
        "a replica has the revisions of its primary"
    );
    let changed = load(&layer, &map_name(), Wanted::changed(Revision::ZERO))
        .await
        .unwrap();
    assert!(changed.len() >= 2_500);
    map.insert("key 1", 100);
    map.insert("new", 3);
    map.reload().await.unwrap();
    assert!(is_degraded(&map));

    server.start();
    healthy(&map).await;
    map.flush().await.unwrap();
    // The entry was not changed meanwhile, and the map knows that: no conflict.
    assert_eq!((map.get("key 1"), map.stats().conflicts), (Some(100), 0));
    assert_eq!(all(&primary, &map_name()).await.len(), 2_501);
    map.close().await.unwrap();
}
