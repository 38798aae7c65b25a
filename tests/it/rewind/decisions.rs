//! How a map continues after its store has gone back in time.

use std::time::Duration;

use persistify::{CachingMap, OnConflict};

use super::*;
use crate::support::{open, open_caching, steady};

#[tokio::test(start_paused = true)]
async fn save_again_makes_the_store_equal_memory_removals_included() {
    for by_option in [false, true] {
        let store = store();
        let policy = if by_option {
            Rewind::SaveAgain
        } else {
            Rewind::Stop
        };
        let map = open(store.clone(), "map", |map| steady(map).on_rewind(policy)).await;
        for (key, value) in [("removed", 1), ("changed", 1), ("kept", 1), ("pending", 1)] {
            map.insert_and_save(key, value).await.unwrap();
        }
        let older = store.inner().backup();
        map.remove_and_save("removed").await.unwrap();
        map.insert_and_save("changed", 2).await.unwrap();
        map.insert_and_save("lost", 2).await.unwrap();
        store.inner().restore(&older);
        map.remove("pending");
        map.insert("more", 3);
        if by_option {
            map.flush().await.unwrap();
        } else {
            assert_eq!(kind(map.flush().await), ErrorKind::Rewound);
            map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
        }
        let all = pairs([("changed", 2), ("kept", 1), ("lost", 2), ("more", 3)]);
        assert_eq!((stored(&store).await, in_memory(&map)), (all.clone(), all));
        assert!(map.health().borrow().is_healthy());
        assert_eq!(map.pending(), 0);
        map.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn take_store_takes_what_is_stored_and_commits_what_is_pending() {
    for by_option in [false, true] {
        let store = store();
        let policy = if by_option {
            Rewind::TakeStore
        } else {
            Rewind::Stop
        };
        let map = open(store.clone(), "map", |map| steady(map).on_rewind(policy)).await;
        rewound(&store, &map).await;
        map.insert("more", 3);
        if by_option {
            map.flush().await.unwrap();
        } else {
            assert_eq!(kind(map.flush().await), ErrorKind::Rewound);
            map.resolve_rewind(Rewind::TakeStore).await.unwrap();
        }
        let all = pairs([("more", 3), ("old", 1)]);
        assert_eq!((stored(&store).await, in_memory(&map)), (all.clone(), all));
        assert!(map.health().borrow().is_healthy());
    }
}

/// Pending changes conflict with the older copy as with the write of another process.
#[tokio::test(start_paused = true)]
async fn take_store_judges_what_is_pending_by_the_conflict_policy() {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map)
            .conflicts(OnConflict::StoreWins)
            .on_rewind(Rewind::TakeStore)
    })
    .await;
    map.insert_and_save("k", 1).await.unwrap();
    let older = store.inner().backup();
    map.insert_and_save("k", 2).await.unwrap();
    store.inner().restore(&older);
    let failed = map.insert_and_save("k", 3).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Conflict, "{failed:?}");
    assert_eq!(in_memory(&map), pairs([("k", 1)]));
    assert_eq!(stored(&store).await, pairs([("k", 1)]));
}

/// Memory wins over the older copy, without a conflict.
#[tokio::test(start_paused = true)]
async fn save_again_finds_no_conflicts_with_the_older_copy() {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map)
            .conflicts(OnConflict::StoreWins)
            .on_rewind(Rewind::SaveAgain)
    })
    .await;
    map.insert_and_save("k", 1).await.unwrap();
    map.insert_and_save("removed", 1).await.unwrap();
    let older = store.inner().backup();
    map.insert_and_save("k", 2).await.unwrap();
    map.remove_and_save("removed").await.unwrap();
    store.inner().restore(&older);
    map.insert_and_save("new", 3).await.unwrap();
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("k", 2), ("new", 3)]));
    assert_eq!(map.stats().conflicts, 0);
}

