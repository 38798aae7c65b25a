//! Conditional saves.

use persistify::{
    Change, ErrorKind, Expect, Memory, Payload, PersistentMap, Revision,
    testing::{Fault, Hang, Method},
};
use tokio::time::sleep;

use crate::support::{
    HOUR, SECOND, Store, as_it_is, impatient, keys, open, open_numbers, pairs, records, settle,
    steady, store, stored, write_as_another,
};

pub(crate) mod linear;
mod unknown;
mod update;
mod upsert;

async fn quiet(store: &Store) -> PersistentMap<u32> {
    open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await
}

fn put(key: &str, value: u32) -> Change {
    Change::put(key, Payload::json(value.to_string()), None)
}

async fn revision_of(store: &Store, key: &str) -> Revision {
    records(store.inner()).await[key].revision
}

#[tokio::test(start_paused = true)]
async fn a_conditional_save_lands_if_its_condition_holds() {
    let store = store();
    let map = open_numbers(&store).await;
    let first = map.save_if("a", 1, Expect::Absent).await.unwrap();
    assert_eq!(first, revision_of(&store, "a").await);
    assert_eq!(map.get_with_revision("a"), Some((1, first)));
    let second = map.save_if("a", 2, Expect::At(first)).await.unwrap();
    let third = map.save_if("a", 3, Expect::Present).await.unwrap();
    let fourth = map.save_if("a", 4, Expect::Any).await.unwrap();
    assert!(first < second && second < third && third < fourth);
    for expect in [
        Expect::Absent,
        Expect::At(third),
        Expect::At(Revision::ZERO),
    ] {
        let error = map.save_if("a", 9, expect).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(
            (error.map(), error.keys()),
            (Some("map"), &["a".into()][..])
        );
        assert_eq!(error.found().unwrap().revision, fourth);
        let says = format!("was last written by revision {fourth}; nothing was written");
        assert!(error.to_string().contains(&says), "{error}");
        assert!(!error.may_have_applied());
    }
    for expect in [Expect::Present, Expect::At(fourth)] {
        let error = map.save_if("none", 9, expect).await.unwrap_err();
        assert_eq!((error.kind(), error.found()), (ErrorKind::Conflict, None));
        assert!(error.to_string().contains("the store has none"), "{error}");
    }
    assert_eq!(map.get_with_revision("a"), Some((4, fourth)));
    assert_eq!((map.get("none"), map.len(), map.pending()), (None, 1, 0));
    assert_eq!(stored(&store).await, pairs([("a", 4)]));
    let stats = map.stats();
    assert_eq!(
        (stats.commits, stats.changes, stats.failed_attempts),
        (4, 4, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_leaves_the_stored_value_in_memory() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("changed", 1).await.unwrap();
    map.insert_and_save("removed", 1).await.unwrap();
    let theirs = vec![put("changed", 2), put("new", 2), Change::delete("removed")];
    write_as_another(store.inner(), theirs).await;
    let (_, known) = map.get_with_revision("changed").unwrap();
    for (key, expect) in [
        ("changed", Expect::At(known)),
        ("removed", Expect::Present),
        ("new", Expect::Absent),
    ] {
        let error = map.save_if(key, 9, expect).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let found = error.found().map(|record| record.revision);
        let stored = records(store.inner()).await;
        assert_eq!(found, stored.get(key).map(|record| record.revision));
        let known = map.get_with_revision(key).map(|(_, revision)| revision);
        assert_eq!(known, found, "{key}");
    }
    assert_eq!((map.get("changed"), map.get("new")), (Some(2), Some(2)));
    assert_eq!((map.get("removed"), map.len()), (None, 2));
    // The record in the conflict is a valid base for the next attempt.
    let (value, found) = map.get_with_revision("changed").unwrap();
    map.save_if("changed", value + 1, Expect::At(found))
        .await
        .unwrap();
    assert_eq!(stored(&store).await, pairs([("changed", 3), ("new", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_pending_write_of_the_key_is_committed_first_and_no_other() {
    let store = store();
    let map = quiet(&store).await;
    map.extend([("a", 1), ("b", 1)]);
    assert_eq!(map.get_with_revision("a"), Some((1, Revision::ZERO)));
    let error = map.save_if("a", 2, Expect::Absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    assert_eq!((map.get("a"), map.pending()), (Some(1), 1));
    map.insert("a", 3);
    map.save_if("a", 4, Expect::Present).await.unwrap();
    let told: Vec<_> = store.batches().iter().map(keys).collect();
    assert_eq!(told, [["a"], ["a"], ["a"], ["a"]]);
    assert_eq!((map.get("a"), map.pending()), (Some(4), 1));
    map.remove("a");
    map.save_if("a", 5, Expect::Absent).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 5)]));
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 5), ("b", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_clear_that_waits_goes_first() {
    let store = store();
    let map = quiet(&store).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.clear();
    map.save_if("a", 2, Expect::Absent).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
    assert_eq!((map.len(), map.pending()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pending_write_that_fails_fails_the_conditional_save() {
    let store = store();
    let map = quiet(&store).await;
    map.insert("a", 1);
    store.down(ErrorKind::Unusable);
    let error = map.save_if("a", 2, Expect::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(!error.may_have_applied());
    assert_eq!((map.get("a"), map.pending()), (Some(1), 1));
    store.up();
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    store.refuse(["b"]);
    assert!(map.insert_and_save("b", 1).await.is_err());
    let error = map.save_if("b", 2, Expect::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!((map.get("b"), map.refused().len()), (Some(1), 1));
}

#[tokio::test(start_paused = true)]
async fn a_write_during_a_conditional_save_is_the_later_write() {
    let store = store();
    let map = quiet(&store).await;
    let first = map.save_if("a", 1, Expect::Absent).await.unwrap();
    let hot = map.clone();
    let mut left = 2;
    store.set_rule(move |call| {
        if call.method == Method::Commit && left > 0 {
            left -= 1;
            hot.insert("a", 10 + left);
        }
        Fault::None
    });
    let second = map.save_if("a", 2, Expect::At(first)).await.unwrap();
    assert_eq!(map.get_with_revision("a"), Some((11, second)));
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
    // A conflict loses no pending change: this save conflicts with the pending write.
    let error = map.save_if("a", 3, Expect::At(second)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!((map.get("a"), map.pending()), (Some(10), 1));
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 10)]));
}

/// In a map where the store wins, a write during a conflicting conditional save has not seen
/// the value of the other process, and must not overwrite it.
#[tokio::test(start_paused = true)]
async fn a_write_during_a_conditional_save_is_judged_by_the_policy() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map)
            .conflicts(persistify::OnConflict::StoreWins)
            .batch(1_000, HOUR)
    })
    .await;
    let first = map.save_if("a", 1, Expect::Absent).await.unwrap();
    write_as_another(store.inner(), vec![put("a", 9)]).await;
    let hot = map.clone();
    store.set_rule(move |call| {
        if call.method == Method::Commit && call.number == 2 {
            hot.insert("a", 2);
        }
        Fault::None
    });
    let error = map.save_if("a", 3, Expect::At(first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(map.get("a"), Some(2));
    map.flush().await.unwrap();
    assert_eq!(map.get("a"), Some(9));
    assert_eq!(stored(&store).await, pairs([("a", 9)]));
    // A write that follows this map's own save is no conflict.
    let second = map.save_if("a", 4, Expect::Present).await.unwrap();
    map.insert("a", 5);
    map.batch().insert("b", 1).commit().await.unwrap();
    map.insert("b", 2);
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 5), ("b", 2)]));
    assert!(map.get_with_revision("a").unwrap().1 > second);
    assert_eq!(map.stats().conflicts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_removal_or_clear_during_a_conditional_save_is_the_later_write() {
    for clear in [true, false] {
        let store = store();
        let map = quiet(&store).await;
        let first = map.save_if("a", 1, Expect::Absent).await.unwrap();
        let hot = map.clone();
        store.set_rule(move |call| {
            match (call.method, clear) {
                (Method::Commit, true) => hot.clear(),
                (Method::Commit, false) => drop(hot.remove("a")),
                _ => {}
            }
            Fault::None
        });
        map.save_if("a", 2, Expect::At(first)).await.unwrap();
        store.behave();
        assert_eq!((map.get("a"), map.pending()), (None, 1));
        assert_eq!(stored(&store).await, pairs([("a", 2)]));
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, pairs([]));
    }
}

#[tokio::test(start_paused = true)]
async fn conditional_saves_at_the_same_time_share_a_commit_and_are_answered_one_by_one() {
    let store = store();
    let map = quiet(&store).await;
    let theirs = (0..50).map(|n| put(&format!("k{}", n * 2), 9)).collect();
    write_as_another(store.inner(), theirs).await;
    store.refuse_unnamed(["k1"]);
    let saves = (0..100).map(|n| {
        let map = map.clone();
        async move { map.save_if(format!("k{n}"), n, Expect::Absent).await }
    });
    let answers = futures_util::future::join_all(saves).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let key = format!("k{n}");
        let known = map.get_with_revision(&key);
        match answer {
            _ if n == 1 => {
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::Refused);
                assert_eq!(known, None);
            }
            Ok(revision) => assert_eq!(known, Some((u32::try_from(n).unwrap(), revision))),
            Err(error) => {
                assert_eq!((error.kind(), n % 2), (ErrorKind::Conflict, 0));
                let found = error.found().unwrap().revision;
                assert_eq!(error.keys(), [key.into()]);
                assert_eq!(known, Some((9, found)));
            }
        }
    }
    // One commit that was refused because of one key, then one commit for each save.
    assert_eq!(store.calls(Method::Commit), 101);
    store.behave();
    let saves = (0..100).map(|n| map.save_if(format!("k{n}"), 0, Expect::Any));
    for saved in futures_util::future::join_all(saves).await {
        saved.unwrap();
    }
    assert_eq!(store.calls(Method::Commit), 102);
    assert!(map.snapshot().values().all(|n| *n == 0));
    // Saves of the same key are committed one after the other.
    let saves = (0..5).map(|n| map.save_if("once", n, Expect::Absent));
    let answers = futures_util::future::join_all(saves).await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
    assert_eq!(map.get("once"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_cannot_hold_fails_at_once() {
    let map = open::<f64>(Memory::new(), "map", as_it_is).await;
    let error = map.save_if("a", f64::NAN, Expect::Any).await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Refused, 1));
    assert_eq!(
        (map.get("a"), map.pending(), map.refused().len()),
        (None, 0, 0)
    );
    // Before the first poll, nothing happens.
    drop(map.save_if("a", 1.0, Expect::Any));
    settle().await;
    assert_eq!(map.get("a"), None);
    map.close().await.unwrap();
    let error = map.save_if("a", 1.0, Expect::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_future_is_dropped_takes_place() {
    let store = store();
    let map = quiet(&store).await;
    let hang = store.hang_next();
    let save = map.save_if("a", 1, Expect::Absent);
    tokio::select! {
        biased;
        _ = save => panic!("it hangs"),
        () = hang.hangs() => {}
    }
    hang.release();
    map.save_if("b", 1, Expect::Absent).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 1)]));
    assert_eq!(map.get("a"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn saves_on_condition_do_not_keep_others_waiting_nor_close_losing_them() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(1, HOUR)).await;
    let busy = map.clone();
    let busy = tokio::spawn(async move {
        for n in 0..100_000 {
            if let Err(error) = busy.save_if("busy", n, Expect::Any).await {
                return (n, error.kind());
            }
        }
        unreachable!()
    });
    settle().await;
    map.insert("plain", 1);
    settle().await;
    assert_eq!(stored(&store).await.get("plain").unwrap(), "1");
    map.close().await.unwrap();
    let (saved, ended) = busy.await.unwrap();
    assert_eq!(ended, ErrorKind::Closed);
    assert_eq!(stored(&store).await["busy"], (saved - 1).to_string());
}
