//! Failover: loads come from a standby while the primary is down.

mod copies;
mod faults;
mod outages;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod servers;
mod stores;

use std::time::{Duration, SystemTime};

use persistify::{
    ErrorKind, Failover, MapName, Memory, Provider, ProviderExt, Record, Wanted,
    testing::{Faulty, conformance},
};

use self::stores::{Modest, Sealed};
use crate::support::{Store, map_name, records::all, store};

type Mirrored = Failover<Store>;

/// Two stores in memory, and the layer around the first.
fn pair() -> (Store, Store, Mirrored) {
    let (primary, standby) = (store(), store());
    let layer = mirror(&primary, &standby);
    (primary, standby, layer)
}

fn mirror(primary: &Store, standby: &Store) -> Mirrored {
    primary.clone().layer(Failover::to(standby.clone()))
}

/// What a copy preserves.
type Kept = (String, Option<Vec<u8>>, Option<SystemTime>);

fn kept(records: Vec<Record>) -> Vec<Kept> {
    let kept = records.into_iter().map(|record| {
        let value = record.value.map(|value| value.bytes.to_vec());
        (record.key.to_string(), value, record.expires_at)
    });
    kept.collect()
}

/// Expects that the copy of a map is equal to the original.
async fn assert_copied(primary: &dyn Provider, standby: &dyn Provider, map: &MapName) {
    let (original, copy) = (all(primary, map).await, all(standby, map).await);
    assert_eq!(kept(copy), kept(original));
}

#[tokio::test]
async fn a_mirrored_memory_conforms() {
    let (primary, standby) = (Memory::new(), Memory::new());
    conformance(async || Ok(primary.clone().layer(Failover::to(standby.clone())))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_mirrored_sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |name| persistify::Sqlite::open(folder.path().join(name)).await;
    conformance(async || Ok(open("a.db").await?.layer(Failover::to(open("b.db").await?)))).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn mirrored_json_files_conform() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |name| persistify::JsonFile::open(folder.path().join(name)).await;
    conformance(async || Ok(open("a").await?.layer(Failover::to(open("b").await?)))).await;
}

#[cfg(all(feature = "json", feature = "postgres"))]
#[tokio::test]
async fn a_postgres_mirrored_to_json_files_conforms() {
    let database = crate::postgres::Database::fresh();
    let folder = tempfile::tempdir().unwrap();
    conformance(async || {
        let standby = persistify::JsonFile::open(folder.path()).await?;
        let primary = persistify::Postgres::connect(database.url()).await?;
        Ok(primary.layer(Failover::to(standby)))
    })
    .await;
}

#[tokio::test]
async fn a_replicated_memory_conforms() {
    let store = Memory::new();
    conformance(async || {
        let standby = Failover::to(store.clone()).replicated();
        Ok(store.clone().layer(standby))
    })
    .await;
}

#[tokio::test]
async fn a_bad_option_is_an_error_of_the_load_that_names_it() {
    let failover = || Failover::to(Memory::new());
    for (bad, problem) in [
        (
            failover().timeout(Duration::ZERO),
            "timeout must be at least 1 ms",
        ),
        (
            failover().interval(Duration::ZERO),
            "interval must be at least 1 ms",
        ),
    ] {
        let layer = Memory::new().layer(bad);
        let error = layer.load(&map_name(), Wanted::All).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test]
async fn a_standby_must_not_hold_the_plain_text_of_an_encrypted_primary() {
    let sealed = || Sealed(Memory::new());
    let wrong = sealed().layer(Failover::to(Memory::new()));
    let error = wrong.load(&map_name(), Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("above this layer"), "{error}");
    let both = sealed().layer(Failover::to(sealed()));
    both.load(&map_name(), Wanted::All).await.unwrap();
}

#[tokio::test]
async fn a_layer_with_a_modest_standby_refuses_bytes() {
    let (primary, standby) = (Memory::new(), Modest(Memory::new()));
    conformance(async || Ok(primary.clone().layer(Failover::to(standby.clone())))).await;
}

/// The task of the mirror holds the primary: it must end with the last handle.
#[tokio::test]
async fn the_background_task_ends_with_the_last_handle_and_with_a_close() {
    for is_closed in [true, false] {
        let (primary, standby) = (std::sync::Arc::new(Memory::new()), Memory::new());
        let layer = primary.clone().layer(Failover::to(standby));
        layer.load(&map_name(), Wanted::All).await.unwrap();
        let other = layer.clone();
        if is_closed {
            layer.close().await.unwrap();
        }
        drop((layer, other));
        while std::sync::Arc::strong_count(&primary) > 1 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_failover_forwards_a_heartbeat_and_pings_the_primary_only() {
    let (primary, standby, layer) = pair();
    assert!(layer.heartbeat().is_some());
    standby.down(ErrorKind::Unusable);
    layer.ping().await.unwrap();
    primary.down(ErrorKind::Unusable);
    layer.ping().await.unwrap_err();
    let _: &Faulty<Memory> = layer.primary();
}
