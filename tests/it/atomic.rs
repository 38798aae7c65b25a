//! Atomic commits of several changes, to one map and to several.

use std::{pin::pin, sync::Arc};

use futures_util::poll;
use persistify::{
    CachingMap, Change, ErrorKind, Expect, Memory, PersistentMap, Provider, Revision,
    testing::{Fault, ManualClock, Method},
};
use tokio::time::sleep;

use crate::support::{
    HOUR, Plain, SECOND, Store, as_it_is, impatient, keys, open, open_caching, pairs, records,
    settle, start, steady, store, stored, write_as_another,
};

mod chains;
mod several;

async fn quiet(store: &Store) -> PersistentMap<u32> {
    open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await
}

#[tokio::test(start_paused = true)]
async fn a_batch_lands_whole_or_not_at_all() {
    let store = store();
    let map = quiet(&store).await;
    map.insert_and_save("old", 1).await.unwrap();
    map.insert("other", 1);
    let mut batch = map.batch();
    batch.insert("a", 1).insert("b", 2).remove("old");
    let revision = batch.commit().await.unwrap().unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
    for (key, value) in [("a", 1), ("b", 2)] {
        assert_eq!(map.get_with_revision(key), Some((value, revision)));
    }
    assert_eq!((map.get("old"), map.pending()), (None, 1));
    let error = map
        .batch()
        .insert("a", 9)
        .remove("b")
        .insert("c", 9)
        .require("c", Expect::Present)
        .commit()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        (error.map(), error.keys()),
        (Some("map"), &["c".into()][..])
    );
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
    assert_eq!(
        (map.get("a"), map.get("b"), map.get("c")),
        (Some(1), Some(2), None)
    );
    assert_eq!(store.calls(Method::Commit), 3);
    map.close().await.unwrap();
    let error = map.batch().insert("a", 1).commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_last_word_on_a_key_counts_and_two_expectations_do_not_go_together() {
    let store = store();
    let map = quiet(&store).await;
    let mut batch = map.batch();
    batch.insert("a", 1).remove("a").insert("a", 2);
    batch.commit().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
    let mut batch = map.batch();
    batch.require("a", Expect::Present);
    let error = batch
        .require("a", Expect::Absent)
        .commit()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(map.batch().commit().await.unwrap(), None);
    let mut nothing = map.batch();
    nothing.require("a", Expect::Any);
    assert_eq!(nothing.commit().await.unwrap(), None);
    map.batch().insert("b", 1);
    drop(map.batch().insert("b", 1).commit());
    settle().await;
    assert_eq!(
        (map.get("b"), map.pending(), store.calls(Method::Commit)),
        (None, 0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_condition_on_an_unchanged_key_is_checked() {
    let store = store();
    let map = quiet(&store).await;
    let first = map.save_if("a", 1, Expect::Absent).await.unwrap();
    for (expect, holds) in [
        (Expect::At(first), true),
        (Expect::At(first), false),
        (Expect::Present, true),
        (Expect::Absent, false),
    ] {
        let mut batch = map.batch();
        batch.insert("b", 1).require("a", expect);
        let done = batch.commit().await;
        assert_eq!(done.is_ok(), holds, "{expect:?}: {done:?}");
        assert_eq!(map.remove_and_save("b").await.unwrap().is_some(), holds);
        let known = map.get_with_revision("a");
        let stored = records(store.inner()).await["a"].revision;
        assert_eq!(known, Some((1, stored)));
    }
    let mut batch = map.batch();
    batch.insert("b", 1).require("none", Expect::Absent);
    batch.commit().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 1)]));
    // Another process removes an entry that memory still holds.
    write_as_another(store.inner(), vec![Change::delete("a")]).await;
    let mut batch = map.batch();
    batch.insert("b", 2).require("a", Expect::Absent);
    batch.commit().await.unwrap();
    assert_eq!((map.get("a"), map.get("b"), map.len()), (None, Some(2), 1));
}

