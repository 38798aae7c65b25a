//! Updates in the store that create or remove an entry, or give up.

use persistify::{CachingMap, Change, ErrorKind, PersistentMap, testing::Method};

use super::{put, quiet};
use crate::support::{SECOND, open_caching, pairs, store, stored, write_as_another};

#[tokio::test(start_paused = true)]
async fn an_update_in_the_store_creates_and_removes() {
    let store = store();
    let map = quiet(&store).await;
    let next = |last: Option<u32>| Some(last.unwrap_or(0) + 1);
    assert_eq!(map.upsert_in_store("a", next).await.unwrap(), Some(1));
    assert_eq!(map.upsert_in_store("a", next).await.unwrap(), Some(2));
    assert_eq!(
        (map.get("a"), stored(&store).await),
        (Some(2), pairs([("a", 2)]))
    );
    assert_eq!(map.upsert_in_store("a", |_| None).await.unwrap(), None);
    assert_eq!((map.get("a"), stored(&store).await), (None, pairs([])));
    // There is no entry and the closure returns none: nothing is written.
    let commits = store.calls(Method::Commit);
    assert_eq!(map.upsert_in_store("a", |_| None).await.unwrap(), None);
    assert_eq!((map.pending(), store.calls(Method::Commit)), (0, commits));
    map.close().await.unwrap();
}

/// Another process creates the entry between the read and the commit, and later removes it. Neither
/// change is overwritten unseen.
#[tokio::test(start_paused = true)]
async fn a_creation_or_removal_by_another_process_is_seen_before_anything_is_written() {
    let store = store();
    let map = quiet(&store).await;
    let meanwhile = async |change: Change| write_as_another(store.inner(), vec![change]).await;
    let inner = store.inner().clone();
    let mut seen = Vec::new();
    let created = map.upsert_in_store("a", |value| {
        if seen.is_empty() {
            let theirs = write_as_another(&inner, vec![put("a", 10)]);
            futures_util::FutureExt::now_or_never(theirs).unwrap();
        }
        seen.push(value);
        Some(value.unwrap_or(0) + 1)
    });
    assert_eq!(created.await.unwrap(), Some(11));
    assert_eq!(seen, [None, Some(10)]);
    // Memory does not know of the removal yet.
    meanwhile(Change::delete("a")).await;
    let again = map.upsert_in_store("a", |value| value.map_or(Some(1), |_| None));
    assert_eq!(again.await.unwrap(), Some(1));
    // Nor does memory know the value that a removal would destroy.
    meanwhile(put("a", 50)).await;
    let keep_large = |value: Option<u32>| value.filter(|n| *n > 9);
    assert_eq!(
        map.upsert_in_store("a", keep_large).await.unwrap(),
        Some(50)
    );
    assert_eq!(stored(&store).await, pairs([("a", 50)]));
    map.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_gives_up_writes_nothing_and_its_result_is_returned() {
    let store = store();
    let map = quiet(&store).await;
    let take = |left: &mut Option<u32>| match left {
        Some(n) if *n > 0 => {
            *n -= 1;
            Ok(format!("{n} left"))
        }
        // The change to the value is discarded after an error.
        _ => {
            *left = Some(99);
            Err("sold out")
        }
    };
    write_as_another(store.inner(), vec![put("a", 1)]).await;
    let taken = map.try_update_in_store("a", take).await.unwrap();
    assert_eq!(taken.as_deref(), Ok("0 left"));
    let commits = store.calls(Method::Commit);
    let taken = map.try_update_in_store("a", take).await.unwrap();
    assert_eq!(taken, Err("sold out"));
    assert_eq!(
        map.try_update_in_store("b", take).await.unwrap(),
        Err("sold out")
    );
    assert_eq!((map.pending(), store.calls(Method::Commit)), (0, commits));
    assert_eq!(stored(&store).await, pairs([("a", 0)]));
    store.down(ErrorKind::Unusable);
    let error = map.try_update_in_store("a", |n| n.take().ok_or(()));
    assert_eq!(error.await.unwrap_err().kind(), ErrorKind::Unusable);
}

/// An update after a conflict starts from the stored value. The entry's own TTL comes from memory,
/// because the store does not have it.
#[tokio::test(start_paused = true)]
async fn an_entry_keeps_its_own_time_and_a_created_one_has_that_of_the_map() {
    let store = store();
    let map: CachingMap<u32> =
        open_caching::<u32>(store.clone(), "map", |map| map.time_to_live(60 * SECOND)).await;
    map.insert_with_ttl_and_save("own", 1, 10 * SECOND)
        .await
        .unwrap();
    let double = |value: Option<u32>| Some(value.unwrap_or(1) * 2);
    let before = map.expires_at("own").unwrap();
    map.upsert_in_store("own", double).await.unwrap();
    map.upsert_in_store("new", double).await.unwrap();
    assert_eq!(map.expires_at("own").unwrap(), before);
    let later = map.expires_at("new").unwrap();
    // Each ends up to three milliseconds early.
    let apart = later.duration_since(before).unwrap();
    assert!(
        apart.abs_diff(50 * SECOND) <= 3 * SECOND / 1_000,
        "{apart:?}"
    );
    // An expired entry is absent, and can be created.
    tokio::time::advance(61 * SECOND).await;
    assert_eq!(map.upsert_in_store("own", double).await.unwrap(), Some(2));
    map.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_default_patience_outlasts_many_who_are_faster() {
    let store = store();
    let map: PersistentMap<u32> = quiet(&store).await;
    map.insert_and_save("a", 0).await.unwrap();
    let inner = store.inner().clone();
    let mut faster = 30;
    let updated = map.update_in_store("a", |n| {
        if faster > 0 {
            faster -= 1;
            let theirs = write_as_another(&inner, vec![put("a", n + 100)]);
            futures_util::FutureExt::now_or_never(theirs).unwrap();
        }
        n + 1
    });
    assert_eq!(updated.await.unwrap(), Some(3_001));
    map.close().await.unwrap();
}
