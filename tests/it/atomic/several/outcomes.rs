//! Transactions whose commit fails, or whose outcome is unknown.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_map_that_cannot_save_keeps_the_others_for_no_time() {
    let (store, begun) = (store(), Instant::now());
    let (a, b) = (map(&store, "a").await, map(&store, "b").await);
    a.insert_and_save("x", 1).await.unwrap();
    b.insert("x", 1);
    // Only commits of `b` alone fail.
    store.set_rule(|call| match &call.batch {
        Some(batch) if batch.maps.iter().any(|part| part.map.as_str() == "b") => {
            Fault::Before(ErrorKind::Unusable)
        }
        _ => Fault::None,
    });
    for _ in 0..3 {
        let mut tx = Transaction::new(&store);
        tx.insert(&a, "x", 2).insert(&b, "x", 2);
        let error = tx.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(!error.may_have_applied());
        assert_eq!(error.map(), Some("b"));
    }
    assert!(begun.elapsed() < SECOND / 2, "{:?}", begun.elapsed());
    a.insert_and_save("y", 1).await.unwrap();
    assert!(a.health().borrow().is_healthy());
    assert!(!b.health().borrow().is_healthy());
    assert_eq!((a.get("x"), b.get("x"), b.pending()), (Some(1), Some(1), 1));
    store.behave();
    sleep(2 * SECOND).await;
    assert_eq!(stored(&store, "b").await, pairs([("x", 1)]));
}

/// The commit of a transaction fails with each fault, with and without further attempts.
#[tokio::test(start_paused = true)]
async fn a_transaction_with_any_outcome_leaves_memory_equal_to_the_store() {
    let (unavailable, unusable) = (ErrorKind::Unavailable, ErrorKind::Unusable);
    for fault in [
        Fault::Before(unavailable),
        Fault::Before(unusable),
        Fault::Lost(unavailable),
        Fault::Lost(unusable),
        Fault::After(unavailable),
        Fault::After(unusable),
        Fault::After(ErrorKind::Refused),
        Fault::Before(ErrorKind::Refused),
    ] {
        for attempts in [1, 3] {
            let store = store();
            let open = |name: &'static str| {
                let map = PersistentMap::builder(store.clone(), name).batch(1_000, HOUR);
                map.retry(impatient().max_attempts(attempts)).open()
            };
            let a: PersistentMap<u32> = open("a").await.unwrap();
            let b: PersistentMap<u32> = open("b").await.unwrap();
            a.insert_and_save("x", 1).await.unwrap();
            b.insert_and_save("x", 1).await.unwrap();
            let mut tx = Transaction::new(&store);
            tx.insert(&a, "x", 2).insert(&b, "x", 2);
            let (mut left, rule) = (1, fault.clone());
            store.set_rule(move |call| {
                if is_joint(call) && left > 0 {
                    left -= 1;
                    return rule.clone();
                }
                Fault::None
            });
            let done = tx.commit().await;
            let doubt = matches!(&done, Err(error) if error.may_have_applied());
            if doubt {
                // The outcome is unknown: callers do not hang, and readers see the old values.
                assert_eq!((a.get("x"), b.get("x")), (Some(1), Some(1)), "{fault:?}");
                assert!(!a.health().borrow().is_healthy());
                assert!(!b.health().borrow().is_healthy());
                sleep(2 * SECOND).await;
            }
            let stands = stored(&store, "a").await;
            assert_eq!(stands, stored(&store, "b").await, "{fault:?}");
            let value = a.get("x").unwrap();
            assert_eq!((stands, b.get("x")), (pairs([("x", value)]), Some(value)));
            assert_eq!(value == 2, done.is_ok() || doubt, "{fault:?} {attempts}");
            sleep(2 * SECOND).await;
            for map in [&a, &b] {
                assert!(map.health().borrow().is_healthy(), "{fault:?}");
                map.insert("y", 1);
                map.flush().await.unwrap();
                map.close().await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_of_unknown_outcome_shows_in_each_maps_health_and_hangs_none() {
    let store = store();
    let (a, b) = (map(&store, "a").await, map(&store, "b").await);
    let mut tx = Transaction::new(&store);
    tx.insert(&a, "x", 1).insert(&b, "x", 1);
    store.set_rule(|call| {
        if is_joint(call) {
            return Fault::After(ErrorKind::Unavailable);
        }
        Fault::None
    });
    assert!(tx.commit().await.unwrap_err().may_have_applied());
    for map in [&a, &b] {
        map.insert("y", 1);
        for error in [
            map.flush().await.unwrap_err(),
            map.insert_and_save("z", 1).await.map(drop).unwrap_err(),
            map.save_if("x", 5, Expect::Any)
                .await
                .map(drop)
                .unwrap_err(),
            map.close().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
    }
    let begun = Instant::now();
    let mut tx = Transaction::new(&store);
    tx.insert(&a, "x", 2).insert(&b, "x", 2);
    let error = tx.commit().await.unwrap_err();
    assert!(!error.may_have_applied());
    assert!(begun.elapsed() <= 2 * SECOND);
    store.behave();
    a.flush().await.unwrap();
    assert_eq!((a.get("x"), b.get("x")), (Some(1), Some(1)));
    a.close().await.unwrap();
    b.close().await.unwrap();
    let expected = pairs([("x", 1), ("y", 1), ("z", 1)]);
    assert_eq!(stored(&store, "a").await, expected);
    assert_eq!(stored(&store, "b").await, expected);
}

/// A commit with an unknown outcome was repeated again and again, even without any handle of
/// the maps left. It was then applied after the saves of new handles that had been opened
/// since.
#[tokio::test(start_paused = true)]
async fn a_transaction_in_flight_is_not_sent_again_after_its_maps_are_gone() {
    let store = store();
    let (a, b) = (map(&store, "a").await, map(&store, "b").await);
    store.set_rule(|call| {
        if is_joint(call) {
            Fault::Lost(ErrorKind::Unavailable)
        } else {
            Fault::None
        }
    });
    let mut tx = Transaction::new(&store);
    tx.insert(&a, "k", 1).insert(&b, "k", 1);
    assert!(tx.commit().await.unwrap_err().may_have_applied());
    drop((a, b));
    settle().await;
    let a = map(&store, "a").await;
    a.insert_and_save("k", 2).await.unwrap();
    store.behave();
    sleep(100 * SECOND).await;
    assert_eq!(stored(&store, "a").await, pairs([("k", 2)]));
}

/// As above, while the transaction still verifies that each map belongs to its store.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_waits_is_not_sent_after_its_maps_are_gone() {
    let store = store();
    let open = |name: &'static str| {
        let map = PersistentMap::<u32>::builder(store.clone(), name).batch(1_000, HOUR);
        map.retry(RetryPolicy::default().base_delay(SECOND).jitter(false))
            .open()
    };
    let (a, b) = (open("a").await.unwrap(), open("b").await.unwrap());
    let mut tx = Transaction::new(&store);
    tx.insert(&a, "k", 1).insert(&b, "k", 1);
    // The store first remembers the writer of each map; then each map is verified.
    store.fail_nth(3, Fault::Before(ErrorKind::Unavailable));
    let commit = tokio::spawn(tx.commit());
    store.ended(Method::Commit, 3).await;
    drop((a, b));
    settle().await;
    let a = open("a").await.unwrap();
    a.insert_and_save("k", 2).await.unwrap();
    assert_eq!(commit.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(stored(&store, "a").await, pairs([("k", 2)]));
}
