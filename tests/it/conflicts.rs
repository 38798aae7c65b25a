//! Two processes that change the same keys, and the resolution of their conflicts.

#[cfg(all(feature = "json", feature = "sqlite"))]
mod adopted;
pub(crate) mod history;
mod merges;
mod mixed;
mod own;
#[cfg(feature = "sqlite")]
mod processes;
mod unmerged;

use std::sync::{Arc, atomic::AtomicU32, atomic::Ordering::SeqCst};

use futures_util::FutureExt;
use persistify::{
    CachingMap, Conflict, ErrorKind, Memory, OnConflict, PersistentMap, Provider, Resolution,
    testing::{Fault, Faulty, ManualClock},
};
use tokio::sync::broadcast;

use crate::support::{
    Plain, SECOND, Store, open_caching, pairs, put, settle, start, store, stored, write_as_another,
};

/// One of several processes that have the map open.
async fn open_on(store: &Store, policy: OnConflict<u32>) -> PersistentMap<u32> {
    let map = crate::support::builder(store).batch(1_000, crate::support::HOUR);
    map.conflicts(policy).open().await.unwrap()
}

fn sum() -> OnConflict<u32> {
    OnConflict::Merge(|mine, theirs| mine + theirs)
}

/// The key and the resolution of every conflict so far.
fn told(conflicts: &mut broadcast::Receiver<Conflict>) -> Vec<(String, Resolution)> {
    let told = std::iter::from_fn(|| conflicts.try_recv().ok());
    told.map(|c| (c.key.to_string(), c.resolution)).collect()
}

fn ended(key: &str, resolution: Resolution) -> Vec<(String, Resolution)> {
    vec![(key.to_owned(), resolution)]
}