#[tokio::test(start_paused = true)]
async fn the_pending_writes_of_a_batchs_keys_are_committed_first() {
    let store = store();
    let map = quiet(&store).await;
    map.extend([("a", 1), ("b", 1), ("c", 1)]);
    let error = map
        .batch()
        .insert("a", 2)
        .insert("b", 2)
        .require("b", Expect::Absent)
        .commit()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(keys(&store.batches()[0]), ["a", "b"]);
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 1)]));
    assert_eq!(map.pending(), 1);
    store.refuse(["a"]);
    assert!(map.insert_and_save("a", 3).await.is_err());
    let error = map
        .batch()
        .remove("a")
        .insert("b", 3)
        .commit()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!((map.get("a"), map.get("b")), (Some(3), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_refused_or_not_encoded_fails_the_whole_batch() {
    let store = store();
    let floats: PersistentMap<f64> = open(store.clone(), "map", steady).await;
    let mut batch = floats.batch();
    batch.insert("a", 1.0).insert("b", f64::NAN);
    let error = batch.commit().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.keys()),
        (ErrorKind::Refused, &["b".into()][..])
    );
    store.refuse(["b"]);
    let mut batch = floats.batch();
    batch.insert("a", 1.0).insert("b", 1.0);
    assert_eq!(batch.commit().await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(
        (floats.len(), floats.pending(), floats.refused().len()),
        (0, 0, 0)
    );
    assert!(floats.health().borrow().is_healthy());
    assert_eq!(store.calls(Method::Commit), 1, "never taken apart");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_resolved_by_the_identical_batch() {
    for fault in [
        Fault::Lost(ErrorKind::Unavailable),
        Fault::After(ErrorKind::Unavailable),
    ] {
        let store = store();
        let map = quiet(&store).await;
        store.fail_next(2, fault);
        let mut batch = map.batch();
        batch.insert("a", 1).insert("b", 1);
        let batch = batch.require("a", Expect::Absent).commit();
        batch.await.unwrap();
        let batches = store.batches();
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|batch| *batch == batches[0]));
        assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 1)]));
        assert_eq!((map.get("a"), map.get("b")), (Some(1), Some(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_unknown_outcome_hangs_no_call_and_memory_follows_it() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).retry(impatient()).batch(1_000, HOUR)
    })
    .await;
    map.insert_and_save("a", 1).await.unwrap();
    store.fail_next(1, Fault::After(ErrorKind::Unavailable));
    let error = map.batch().remove("a").insert("b", 1).commit().await;
    store.down(ErrorKind::Unavailable);
    assert!(error.unwrap_err().may_have_applied());
    assert_eq!((map.get("a"), map.get("b")), (Some(1), None));
    for error in [
        map.flush().await.unwrap_err(),
        map.insert_and_save("c", 1).await.map(drop).unwrap_err(),
        map.batch()
            .remove("c")
            .commit()
            .await
            .map(drop)
            .unwrap_err(),
        map.close().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    store.up();
    sleep(2 * SECOND).await;
    assert_eq!((map.get("a"), map.get("b")), (None, Some(1)));
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("b", 1), ("c", 1)]));
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_files_commit_to_one_map_at_a_time_and_do_that_whole() {
    let folder = tempfile::tempdir().unwrap();
    let files = persistify::JsonFile::open(folder.path()).await.unwrap();
    let map = open::<u32>(files.clone(), "map", as_it_is).await;
    map.batch()
        .insert("a", 1)
        .insert("b", 1)
        .commit()
        .await
        .unwrap();
    let mut tx = persistify::Transaction::new(&files);
    tx.insert(&map, "c", 1).remove(&map, "a");
    tx.require(&map, "b", Expect::Present);
    tx.commit().await.unwrap();
    assert_eq!((map.len(), map.get("c")), (2, Some(1)));
    let other = open::<u32>(files.clone(), "other", as_it_is).await;
    let mut tx = persistify::Transaction::new(&files);
    tx.insert(&map, "c", 2).insert(&other, "c", 2);
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(r#"["map", "other"]"#), "{error}");
    assert_eq!((map.get("c"), other.len()), (Some(1), 0));
    map.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_provider_cannot_commit_is_unsupported_before_any_write() {
    let least: Arc<dyn Provider> = Arc::new(Plain(Memory::new()));
    let map = open::<u32>(least.clone(), "map", as_it_is).await;
    let other = open::<u32>(least.clone(), "other", as_it_is).await;
    map.insert("pending", 1);
    let mut tx = persistify::Transaction::new(&least);
    tx.insert(&map, "pending", 2).insert(&other, "b", 1);
    for error in [
        map.save_if("pending", 1, Expect::Absent).await.unwrap_err(),
        map.batch()
            .remove("pending")
            .require("b", Expect::Absent)
            .commit()
            .await
            .unwrap_err(),
        tx.commit().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert_eq!((map.pending(), map.stats().commits), (1, 0));
    map.save_if("a", 1, Expect::Any).await.unwrap();
    map.batch().insert("b", 1).commit().await.unwrap();
    assert_eq!((map.len(), map.pending()), (3, 1));
}

/// The condition that an entry is present carried the expiry from the time of the call. If the
/// entry was written before the commit's turn, the store was left with an older expiry than memory,
/// permanently.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_only_required_keeps_its_latest_expiry() {
    let store = store();
    let map = open_caching::<u32>(store.clone(), "map", |map| {
        map.time_to_live(HOUR).clock(ManualClock::new(start()))
    })
    .await;
    map.insert_and_save("a", 1).await.unwrap();
    let hang = store.hang_next();
    map.insert("other", 1);
    let mut flush = pin!(map.flush());
    assert!(poll!(&mut flush).is_pending());
    hang.hangs().await;
    let mut batch = map.batch();
    batch.insert("b", 1).require("a", Expect::Present);
    let mut commit = pin!(batch.commit());
    assert!(poll!(&mut commit).is_pending());
    map.insert_with_ttl("a", 2, SECOND);
    hang.release();
    commit.await.unwrap();
    flush.await.unwrap();
    let stored = records(store.inner()).await;
    assert_eq!(stored["a"].expires_at, Some(start() + SECOND));
    assert_eq!(map.expires_at("a"), stored["a"].expires_at);
}

#[tokio::test(start_paused = true)]
async fn expiries_go_along() {
    let store = store();
    let map = CachingMap::<u32>::builder(store.clone(), "map");
    let map = map.time_to_live(HOUR).time_to_idle(HOUR / 2);
    let clock = ManualClock::new(start());
    let map = map.clock(clock.clone()).open().await.unwrap();
    map.save_if("a", 1, Expect::Absent).await.unwrap();
    map.save_if_with_ttl("b", 1, Expect::Absent, SECOND)
        .await
        .unwrap();
    let mut batch = map.batch();
    batch.insert("c", 1).insert_with_ttl("d", 1, SECOND);
    batch.commit().await.unwrap();
    let stored = records(store.inner()).await;
    for key in ["a", "b", "c", "d"] {
        assert_eq!(map.expires_at(key), stored[key].expires_at, "{key}");
    }
    clock.advance(2 * SECOND);
    settle().await;
    assert_eq!((map.len(), map.get("b"), map.get("d")), (2, None, None));
    map.flush().await.unwrap();
    // An expired entry is absent, swept or not.
    map.save_if("b", 2, Expect::Absent).await.unwrap();
    // A read that extended the deadline, and is not saved yet, is no change of the value and
    // causes no conflict.
    let (_, revision) = map.get_with_revision("c").unwrap();
    clock.advance(HOUR / 4);
    assert_eq!(map.get_with_revision("c"), Some((1, revision)));
    assert_eq!(map.pending(), 1);
    map.save_if("c", 2, Expect::At(revision)).await.unwrap();
    assert_eq!((map.get("c"), map.pending()), (Some(2), 0));
    map.close().await.unwrap();
    let stored = records(store.inner()).await;
    assert_eq!(stored.len(), 3);
    assert_eq!(map.expires_at("c"), stored["c"].expires_at);
    assert!(Revision::ZERO < stored["c"].revision);
}

/// The pending keys in a batch were limited by number only, not by size.
#[tokio::test(start_paused = true)]
async fn the_writes_before_a_batch_keep_to_max_batch_bytes() {
    let store = store();
    let map: PersistentMap<String> = open(store.clone(), "map", |map| {
        steady(map).batch(1_000, HOUR).max_batch_bytes(1_000)
    })
    .await;
    let mut batch = map.batch();
    for n in 0..10 {
        map.insert(n.to_string(), "x".repeat(400));
        batch.insert(n.to_string(), String::new());
    }
    batch.commit().await.unwrap();
    let mut batches = store.batches();
    assert_eq!(keys(&batches.pop().unwrap()).len(), 10);
    let lengths: Vec<_> = batches.iter().map(|batch| keys(batch).len()).collect();
    assert_eq!(lengths, [3, 3, 3, 1]);
}
