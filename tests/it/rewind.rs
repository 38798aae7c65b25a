//! A store that goes back in time under an open map: the map notices, reports it, and follows its
//! policy.

use persistify::{
    ErrorKind, Expect, Health, Memory, Operation, PersistentMap, Rewind, Rewound, Transaction,
};

use crate::support::{
    HOUR, SECOND, Store, as_it_is, impatient, in_memory, open, open_numbers, pairs, settle, steady,
    store, stored,
};

#[cfg(any(feature = "json", feature = "sqlite", feature = "postgres"))]
pub(crate) mod decided;
mod decisions;
mod noticed;
mod others;

/// Saves `old` and `new`, and then restores the store to the state before `new`. Returns the newest
/// state.
async fn rewound(store: &Store, map: &PersistentMap<u32>) -> Memory {
    map.insert_and_save("old", 1).await.unwrap();
    let older = store.inner().backup();
    map.insert_and_save("new", 2).await.unwrap();
    let newest = store.inner().backup();
    store.inner().restore(&older);
    newest
}

fn states(map: &PersistentMap<u32>) -> Rewound {
    match &*map.health().borrow() {
        Health::Rewound { store, .. } => *store,
        other => panic!("{other:?}"),
    }
}

fn kind<T: std::fmt::Debug>(result: persistify::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A server was replaced by an older backup under an open map. Health stayed `Healthy` and
/// every flush returned `Ok`, while only memory had the commits that the store had lost. At the
/// next restart, acknowledged entries were gone without any error.
#[tokio::test(start_paused = true)]
async fn an_older_copy_of_the_store_stops_the_map_and_both_states_are_named() {
    let store = store();
    let map = open_numbers(&store).await;
    rewound(&store, &map).await;
    let mut failures = map.failures();
    let failed = map.insert_and_save("more", 3).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Rewound, "{failed:?}");
    assert!(!failed.may_have_applied());
    let states = states(&map);
    assert_eq!((states.acknowledged, states.remembered), (Some(3), Some(1)));
    assert!(states.expected.is_some() && states.expected != states.found);
    assert_eq!(failed.rewound(), Some(&states));
    let told = failures.recv().await.unwrap();
    assert!(told.is_final && told.operation == Operation::Commit);
    assert_eq!(told.error.kind(), ErrorKind::Rewound);
    // Nothing is written, the change stays pending, and reads work.
    assert_eq!(stored(&store).await, pairs([("old", 1)]));
    assert_eq!(
        in_memory(&map),
        pairs([("more", 3), ("new", 2), ("old", 1)])
    );
    assert_eq!(map.pending(), 1);
    assert_eq!(kind(map.flush().await), ErrorKind::Rewound);
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_in_the_place_of_the_own_stops_the_map() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("a", 1).await.unwrap();
    store.inner().restore(&Memory::new());
    assert_eq!(kind(map.insert_and_save("b", 2).await), ErrorKind::Rewound);
    let states = states(&map);
    assert_eq!(states.remembered, None);
    assert!(stored(&store).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_put_back_as_it_was_goes_on_by_itself() {
    for pending in [true, false] {
        let store = store();
        let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
        map.insert_and_save("old", 1).await.unwrap();
        let newest = store.inner().backup();
        store.inner().restore(&Memory::new());
        let failed = map.insert_and_save("more", 3).await;
        assert_eq!(kind(failed), ErrorKind::Rewound);
        if !pending {
            map.remove("more");
        }
        assert_eq!(map.pending() > 0, pending);
        let mut health = map.health();
        store.inner().restore(&newest);
        health.wait_for(Health::is_healthy).await.unwrap();
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, in_memory(&map));
    }
}

/// Stores forget writers that have been idle for a day or more. That is no loss of commits.
#[tokio::test(start_paused = true)]
async fn an_idle_writer_that_was_forgotten_is_no_rewound_store() {
    for (idle, expected) in [(11, Some(ErrorKind::Rewound)), (13, None)] {
        let store = store();
        let map = open_numbers(&store).await;
        let before = store.inner().backup();
        map.insert_and_save("a", 1).await.unwrap();
        tokio::time::advance(HOUR * idle).await;
        store.inner().restore(&before);
        let saved = map.insert_and_save("b", 2).await;
        assert_eq!(saved.err().map(|error| error.kind()), expected, "{idle}");
    }
}

/// A store that remembers an older commit of the writer has lost the later ones, however old they
/// are.
#[tokio::test(start_paused = true)]
async fn an_idle_writer_of_whom_an_older_commit_is_remembered_notices() {
    let store = store();
    let map = open_numbers(&store).await;
    rewound(&store, &map).await;
    tokio::time::advance(HOUR * 24 * 6).await;
    assert_eq!(kind(map.insert_and_save("b", 2).await), ErrorKind::Rewound);
}

/// The store was moved, copied or restored while no map was open on it.
#[tokio::test(start_paused = true)]
async fn a_fresh_open_takes_an_older_copy_as_it_is() {
    let store = store();
    let map = open_numbers(&store).await;
    rewound(&store, &map).await;
    drop(map);
    let map = open_numbers(&store).await;
    assert_eq!(in_memory(&map), pairs([("old", 1)]));
    map.insert_and_save("new", 3).await.unwrap();
    assert!(map.health().borrow().is_healthy());
}

/// A commit was in flight when the store went back. It must be applied once, and only after the
/// rewind is resolved.
#[tokio::test(start_paused = true)]
async fn a_batch_of_unknown_outcome_waits_for_the_decision() {
    for landed in [false, true] {
        let store = store();
        let map = open_numbers(&store).await;
        let newest = rewound(&store, &map).await;
        store.inner().restore(&newest);
        let older = store.inner().backup();
        map.insert_and_save("more", 3).await.unwrap();
        let fault = if landed {
            persistify::testing::Fault::After(ErrorKind::Unavailable)
        } else {
            persistify::testing::Fault::Lost(ErrorKind::Unavailable)
        };
        store.fail_next(1, fault);
        map.insert("more", 4);
        store.ended(persistify::testing::Method::Commit, 4).await;
        store.inner().restore(&older);
        assert_eq!(kind(map.flush().await), ErrorKind::Rewound);
        assert_eq!(stored(&store).await, pairs([("new", 2), ("old", 1)]));
        map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
        let all = pairs([("more", 4), ("new", 2), ("old", 1)]);
        assert_eq!((stored(&store).await, in_memory(&map)), (all.clone(), all));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_names_what_could_not_be_saved_and_why_and_the_map_stays_open() {
    let store = store();
    let map = open_numbers(&store).await;
    rewound(&store, &map).await;
    map.insert("more", 3);
    let failed = map.close().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Rewound);
    assert_eq!(failed.keys(), ["more".into()]);
    let why = std::error::Error::source(&failed).unwrap().to_string();
    assert!(why.contains("lost commits"), "{why}");
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(stored(&store).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_conditional_save_is_told_and_changes_nothing() {
    for rewind in [Rewind::Stop, Rewind::SaveAgain] {
        let store = store();
        let map = open(store.clone(), "map", |map| steady(map).on_rewind(rewind)).await;
        rewound(&store, &map).await;
        let failed = map.save_if("new", 9, Expect::Absent).await;
        assert_eq!(kind(failed), ErrorKind::Rewound);
        assert_eq!(map.get("new"), Some(2));
        if rewind == Rewind::Stop {
            states(&map);
            assert_eq!(stored(&store).await, pairs([("old", 1)]));
        } else {
            map.flush().await.unwrap();
            assert_eq!(stored(&store).await, in_memory(&map));
            map.save_if("new", 9, Expect::Present).await.unwrap();
        }
    }
}

/// The batch of a transaction is numbered by the first of its maps, so a loss of the other map's
/// commits would have gone unnoticed.
#[tokio::test(start_paused = true)]
async fn a_transaction_is_told_whichever_of_its_maps_has_lost_commits() {
    for loser in ["a", "b"] {
        let store = store();
        let filled = async |name| {
            let map: PersistentMap<u32> = open(store.clone(), name, as_it_is).await;
            map.insert_and_save("k", 1).await.unwrap();
            map
        };
        let (a, b) = (filled("a").await, filled("b").await);
        let older = store.inner().backup();
        let (loser, other) = if loser == "a" { (&a, &b) } else { (&b, &a) };
        loser.insert_and_save("k", 2).await.unwrap();
        store.inner().restore(&older);
        let mut tx = Transaction::new(&store);
        tx.insert(&a, "t", 3).insert(&b, "t", 3);
        assert_eq!(kind(tx.commit().await), ErrorKind::Rewound);
        assert_eq!((a.get("t"), b.get("t")), (None, None));
        settle().await;
        assert_eq!(states(loser).remembered, Some(1));
        // The other map notices by itself.
        assert!(other.health().borrow().is_healthy());
        assert_eq!(
            kind(other.insert_and_save("k", 4).await),
            ErrorKind::Rewound
        );
    }
}

/// The store had forgotten the writer of a map in the transaction. The map was taken for a map of
/// another provider.
#[tokio::test(start_paused = true)]
async fn a_transaction_on_an_emptied_store_is_not_taken_for_one_on_another_provider() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("k", 1).await.unwrap();
    store.inner().restore(&Memory::new());
    let mut tx = Transaction::new(&store);
    tx.insert(&map, "t", 3);
    assert_eq!(kind(tx.commit().await), ErrorKind::Rewound);
    settle().await;
    states(&map);
}

#[tokio::test(start_paused = true)]
async fn a_map_that_is_down_notices_when_it_asks_whether_the_store_is_well() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    map.insert_and_save("k", 1).await.unwrap();
    store.down(ErrorKind::Unavailable);
    map.insert("gone", 1);
    assert_eq!(kind(map.flush().await), ErrorKind::Unavailable);
    map.remove("gone");
    store.inner().restore(&Memory::new());
    store.up();
    let mut health = map.health();
    let mut failures = map.failures();
    tokio::time::advance(SECOND).await;
    let is_rewound = |health: &Health| health.kind() == Some(ErrorKind::Rewound);
    health.wait_for(is_rewound).await.unwrap();
    let told = failures.recv().await.unwrap();
    assert_eq!(told.operation, Operation::Probe);
    assert_eq!(told.error.kind(), ErrorKind::Rewound);
}
