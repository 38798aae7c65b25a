//! Commits of unknown outcome, and commits that are applied late.

use persistify::{
    ErrorKind, PersistentMap, RetryPolicy,
    testing::{Fault, Hang, Method},
};

use crate::support::{
    HOUR, SECOND, Store, builder, impatient, in_memory, keys, open, open_numbers, pairs, settle,
    steady, store, stored, told,
};

#[tokio::test(start_paused = true)]
async fn a_known_failure_is_followed_by_a_new_batch_of_the_newest_values() {
    let store = store();
    let map = open_numbers(&store).await;
    let hot = map.clone();
    store.set_rule(move |call| {
        if call.method != Method::Commit || call.number > 1 {
            return Fault::None;
        }
        hot.extend([("a", 2), ("c", 3)]);
        hot.remove("b");
        Fault::Before(ErrorKind::Unavailable)
    });
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    map.flush().await.unwrap();
    let batches = store.batches();
    assert_ne!(batches[0].id, batches[1].id);
    assert_eq!(batches[0].id.writer, batches[1].id.writer);
    assert_eq!(told(&batches[1])["a"].as_deref(), Some("2"));
    assert!(!told(&batches[1]).contains_key("b"));
    assert_eq!(stored(&store).await, pairs([("a", 2), ("c", 3)]));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_followed_by_the_same_batch_until_it_is_known() {
    for fault in [
        Fault::Lost(ErrorKind::Unavailable),
        Fault::After(ErrorKind::Unavailable),
    ] {
        let store = store();
        let map = open_numbers(&store).await;
        map.extend([("a", 1), ("b", 1), ("c", 1)]);
        let hot = map.clone();
        let rule_fault = fault.clone();
        store.set_rule(move |call| match call.number {
            1 => {
                hot.insert("a", 2);
                hot.remove("b");
                hot.insert("d", 2);
                rule_fault.clone()
            }
            // This one was certainly not applied; the first may have been.
            2 => Fault::Before(ErrorKind::Unavailable),
            _ => Fault::None,
        });
        map.flush().await.unwrap();
        map.flush().await.unwrap();
        let batches = store.batches();
        assert_eq!(batches[0], batches[1], "{fault:?}");
        assert_eq!(batches[0], batches[2], "{fault:?}");
        assert!(batches[3].id.sequence > batches[0].id.sequence);
        assert_eq!(told(&batches[3])["b"], None);
        assert_eq!(batches.len(), 4);
        assert_eq!(stored(&store).await, pairs([("a", 2), ("c", 1), ("d", 2)]));
        assert_eq!(map.pending(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_identical_batch_goes_also_after_the_attempts_are_spent() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.fail_next(1, Fault::After(ErrorKind::Unusable));
    assert!(map.insert_and_save("a", 1).await.is_err());
    assert_eq!(map.pending(), 1);
    store.down(ErrorKind::Unavailable);
    map.insert("a", 2);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(map.pending(), 1);
    store.up();
    map.health()
        .wait_for(|health| health.is_healthy())
        .await
        .unwrap();
    map.flush().await.unwrap();
    let (last, repeats) = { store.batches() }
        .split_last()
        .map(|(l, r)| (l.clone(), r.to_vec()))
        .unwrap();
    assert!(repeats.len() > 5);
    assert!(repeats.iter().all(|batch| *batch == repeats[0]));
    assert_ne!(last.id, repeats[0].id);
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
}

fn timed(store: &Store) -> persistify::PersistentMapBuilder<u32> {
    builder(store).batch(1_000, HOUR).commit_timeout(SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hung_and_was_given_up_lands_late_and_changes_nothing() {
    let store = store();
    let map = timed(&store).open().await.unwrap();
    let hang = store.hang_next();
    map.insert_and_save("a", 1).await.unwrap();
    assert_eq!(store.batches()[0], store.batches()[1]);
    map.insert_and_save("a", 2).await.unwrap();
    map.remove_and_save("a").await.unwrap();
    map.insert_and_save("b", 3).await.unwrap();
    let late = hang.land().await;
    assert_eq!(late[0].as_ref().unwrap_err().kind(), ErrorKind::Superseded);
    assert_eq!(stored(&store).await, pairs([("b", 3)]));
    assert_eq!(in_memory(&map), pairs([("b", 3)]));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_lands_before_its_repeat_is_applied_once() {
    let store = store();
    let map = timed(&store).open().await.unwrap();
    let hang = Hang::new();
    store.fail_next(2, Fault::Hang(hang.clone()));
    let saved = tokio::spawn({
        let map = map.clone();
        async move { map.insert_and_save("a", 1).await }
    });
    store.begun(Method::Commit, 2).await;
    map.insert("a", 2);
    let landed = hang.land().await;
    assert!(landed.iter().all(|answer| answer.is_ok()));
    assert_eq!(landed[0].as_ref().unwrap(), landed[1].as_ref().unwrap());
    saved.await.unwrap().unwrap();
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
    assert_eq!(map.stats().commits, 2);
}

/// The store must not go back while commits fail, hang, and are applied late.
#[tokio::test(start_paused = true)]
async fn the_store_never_goes_back_to_an_older_value() {
    let store = store();
    let policy = RetryPolicy::default().max_attempts(2).probe_delay(SECOND);
    let map = timed(&store).retry(policy).open().await.unwrap();
    let hang = Hang::new();
    let mut last = [0; 3];
    for n in 1..400_u32 {
        let fault = match n % 7 {
            0 => Fault::Before(ErrorKind::Unavailable),
            1 => Fault::Lost(ErrorKind::Unavailable),
            2 => Fault::After(ErrorKind::Unavailable),
            3 => Fault::Hang(hang.clone()),
            _ => Fault::None,
        };
        store.fail_next(u64::from(n % 3), fault);
        for key in 0..=n % 3 {
            map.insert(key.to_string(), n);
        }
        if n % 2 == 0 {
            // The flush may fail; the change stays pending.
            let _ = map.flush().await;
        }
        if n % 5 == 0 {
            hang.land().await;
        }
        settle().await;
        let stored = stored(&store).await;
        for (key, last) in last.iter_mut().enumerate() {
            let now = stored
                .get(&key.to_string())
                .map_or(0, |n| n.parse().unwrap());
            assert!(now >= *last, "{key} went from {last} back to {now}");
            *last = now;
        }
    }
    store.behave();
    map.close().await.unwrap();
    hang.land().await;
    assert_eq!(stored(&store).await, in_memory(&map));
}

#[tokio::test(start_paused = true)]
async fn a_removal_of_what_may_have_landed_is_told_to_the_store() {
    for fault in [
        Fault::Lost(ErrorKind::Unavailable),
        Fault::After(ErrorKind::Unavailable),
    ] {
        let store = store();
        let map = open_numbers(&store).await;
        let removing = map.clone();
        store.set_rule(move |call| {
            if call.method != Method::Commit || call.number > 1 {
                return Fault::None;
            }
            removing.remove("a");
            fault.clone()
        });
        map.insert("a", 1);
        map.flush().await.unwrap();
        map.close().await.unwrap();
        let again = open_numbers(&store).await;
        assert_eq!(again.get("a"), None);
    }
}

/// A batch was applied, its answer was lost, and its repeat was refused for one of its keys.
/// The refused key was taken for one that the store never had, so its removal was not written,
/// and it came back with the next open.
#[tokio::test(start_paused = true)]
async fn a_removal_of_what_was_refused_after_it_may_have_landed_is_told() {
    for named in [true, false] {
        let store = store();
        let map = open_numbers(&store).await;
        store.fail_next(1, Fault::After(ErrorKind::Unavailable));
        if named {
            store.refuse(["a"]);
        } else {
            store.refuse_unnamed(["a"]);
        }
        map.extend([("a", 1), ("b", 1)]);
        let error = map.flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        map.remove("a");
        map.remove("b");
        map.close().await.unwrap();
        assert!(stored(&store).await.is_empty(), "named: {named}");
    }
}

/// The store refused a batch with an error that may have applied. The keys were sent again
/// under new sequences, although the first batch could still be applied.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_may_have_landed_is_an_unknown_outcome() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.fail_next(1, Fault::After(ErrorKind::Refused));
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap_err();
    map.flush().await.unwrap();
    assert_eq!(store.batches()[0], store.batches()[1]);
    assert!(map.refused().is_empty());
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_clear_during_an_unknown_outcome_brings_nothing_back() {
    for fault in [
        Fault::Lost(ErrorKind::Unavailable),
        Fault::After(ErrorKind::Unavailable),
    ] {
        let store = store();
        let map = open_numbers(&store).await;
        let clearing = map.clone();
        store.set_rule(move |call| {
            if call.method != Method::Commit || call.number > 1 {
                return Fault::None;
            }
            clearing.clear();
            clearing.insert("c", 3);
            fault.clone()
        });
        map.extend([("a", 1), ("b", 1)]);
        map.flush().await.unwrap();
        map.insert("d", 4);
        map.remove("c");
        map.close().await.unwrap();
        assert_eq!(stored(&store).await, pairs([("d", 4)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_after_a_clear_is_not_taken_for_the_one_in_flight() {
    let unavailable = ErrorKind::Unavailable;
    for fault in [
        Fault::None,
        Fault::Before(unavailable),
        Fault::Lost(unavailable),
        Fault::After(unavailable),
        Fault::Before(ErrorKind::Refused),
    ] {
        let store = store();
        let map = open_numbers(&store).await;
        map.extend([("a", 1), ("b", 1)]);
        let clearing = map.clone();
        let rule_fault = fault.clone();
        store.set_rule(move |call| {
            if call.method != Method::Commit || call.number > 1 {
                return Fault::None;
            }
            clearing.clear();
            clearing.insert("a", 2);
            assert_eq!(clearing.pending(), 2);
            rule_fault.clone()
        });
        map.flush().await.unwrap();
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, pairs([("a", 2)]), "{fault:?}");
        assert_eq!((map.pending(), map.refused().len()), (0, 0));
        assert_eq!(in_memory(&map), pairs([("a", 2)]));
    }
}

#[tokio::test(start_paused = true)]
async fn writes_go_on_while_a_commit_hangs() {
    let store = store();
    let map: PersistentMap<u32> = open_numbers(&store).await;
    map.extend([("a", 1), ("b", 1)]);
    let hang = store.hang_next();
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    map.insert("a", 2);
    map.remove("b");
    map.insert("c", 3);
    assert_eq!(map.pending(), 3);
    assert_eq!((map.get("a"), map.get("b"), map.len()), (Some(2), None, 2));
    hang.release();
    flush.await.unwrap().unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 1)]));
    map.flush().await.unwrap();
    assert_eq!(keys(&store.batches()[1]), ["a", "b", "c"]);
    assert_eq!(stored(&store).await, pairs([("a", 2), ("c", 3)]));
}

/// After the last attempt, a change with an unknown outcome is in no queue: it was pending, but
/// `oldest_pending` was `None`. After the next write, it was the age of that write.
#[tokio::test(start_paused = true)]
async fn a_change_of_unknown_outcome_counts_as_the_oldest_pending_change() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.set_rule(|_| Fault::Lost(ErrorKind::Unavailable));
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    tokio::time::sleep(HOUR).await;
    assert!(map.stats().oldest_pending.unwrap() >= HOUR);
    map.insert("b", 1);
    assert!(map.stats().oldest_pending.unwrap() >= HOUR);
    store.behave();
    map.flush().await.unwrap();
    assert_eq!((map.pending(), map.stats().oldest_pending), (0, None));
}

/// A change that came in during the probe of a store that had been down was committed with the
/// probe, and `oldest_pending` was `None`.
#[tokio::test(start_paused = true)]
async fn a_write_during_a_probe_counts_as_the_oldest_pending_change() {
    let store = store();
    let map = open(store.clone(), "map", |map| steady(map).retry(impatient())).await;
    store.down(ErrorKind::Unavailable);
    map.insert("a", 1);
    map.flush().await.unwrap_err();
    map.remove("a");
    let (asked, saved) = (Hang::new(), Hang::new());
    let (ping, commit) = (asked.clone(), saved.clone());
    store.set_rule(move |call| match call.method {
        Method::Ping => Fault::Hang(ping.clone()),
        Method::Commit => Fault::Hang(commit.clone()),
        _ => Fault::None,
    });
    store.up();
    asked.hangs().await;
    let late = map.clone();
    let late = tokio::spawn(async move { late.insert_and_save("b", 1).await });
    settle().await;
    asked.release();
    saved.hangs().await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(map.pending(), 1);
    assert!(map.stats().oldest_pending.unwrap() >= SECOND);
    saved.release();
    late.await.unwrap().unwrap();
    assert_eq!((map.pending(), map.stats().oldest_pending), (0, None));
}
