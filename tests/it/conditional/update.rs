//! Read, change and write, against the store.

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use persistify::{Change, ErrorKind, Expect, PersistentMap, testing::Method};
use tokio::time::Instant;

use super::{put, quiet};
use crate::{
    store::{HOUR, builder, pairs, store, stored},
    stored::write_as_another,
};

#[tokio::test(start_paused = true)]
async fn it_begins_with_what_is_known_and_goes_on_with_what_is_found() {
    let store = store();
    let map = quiet(&store).await;
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    assert_eq!(store.calls(Method::Commit), 0);
    // Memory has never heard of it.
    write_as_another(store.inner(), vec![put("a", 1)]).await;
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), Some(2));
    assert_eq!((map.get("a"), store.calls(Method::Commit)), (Some(2), 1));
    // Memory has it as it is: no load, and no second try.
    let loads = store.calls(Method::Load);
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), Some(3));
    assert_eq!(
        (store.calls(Method::Load), store.calls(Method::Commit)),
        (loads, 2)
    );
    // Memory is behind.
    write_as_another(store.inner(), vec![put("a", 10)]).await;
    let seen = AtomicU32::new(0);
    let add = |n: u32| {
        seen.fetch_add(n, SeqCst);
        n + 1
    };
    assert_eq!(map.update_in_store("a", add).await.unwrap(), Some(11));
    assert_eq!(seen.load(SeqCst), 3 + 10);
    // What is pending is saved first, and counts.
    map.insert("a", 20);
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), Some(21));
    assert_eq!(stored(&store).await, pairs([("a", 21)]));
    map.remove("a");
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    map.insert_and_save("a", 1).await.unwrap();
    write_as_another(store.inner(), vec![Change::delete("a")]).await;
    assert_eq!(map.update_in_store("a", |n| n + 1).await.unwrap(), None);
    assert_eq!((map.get("a"), stored(&store).await), (None, pairs([])));
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_after_so_many_attempts_and_waits_between_them() {
    let store = store();
    let policy = persistify::RetryPolicy::default().jitter(false);
    let policy = policy.max_attempts(3).base_delay(Duration::from_millis(10));
    let map = builder(&store).batch(1_000, HOUR).retry_conflicts(policy);
    let map: PersistentMap<u32> = map.open().await.unwrap();
    map.save_if("a", 0, Expect::Absent).await.unwrap();
    let inner = store.inner().clone();
    let begun = Instant::now();
    let mut calls = 0;
    let updated = map.update_in_store("a", |n| {
        calls += 1;
        // Another process is always faster.
        let theirs = write_as_another(&inner, vec![put("a", n + 100)]);
        futures_util::FutureExt::now_or_never(theirs).unwrap();
        n + 1
    });
    let error = updated.await.unwrap_err();
    assert_eq!((error.kind(), calls), (ErrorKind::Conflict, 3));
    assert_eq!(begun.elapsed(), Duration::from_millis(10 + 20));
    assert_eq!(
        (map.get("a"), stored(&store).await),
        (Some(300), pairs([("a", 300)]))
    );
    let bad =
        builder::<u32>(&store).retry_conflicts(persistify::RetryPolicy::default().max_attempts(0));
    let error = bad.open().await.unwrap_err();
    assert!(
        error.to_string().starts_with("retry_conflicts: "),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_decode_or_cannot_be_reached_is_an_error() {
    let store = store();
    let map = quiet(&store).await;
    let text = crate::stored::put("a", "\"text\"");
    write_as_another(store.inner(), vec![text]).await;
    let error = map.update_in_store("a", |n| n + 1).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.keys()),
        (ErrorKind::Corrupt, &["a".into()][..])
    );
    store.down(ErrorKind::Unusable);
    let error = map.update_in_store("b", |n| n + 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
}