#[tokio::test(start_paused = true)]
async fn the_last_write_wins_by_default_without_an_event() {
    let store = store();
    let (here, there) = (
        open_on(&store, OnConflict::default()).await,
        open_on(&store, OnConflict::LastWrite).await,
    );
    let mut conflicts = here.conflicts();
    there.insert_and_save("a", 1).await.unwrap();
    here.insert_and_save("a", 2).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
    assert_eq!(here.stats().conflicts, 0);
    assert!(told(&mut conflicts).is_empty());
    let batches = store.batches();
    let mut changes = batches.iter().flat_map(|b| &b.maps[0].changes);
    assert!(changes.all(|change| change.expect == persistify::Expect::Any));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_wins_replaces_the_value_in_memory() {
    let store = store();
    let here = open_on(&store, OnConflict::StoreWins).await;
    here.extend([("a", 1), ("removed there", 1), ("removed here", 1)]);
    here.insert_and_save("same", 1).await.unwrap();
    let there = open_on(&store, OnConflict::LastWrite).await;
    there.insert("a", 2);
    there.remove("removed there");
    there.insert("removed here", 2);
    there.insert("new", 2);
    there.flush().await.unwrap();

    let mut conflicts = here.conflicts();
    here.insert("a", 3);
    here.insert("removed there", 3);
    here.remove("removed here");
    here.insert("new", 3);
    here.insert("same", 3);
    here.flush().await.unwrap();
    let expected = pairs([("a", 2), ("new", 2), ("removed here", 2), ("same", 3)]);
    assert_eq!(stored(&store).await, expected);
    assert_eq!(crate::support::in_memory(&here), expected);
    assert_eq!((here.pending(), here.len()), (0, 4));
    assert_eq!(here.stats().conflicts, 4);
    let mut told = told(&mut conflicts);
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let keys = ["a", "new", "removed here", "removed there"];
    let expected = keys.map(|key| (key.to_owned(), Resolution::StoreWon));
    assert_eq!(told, expected);
    // The revision of the accepted value is known from then on: the next change is no conflict.
    here.extend([("a", 4), ("removed there", 4), ("new", 4)]);
    here.remove("removed here");
    here.flush().await.unwrap();
    assert_eq!(here.stats().conflicts, 4);
    let expected = pairs([("a", 4), ("new", 4), ("removed there", 4), ("same", 3)]);
    assert_eq!(stored(&store).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_event_names_both_revisions() {
    let store = store();
    let here = open_on(&store, OnConflict::StoreWins).await;
    here.insert_and_save("a", 1).await.unwrap();
    let revisions = async || {
        let records = crate::support::records_in(&store, &crate::support::map_name()).await;
        records.first().map(|record| record.revision)
    };
    let mine = revisions().await;
    let there = open_on(&store, OnConflict::LastWrite).await;
    there.insert_and_save("a", 2).await.unwrap();
    there.insert_and_save("b", 2).await.unwrap();
    let theirs = revisions().await;
    let mut conflicts = here.conflicts();
    here.extend([("a", 3), ("b", 3)]);
    here.flush().await.unwrap();
    let first = conflicts.try_recv().unwrap();
    assert_eq!((first.map.as_str(), &*first.key), ("map", "a"));
    assert_eq!((first.mine, first.theirs), (mine, theirs));
    assert!(mine < theirs && mine.is_some());
    let second = conflicts.try_recv().unwrap();
    assert_eq!((&*second.key, second.mine), ("b", None));
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_change_lost_is_told_what_is_stored() {
    let store = store();
    let here = open_on(&store, OnConflict::StoreWins).await;
    let there = open_on(&store, OnConflict::LastWrite).await;
    there.extend([("a", 1), ("b", 1)]);
    there.flush().await.unwrap();
    let (a, b) = tokio::join!(here.insert_and_save("a", 2), here.insert_and_save("c", 2));
    let lost = a.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert_eq!(lost.keys(), [Arc::<str>::from("a")]);
    assert_eq!(lost.map(), Some("map"));
    let found = lost.found().unwrap().value.clone().unwrap();
    assert_eq!(&*found.bytes, b"1");
    // Other saves in the same commit are not affected.
    assert_eq!(b.unwrap(), None);
    here.reload().await.unwrap();
    there.remove_and_save("b").await.unwrap();
    let lost = here.insert_and_save("b", 2).await.unwrap_err();
    assert_eq!((lost.kind(), lost.found()), (ErrorKind::Conflict, None));
    assert_eq!(here.get("b"), None);
    assert!(!here.contains_key("b"));
}

/// A change that was overwritten while its conflict was being resolved is lost, too. A save that
/// waits for it must not succeed.
#[tokio::test(start_paused = true)]
async fn a_save_of_what_was_written_meanwhile_is_told_as_well() {
    for remove in [false, true] {
        let store = store();
        let here = open_on(&store, OnConflict::StoreWins).await;
        let there = open_on(&store, OnConflict::LastWrite).await;
        there.insert_and_save("a", 1).await.unwrap();
        let hang = store.hang_next();
        let save = |remove| {
            let here = here.clone();
            tokio::spawn(async move {
                if remove {
                    here.remove_and_save("a").await
                } else {
                    here.insert_and_save("a", 2).await
                }
            })
        };
        let first = save(false);
        hang.hangs().await;
        let second = save(remove);
        settle().await;
        hang.release();
        for save in [first, second] {
            let error = save.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
        assert_eq!((here.get("a"), here.pending()), (Some(1), 0));
        assert_eq!(stored(&store).await, pairs([("a", 1)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_leaves_what_is_pending_to_be_judged() {
    for (policy, expected) in [(OnConflict::StoreWins, 1), (sum(), 21)] {
        let store = store();
        let here = open_on(&store, policy).await;
        let there = open_on(&store, OnConflict::LastWrite).await;
        store.refuse(["a"]);
        here.insert("a", 20);
        here.flush().await.unwrap_err();
        store.behave();
        there.insert_and_save("a", 1).await.unwrap();
        // The refused change stays, with the revision it was based on.
        here.reload().await.unwrap();
        assert_eq!(here.get("a"), Some(20));
        here.retry_refused();
        here.flush().await.unwrap();
        assert_eq!(here.get("a"), Some(expected));
        assert_eq!(stored(&store).await, pairs([("a", expected)]));
        assert_eq!(here.stats().conflicts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clear_empties_the_store_whatever_others_wrote() {
    for policy in [OnConflict::StoreWins, sum()] {
        let store = store();
        let here = open_on(&store, policy).await;
        here.insert_and_save("a", 1).await.unwrap();
        let there = open_on(&store, OnConflict::LastWrite).await;
        there.extend([("a", 2), ("b", 2)]);
        there.flush().await.unwrap();
        here.clear();
        here.insert_and_save("b", 3).await.unwrap();
        assert_eq!(stored(&store).await, pairs([("b", 3)]));
        assert_eq!(here.stats().conflicts, 0);
    }
}

#[tokio::test]
async fn a_provider_without_conditions_cannot_notice_conflicts() {
    for policy in [OnConflict::StoreWins, sum()] {
        let named = format!("{policy:?}");
        let map = PersistentMap::<u32>::builder(Plain(Memory::new()), "map");
        let error = map.conflicts(policy).open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let said = error.to_string();
        assert!(
            said.contains("conflicts") && said.contains(&named),
            "{said}"
        );
        assert_eq!(error.map(), Some("map"));
    }
    let map = PersistentMap::<u32>::builder(Plain(Memory::new()), "map");
    map.conflicts(OnConflict::LastWrite).open().await.unwrap();
}

/// Expiry is no change: neither a claim to the key nor a conflict.
#[tokio::test]
async fn an_expiry_or_a_touch_is_no_conflict() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let open = async |policy| {
        let map = CachingMap::<u64>::builder(store.clone(), "map").clock(clock.clone());
        let map = map.time_to_idle(100 * SECOND).conflicts(policy);
        map.open().await.unwrap()
    };
    let here = open(OnConflict::StoreWins).await;
    here.insert_with_ttl("swept there", 1, 10 * SECOND);
    here.insert_with_ttl("fresh there", 1, 10 * SECOND);
    here.insert("read here", 1);
    here.insert_and_save("own", 1).await.unwrap();
    let there = open(OnConflict::LastWrite).await;
    clock.advance(10 * SECOND);
    // Neither map has swept yet.
    here.insert("swept there", 2);
    there.insert("fresh there", 3);
    settle().await;
    there.flush().await.unwrap();
    assert!(
        !crate::support::records(store.inner())
            .await
            .contains_key("swept there")
    );
    here.flush().await.unwrap();
    assert_eq!(here.stats().conflicts, 0);
    assert_eq!(here.get("swept there"), Some(2));
    assert_eq!(here.get("fresh there"), Some(3));
    // A read that extends the deadline is no conflicting write either.
    there.insert_and_save("read here", 4).await.unwrap();
    clock.advance(20 * SECOND);
    here.get("read here");
    here.get("own");
    here.flush().await.unwrap();
    assert_eq!(here.get("read here"), Some(4));
    here.insert_and_save("own", 5).await.unwrap();
    assert_eq!(here.stats().conflicts, 0);
    let stored = crate::support::stored_values::<u64>(store.inner()).await;
    assert_eq!(stored["swept there"], 2);
}

/// While the removal of an expired entry is being committed, another process removes it first,
/// and a new entry is written here. That is no conflict.
#[tokio::test]
async fn a_fresh_entry_during_the_commit_of_an_expiry_is_no_conflict() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open_caching::<u32>(store.clone(), "map", |map| {
        map.clock(clock.clone()).conflicts(OnConflict::StoreWins)
    })
    .await;
    map.insert_with_ttl("a", 1, SECOND);
    map.flush().await.unwrap();
    clock.advance(SECOND);
    settle().await;
    let hang = store.hang_next();
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    write_as_another(store.inner(), vec![persistify::Change::delete("a")]).await;
    map.insert("a", 2);
    hang.release();
    flush.await.unwrap().unwrap();
    map.flush().await.unwrap();
    assert_eq!((map.get("a"), map.stats().conflicts), (Some(2), 0));
    let stored = crate::support::stored_values::<u32>(store.inner()).await;
    assert_eq!(stored.get("a"), Some(&2));
}

/// A rewrite in the current schema version is no change by the application: values that another
/// process wrote meanwhile stay, without a conflict.
#[tokio::test(start_paused = true)]
async fn a_rewrite_on_load_is_no_conflict() {
    for policy in [OnConflict::StoreWins, sum()] {
        let store = store();
        let old = open_on(&store, OnConflict::LastWrite).await;
        old.extend([("a", 1), ("b", 1)]);
        old.flush().await.unwrap();
        let map = crate::support::builder(&store).conflicts(policy);
        let map = map.schema(1).migrate(0, |n| n).rewrite_on_load();
        let map: PersistentMap<u32> = map.open().await.unwrap();
        old.insert_and_save("a", 2).await.unwrap();
        map.flush().await.unwrap();
        assert_eq!((map.get("a"), map.stats().conflicts), (Some(2), 0));
        assert_eq!(stored(&store).await, pairs([("a", 2), ("b", 1)]));
        map.insert("a", 3);
        map.insert("b", 3);
        map.flush().await.unwrap();
        assert_eq!(map.stats().conflicts, 0);
        assert_eq!(stored(&store).await, pairs([("a", 3), ("b", 3)]));
    }
}

/// A change loses a conflict after the map was cleared. A save that waits for it must wait for
/// the clear, which is the later write and not in the store yet.
#[tokio::test(start_paused = true)]
async fn a_save_that_met_another_and_was_cleared_waits_for_the_clear() {
    for policy in [OnConflict::StoreWins, sum()] {
        let store = store();
        let map = open_on(&store, policy).await;
        write_as_another(store.inner(), vec![put("a", "1")]).await;
        let first = store.hang_next();
        let save = tokio::spawn({
            let map = map.clone();
            async move { map.insert_and_save("a", 2).await }
        });
        first.hangs().await;
        map.clear();
        let second = store.hang_next();
        first.release();
        second.hangs().await;
        settle().await;
        assert!(!save.is_finished());
        second.release();
        save.await.unwrap().unwrap();
        assert!(stored(&store).await.is_empty());
        assert_eq!((map.len(), map.pending()), (0, 0));
    }
}
