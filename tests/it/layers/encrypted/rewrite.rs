//! Encrypting the values of a map again, with the current key.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use persistify::{
    Rewritten,
    testing::{Fault, Faulty},
};

use super::*;
use crate::support::Store;

fn only_two() -> Encrypted {
    Encrypted::new(Keys::new("two", [2; 32]).unwrap())
}

fn number(n: usize) -> String {
    format!("{n:04}")
}

async fn fill(above: &dyn Provider, count: usize) {
    let changes = (0..count).map(|n| put(&number(n), &n.to_string()));
    let batch = Pen::new().changes(&map_name(), changes.collect());
    above.commit(&batch).await.unwrap();
}

/// All values, as a program reads them that has the new key only.
async fn check_all_have_the_new_key(store: impl Provider, count: usize) {
    let records = all(&store.layer(only_two()), &map_name()).await;
    assert_eq!(records.len(), count);
    for (n, record) in records.iter().enumerate() {
        assert_eq!(&*record.key, number(n));
        assert_eq!(record.value, Some(Payload::json(n.to_string())));
    }
}

fn counts(of: Rewritten) -> [u64; 4] {
    [of.rewritten, of.current, of.skipped, of.unreadable]
}

async fn rewrite(store: impl Provider + Clone) {
    fill(&store.clone().layer(layer()), 600).await;
    let above = store.clone().layer(Encrypted::new(two_keys()));
    let done = above.rewrite_with_current_key(&map_name()).await.unwrap();
    assert_eq!(counts(done), [600, 0, 0, 0]);
    check_all_have_the_new_key(store, 600).await;
    let again = above.rewrite_with_current_key(&map_name()).await.unwrap();
    assert_eq!(counts(again), [0, 600, 0, 0]);
}

#[tokio::test]
async fn a_map_in_memory_is_rewritten() {
    rewrite(Memory::new()).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_map_in_json_files_is_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    rewrite(persistify::JsonFile::open(folder.path()).await.unwrap()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_map_in_sqlite_is_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    rewrite(persistify::Sqlite::open(path).await.unwrap()).await;
}

/// With a single connection, which the load of a page must not hold during the commit.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_map_in_postgres_is_rewritten() {
    let database = crate::postgres::Database::fresh();
    let store = persistify::Postgres::builder(database.url()).max_connections(1);
    rewrite(store.connect().await.unwrap()).await;
}

#[tokio::test]
async fn a_map_that_was_never_written_to_has_nothing_to_rewrite() {
    let above = Memory::new().layer(layer());
    let done = above.rewrite_with_current_key(&map_name()).await.unwrap();
    assert_eq!(done, Rewritten::default());
}

#[tokio::test]
async fn schema_version_expiry_and_time_of_writing_are_kept() {
    let store = Memory::new();
    let hour = Duration::from_secs(3_600);
    let now = SystemTime::now();
    for (key, end) in [("future", now + hour), ("past", now - hour)] {
        let value = Payload::json("1").with_schema(4);
        let change = Change::put(key, value, Some(end)).written_at(Some(now - 2 * hour));
        let batch = Pen::new().changes(&map_name(), vec![change]);
        store.clone().layer(layer()).commit(&batch).await.unwrap();
    }
    let above = store.layer(Encrypted::new(two_keys()));
    let before = all(&above, &map_name()).await;
    let done = above.rewrite_with_current_key(&map_name()).await.unwrap();
    assert_eq!(done.rewritten, 2);
    for (before, after) in before.iter().zip(all(&above, &map_name()).await) {
        assert!(after.revision > before.revision);
        let mut after = after;
        after.revision = before.revision;
        assert_eq!(after, *before);
    }
}

#[tokio::test]
async fn the_write_of_another_process_wins() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(Encrypted::new(two_keys()));
    fill(&below.inner().clone().layer(layer()), 3).await;
    let hang = below.hang_next();
    let map = map_name();
    let mut rewriting = Box::pin(above.rewrite_with_current_key(&map));
    assert!(futures_util::poll!(&mut rewriting).is_pending());
    let theirs = below.inner().clone().layer(layer());
    put_raw(&theirs, "0001", Payload::json("\"theirs\"")).await;
    let delete = Pen::new().changes(&map, vec![Change::delete("0002")]);
    theirs.commit(&delete).await.unwrap();
    hang.release();
    assert_eq!(counts(rewriting.await.unwrap()), [1, 0, 2, 0]);
    assert_eq!(value_in(&above, "0001").await, Payload::json("\"theirs\""));
    assert!(one(&above, &map, "0002").await.is_none());
    let again = above.rewrite_with_current_key(&map).await.unwrap();
    assert_eq!(counts(again), [1, 1, 0, 0]);
}

