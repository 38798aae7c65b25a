//! How a map reports a store that went back in time, and how it behaves until that is resolved.

use persistify::{
    OnConflict,
    testing::{Fault, Hang, Method},
};

use super::*;
use crate::support::{open, put, steady, write_as_another};

/// A map that has committed nothing notices a rewind at a reload, from the incarnation alone. It
/// stays stopped, although none of its own writes was lost.
#[tokio::test(start_paused = true)]
async fn a_reload_that_notices_tells_everybody_and_nothing_is_written_after_it() {
    let store = store();
    let (map, other) = (open_numbers(&store).await, open_numbers(&store).await);
    rewound(&store, &other).await;
    map.reload().await.unwrap();
    assert_eq!(
        kind(other.insert_and_save("x", 1).await),
        ErrorKind::Rewound
    );
    let mut failures = map.failures();
    assert_eq!(kind(map.reload().await), ErrorKind::Rewound);
    let told = failures.recv().await.unwrap();
    assert_eq!(told.operation, Operation::Probe);
    assert!(told.is_final);
    for _ in 0..2 {
        assert_eq!(
            kind(map.insert_and_save("more", 3).await),
            ErrorKind::Rewound
        );
        assert_eq!(kind(map.reload().await), ErrorKind::Rewound);
    }
    assert_eq!(stored(&store).await, pairs([("old", 1)]));
    assert_eq!(in_memory(&map), pairs([("more", 3), ("old", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_a_map_that_goes_on_by_itself_answers_with_what_came_of_it() {
    for (rewind, expected) in [
        (Rewind::TakeStore, pairs([("old", 1)])),
        (Rewind::SaveAgain, pairs([("new", 2), ("old", 1)])),
    ] {
        let store = store();
        let other = open_numbers(&store).await;
        other.insert_and_save("old", 1).await.unwrap();
        let older = store.inner().backup();
        other.insert_and_save("new", 2).await.unwrap();
        let map = open(store.clone(), "map", |map| steady(map).on_rewind(rewind)).await;
        store.inner().restore(&older);
        assert_eq!(
            kind(other.insert_and_save("x", 1).await),
            ErrorKind::Rewound
        );
        map.reload().await.unwrap();
        assert_eq!(in_memory(&map), expected, "{rewind:?}");
        assert_eq!(stored(&store).await, expected, "{rewind:?}");
    }
}

/// Health names the two states for as long as a map that continues by itself loads the contents of
/// the store.
#[tokio::test(start_paused = true)]
async fn health_is_rewound_until_the_map_has_gone_on_by_itself() {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map).on_rewind(Rewind::SaveAgain)
    })
    .await;
    rewound(&store, &map).await;
    let hang = Hang::new();
    store.fail_next_of(Method::Load, 1, Fault::Hang(hang.clone()));
    map.insert("more", 3);
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    assert_eq!(states(&map).remembered, Some(1));
    hang.release();
    flush.await.unwrap().unwrap();
    assert!(map.health().borrow().is_healthy());
    assert_eq!(stored(&store).await, in_memory(&map));
}

/// Attempts from before the rewind do not count after it.
#[tokio::test(start_paused = true)]
async fn a_map_that_goes_on_by_itself_has_all_its_attempts() {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map)
            .retry(impatient().max_attempts(2))
            .on_rewind(Rewind::TakeStore)
    })
    .await;
    rewound(&store, &map).await;
    store.fail_nth(2, Fault::Before(ErrorKind::Unavailable));
    map.insert_and_save("more", 3).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("more", 3), ("old", 1)]));
}

/// Waiting saves get the reason why the map has stopped; later saves work again.
#[tokio::test(start_paused = true)]
async fn a_map_that_cannot_go_on_by_itself_says_why_and_tries_again() {
    let store = store();
    let map = open(store.clone(), "map", |map| {
        steady(map).retry(impatient()).on_rewind(Rewind::SaveAgain)
    })
    .await;
    rewound(&store, &map).await;
    store.fail_next_of(Method::Load, 1, Fault::Before(ErrorKind::Unusable));
    assert_eq!(
        kind(map.insert_and_save("more", 3).await),
        ErrorKind::Unusable
    );
    let mut health = map.health();
    health.wait_for(Health::is_healthy).await.unwrap();
    map.flush().await.unwrap();
    let all = pairs([("more", 3), ("new", 2), ("old", 1)]);
    assert_eq!(stored(&store).await, all);
}

/// A batch was in flight when the store went back. The older copy does not have it, so it is
/// committed after the decision, by the conflict policy of the map.
#[tokio::test(start_paused = true)]
async fn a_batch_of_unknown_outcome_is_committed_to_the_store_that_is_taken() {
    for conflicts in [OnConflict::LastWrite, OnConflict::StoreWins] {
        let store = store();
        let map = open(store.clone(), "map", |map| steady(map).conflicts(conflicts)).await;
        rewound(&store, &map).await;
        let older = store.inner().backup();
        store.fail_next(1, Fault::Lost(ErrorKind::Unavailable));
        map.insert("more", 4);
        assert_eq!(kind(map.flush().await), ErrorKind::Rewound);
        store.inner().restore(&older);
        map.resolve_rewind(Rewind::TakeStore).await.unwrap();
        let all = pairs([("more", 4), ("old", 1)]);
        assert_eq!((stored(&store).await, in_memory(&map)), (all.clone(), all));
        assert_eq!((map.pending(), map.stats().conflicts), (0, 0));
    }
}

/// An older copy may contain records that this program cannot read. They stay in the store, and
/// memory stays unchanged.
#[tokio::test(start_paused = true)]
async fn an_older_copy_that_cannot_be_read_is_not_decided_upon() {
    let store = store();
    let map = open_numbers(&store).await;
    write_as_another(&store, vec![put("odd", "\"text\"")]).await;
    rewound(&store, &map).await;
    map.insert("more", 3);
    assert_eq!(kind(map.flush().await), ErrorKind::Rewound);
    let memory = in_memory(&map);
    for decision in [Rewind::TakeStore, Rewind::SaveAgain] {
        assert_eq!(kind(map.resolve_rewind(decision).await), ErrorKind::Corrupt);
        assert_eq!((in_memory(&map), map.pending()), (memory.clone(), 1));
        states(&map);
    }
    let text = stored(&store).await.remove("odd");
    assert_eq!(text.as_deref(), Some("\"text\""));
}