/// Only the expiry was pending, but the store has lost the value as well.
#[tokio::test(start_paused = true)]
async fn save_again_brings_back_the_value_of_an_entry_that_was_only_read() {
    let store = store();
    let map: CachingMap<u32> = open_caching(store.clone(), "map", |map| {
        map.time_to_idle(Duration::from_hours(1))
            .on_rewind(Rewind::SaveAgain)
    })
    .await;
    map.insert_and_save("k", 1).await.unwrap();
    store.inner().restore(&Memory::new());
    tokio::time::advance(Duration::from_mins(30)).await;
    assert_eq!(map.get("k"), Some(1));
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("k", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_cannot_be_carried_out_changes_nothing() {
    let store = store();
    let map = open_numbers(&store).await;
    rewound(&store, &map).await;
    map.insert("more", 3);
    assert_eq!(kind(map.flush().await), ErrorKind::Rewound);
    let memory = in_memory(&map);
    for decision in [Rewind::TakeStore, Rewind::SaveAgain] {
        let fault = persistify::testing::Fault::Before(ErrorKind::Unavailable);
        store.fail_next_of(persistify::testing::Method::Load, 1, fault);
        assert_eq!(
            kind(map.resolve_rewind(decision).await),
            ErrorKind::Unavailable
        );
        assert_eq!((in_memory(&map), map.pending()), (memory.clone(), 1));
    }
    assert_eq!(
        kind(map.resolve_rewind(Rewind::Stop).await),
        ErrorKind::Invalid
    );
    assert_eq!(stored(&store).await, pairs([("old", 1)]));
    states(&map);
}

#[tokio::test(start_paused = true)]
async fn a_decision_for_a_map_whose_store_is_as_it_was_is_a_flush() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    map.resolve_rewind(Rewind::TakeStore).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    store.fail_next_of(
        persistify::testing::Method::Load,
        1,
        persistify::testing::Fault::Before(ErrorKind::Unusable),
    );
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
}

/// A map that continues by itself must not do so forever.
#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_at_every_commit_stops_the_map() {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map).on_rewind(Rewind::SaveAgain)
    })
    .await;
    map.insert_and_save("a", 1).await.unwrap();
    let kept = store.inner().clone();
    store.set_rule(move |call| {
        if call.batch.is_some() {
            kept.restore(&Memory::new());
        }
        persistify::testing::Fault::None
    });
    assert_eq!(kind(map.insert_and_save("b", 2).await), ErrorKind::Rewound);
    states(&map);
    store.behave();
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    assert_eq!(stored(&store).await, in_memory(&map));
}

/// Unreadable records are never destroyed unasked: memory lacks them because they could not be
/// decoded, not because they were removed.
#[tokio::test(start_paused = true)]
async fn save_again_leaves_what_cannot_be_read() {
    let store = store();
    crate::support::write_as_another(&store, vec![crate::support::put("odd", "\"text\"")]).await;
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).allow_unreadable()).await;
    rewound(&store, &map).await;
    assert_eq!(
        kind(map.insert_and_save("more", 3).await),
        ErrorKind::Rewound
    );
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    let mut all = pairs([("more", 3), ("new", 2), ("old", 1)]);
    assert_eq!(in_memory(&map), all);
    all.insert("odd".to_owned(), "\"text\"".to_owned());
    assert_eq!(stored(&store).await, all);
}

/// The refused change would be refused again. The application has to decide about it.
#[tokio::test(start_paused = true)]
async fn save_again_leaves_what_was_refused() {
    let store = store();
    let map = open_numbers(&store).await;
    store.refuse(["bad"]);
    map.insert("bad", 1);
    assert_eq!(kind(map.flush().await), ErrorKind::Refused);
    rewound(&store, &map).await;
    assert_eq!(
        kind(map.insert_and_save("more", 3).await),
        ErrorKind::Rewound
    );
    let before = store.batches().len();
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    let later = store.batches().split_off(before);
    let keys: Vec<_> = later.iter().flat_map(crate::support::keys).collect();
    assert!(!keys.contains(&"bad".to_owned()), "{keys:?}");
    assert_eq!(map.refused().len(), 1);
    let all = pairs([("more", 3), ("new", 2), ("old", 1)]);
    assert_eq!(stored(&store).await, all);
}