#[tokio::test]
async fn a_rewrite_that_fails_or_is_dropped_continues() {
    let below: Store = Faulty::new(Memory::new());
    fill(&below.inner().clone().layer(layer()), 1_000).await;
    let above = below.clone().layer(Encrypted::new(two_keys()));
    let map = map_name();
    // After one page; after another one, which the store applies although it fails.
    below.fail_nth(2, Fault::Before(ErrorKind::Unavailable));
    let error = above.rewrite_with_current_key(&map).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    below.fail_next(1, Fault::After(ErrorKind::Unavailable));
    above.rewrite_with_current_key(&map).await.unwrap_err();
    let hang = below.hang_next();
    let mut rewriting = Box::pin(above.rewrite_with_current_key(&map));
    assert!(futures_util::poll!(&mut rewriting).is_pending());
    drop(rewriting);
    hang.release();
    let rest = above.rewrite_with_current_key(&map).await.unwrap();
    assert_eq!(counts(rest), [500, 500, 0, 0]);
    check_all_have_the_new_key(below.inner().clone(), 1_000).await;
}

#[tokio::test]
async fn damaged_values_are_left_as_they_are_and_a_missing_key_is_an_error() {
    let store = Memory::new();
    fill(&store.clone().layer(layer()), 2).await;
    let stored = value_in(&store, "0000").await;
    put_raw(&store, "0001", stored.clone()).await;
    let above = store.clone().layer(Encrypted::new(two_keys()));
    let done = above.rewrite_with_current_key(&map_name()).await.unwrap();
    assert_eq!(counts(done), [1, 0, 0, 1]);
    assert_eq!(value_in(&store, "0001").await, stored);
    let error = store.layer(only_two());
    let error = error.rewrite_with_current_key(&map_name()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert_eq!(error.keys(), ["0001".into()]);
}

#[tokio::test]
async fn a_store_without_conditions_is_refused() {
    let above = Plain(Memory::new()).layer(layer());
    let error = above.rewrite_with_current_key(&map_name()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_rewrite_that_is_killed_continues() {
    use crate::support::child;
    const TEST: &str = "layers::encrypted::rewrite::a_rewrite_that_is_killed_continues";
    const COUNT: usize = 9_000;
    if let Some(orders) = child::orders() {
        let store = sqlite_in(Path::new(&orders.place)).await;
        let above = store.layer(Saying).layer(Encrypted::new(two_keys()));
        above.rewrite_with_current_key(&map_name()).await.unwrap();
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    fill(&sqlite_in(folder.path()).await.layer(layer()), COUNT).await;
    let mut rewritten = Vec::new();
    for millis in [0, 10, 30] {
        let child = child::spawn(TEST, place, "");
        child::hear_and_kill(child, "committed", Duration::from_millis(millis), |_| {});
        rewritten.push(with_new_key(&sqlite_in(folder.path()).await).await);
    }
    assert!(rewritten.is_sorted() && rewritten[0] > 0, "{rewritten:?}");
    let above = sqlite_in(folder.path()).await;
    let above = above.layer(Encrypted::new(two_keys()));
    assert_eq!(all(&above, &map_name()).await.len(), COUNT);
    let rest = above.rewrite_with_current_key(&map_name()).await.unwrap();
    let known = *rewritten.last().unwrap() as u64;
    assert_eq!(counts(rest), [COUNT as u64 - known, known, 0, 0]);
    check_all_have_the_new_key(sqlite_in(folder.path()).await, COUNT).await;
}

/// Prints a line after each commit.
#[cfg(feature = "sqlite")]
#[derive(Debug)]
struct Saying<P>(P);

#[cfg(feature = "sqlite")]
#[persistify::async_trait]
impl<P: Provider> persistify::Layer for Saying<P> {
    fn inner(&self) -> &dyn Provider {
        &self.0
    }

    async fn commit(&self, batch: &persistify::Batch) -> Result<persistify::Committed> {
        let committed = self.inner().commit(batch).await;
        crate::support::child::say("committed");
        committed
    }
}

#[cfg(feature = "sqlite")]
async fn sqlite_in(folder: &Path) -> persistify::Sqlite {
    persistify::Sqlite::open(folder.join("maps.db"))
        .await
        .unwrap()
}

/// The number of records that name the new key.
#[cfg(feature = "sqlite")]
async fn with_new_key(store: &dyn Provider) -> usize {
    let records = all(store, &map_name()).await;
    let named = |record: &&Record| {
        let bytes = &record.value.as_ref().unwrap().bytes;
        bytes.windows(3).take(20).any(|part| part == b"two")
    };
    records.iter().filter(named).count()
}
