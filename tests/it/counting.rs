//! Several processes that count in one store: not one increment is lost.

use std::sync::Arc;

use persistify::{PersistentMap, Provider};

use crate::support::child::{self, Orders};

const PROCESSES: u64 = 4;
const TASKS: u64 = 2;
const INCREMENTS: u64 = 50;

/// A function that opens the store at a place: a folder or an address.
trait Open: AsyncFn(&str) -> Arc<dyn Provider> {}
impl<F: AsyncFn(&str) -> Arc<dyn Provider>> Open for F {}

#[cfg(feature = "sqlite")]
#[test]
fn four_processes_lose_no_increment_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let test = "counting::four_processes_lose_no_increment_on_sqlite";
    count(
        test,
        folder.path().to_str().unwrap(),
        async |place: &str| {
            let file = persistify::Sqlite::open(child::file(place)).await;
            Arc::new(file.unwrap()) as Arc<dyn Provider>
        },
    );
}

#[cfg(feature = "postgres")]
#[test]
fn four_processes_lose_no_increment_on_postgres() {
    // A child uses the database of its parent.
    let database = child::orders().is_none();
    let database = database.then(crate::postgres::Database::fresh);
    let url = database.as_ref().map_or("", |database| database.url());
    let test = "counting::four_processes_lose_no_increment_on_postgres";
    count(test, url, async |url: &str| {
        let store = persistify::Postgres::connect(url).await;
        Arc::new(store.unwrap()) as Arc<dyn Provider>
    });
}

fn count(test: &str, place: &str, open: impl Open) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match child::orders() {
        Some(Orders { place, .. }) => runtime.block_on(increment(&place, open)),
        None => runtime.block_on(watch(test, place, open)),
    }
}

async fn counters(place: &str, open: &impl Open) -> PersistentMap<u64> {
    let map = PersistentMap::builder(open(place).await, "counters");
    map.open().await.unwrap()
}

/// The child process: all tasks of all children increment one counter, with default options. The
/// former default of five attempts was not enough for four processes, and an increment failed with
/// `Conflict`.
async fn increment(place: &str, open: impl Open) {
    let map = counters(place, &open).await;
    let one = |map: PersistentMap<u64>| async move {
        for _ in 0..INCREMENTS {
            let counted = map.upsert_in_store("n", |n| Some(n.unwrap_or(0) + 1));
            assert!(counted.await.unwrap().is_some());
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(one(map.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    map.close().await.unwrap();
}

async fn watch(test: &str, place: &str, open: impl Open) {
    let map = counters(place, &open).await;
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| child::spawn(test, place, "increment"))
        .collect();
    for child in children {
        let ended = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{errors}");
    }
    map.reload().await.unwrap();
    assert_eq!(map.get("n"), Some(PROCESSES * TASKS * INCREMENTS));
    map.close().await.unwrap();
}
