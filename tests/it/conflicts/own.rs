//! A map never conflicts with its own writes.

use super::*;
use crate::support::{open, open_caching};
use persistify::{Batch, Committed, Expect, Layer, Result, RetryPolicy};

const POLICIES: [fn() -> OnConflict<u32>; 2] = [|| OnConflict::StoreWins, sum];

#[tokio::test(start_paused = true)]
async fn a_map_alone_meets_no_conflict() {
    for policy in POLICIES {
        let store = store();
        let map = open_on(&store, policy()).await;
        for n in 0..3 {
            map.insert_and_save("a", n).await.unwrap();
            map.update_and_save("a", |n| *n += 1).await.unwrap();
            map.remove_and_save("a").await.unwrap();
            map.insert("a", n);
            map.remove("a");
            map.insert_and_save("a", n).await.unwrap();
            map.remove("a");
            map.insert_and_save("a", n + 1).await.unwrap();
            map.clear();
            map.insert("a", 7);
            map.clear();
            map.insert_and_save("a", 8).await.unwrap();
            map.clear_and_save().await.unwrap();
            map.insert_and_save("a", n).await.unwrap();
            map.reload().await.unwrap();
        }
        map.insert("a", 9);
        map.close().await.unwrap();
        let again = open_on(&store, policy()).await;
        again.insert_and_save("a", 10).await.unwrap();
        assert_eq!(stored(&store).await, pairs([("a", 10)]));
        assert_eq!(map.stats().conflicts + again.stats().conflicts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn writes_and_clears_during_its_own_commits_are_none() {
    for policy in POLICIES {
        for (first, then) in [(true, true), (true, false), (false, true), (false, false)] {
            let store = store();
            let map = open_on(&store, policy()).await;
            map.insert_and_save("a", 1).await.unwrap();
            for clear in [first, then] {
                let hang = store.hang_next();
                map.insert("a", 2);
                map.insert("b", 2);
                let flush = tokio::spawn({
                    let map = map.clone();
                    async move { map.flush().await }
                });
                hang.hangs().await;
                if clear {
                    map.clear();
                }
                map.insert("a", 3);
                map.remove("b");
                hang.release();
                flush.await.unwrap().unwrap();
            }
            map.flush().await.unwrap();
            assert_eq!(stored(&store).await, pairs([("a", 3)]));
            assert_eq!(map.stats().conflicts, 0);
        }
    }
}

/// A commit was applied, its answer was lost, and its repeat was refused. Its outcome then
/// stays unknown, and the map has to recognize its own value.
#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_fate_is_recognized() {
    let after = || Fault::After(ErrorKind::Unavailable);
    let lost = || Fault::Lost(ErrorKind::Unavailable);
    let end = [ErrorKind::Refused, ErrorKind::Superseded];
    for (policy, ended) in POLICIES.iter().flat_map(|p| end.map(|end| (p, end))) {
        for (known, landed) in [(false, true), (true, true), (false, false), (true, false)] {
            let store = store();
            let map = open_on(&store, policy()).await;
            if known {
                map.extend([("a", 1), ("b", 1), ("c", 1)]);
                map.flush().await.unwrap();
            }
            store.fail_next(1, if landed { after() } else { lost() });
            store.fail_nth(2, Fault::Before(ended));
            map.extend([("a", 2), ("b", 2), ("c", 2)]);
            // This flush may fail as refused or as superseded.
            let _ = map.flush().await;
            map.retry_refused();
            map.insert("a", 3);
            map.remove("b");
            map.flush().await.unwrap();
            assert_eq!(stored(&store).await, pairs([("a", 3), ("c", 2)]));
            let figures = map.stats();
            assert_eq!((figures.conflicts, figures.pending), (0, 0));
            // Once the outcome is settled, the map forgets its value: an equal value now counts as
            // written by another process.
            let there = open_on(&store, OnConflict::LastWrite).await;
            there.insert_and_save("a", 2).await.unwrap();
            map.insert("a", 4);
            map.flush().await.unwrap();
            assert_eq!(map.stats().conflicts, 1, "{known} {landed} {ended:?}");
        }
    }
}

/// After a commit with an unknown outcome, another process wrote the key. The map must not take
/// that value for its own.
#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_fate_does_not_hide_anothers() {
    for landed in [true, false] {
        let store = store();
        let map = open_on(&store, OnConflict::StoreWins).await;
        let unknown = if landed { Fault::After } else { Fault::Lost };
        store.fail_next(1, unknown(ErrorKind::Unavailable));
        store.fail_nth(2, Fault::Before(ErrorKind::Refused));
        map.insert("a", 1);
        map.flush().await.unwrap_err();
        let there = open_on(&store, OnConflict::LastWrite).await;
        there.insert_and_save("a", 5).await.unwrap();
        let error = map.insert_and_save("a", 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(map.get("a"), Some(5));
        assert_eq!(stored(&store).await, pairs([("a", 5)]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_comes_again_with_what_was_left_out() {
    for (policy, expected) in [(OnConflict::StoreWins, 1), (sum(), 21)] {
        for fault in [
            Fault::Lost(ErrorKind::Unavailable),
            Fault::After(ErrorKind::Unavailable),
            Fault::Before(ErrorKind::Unavailable),
        ] {
            let store = store();
            let here = open_on(&store, policy.clone()).await;
            let there = open_on(&store, OnConflict::LastWrite).await;
            there.insert_and_save("a", 1).await.unwrap();
            store.fail_next(2, fault.clone());
            here.extend([("a", 20), ("b", 2)]);
            here.flush().await.unwrap();
            let expected = pairs([("a", expected), ("b", 2)]);
            assert_eq!(stored(&store).await, expected, "{fault:?}");
            assert_eq!(crate::support::in_memory(&here), expected);
            assert_eq!(here.stats().conflicts, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_conflict() {
    for policy in POLICIES {
        let store = store();
        let retry = RetryPolicy::default().max_attempts(2).probe_delay(SECOND);
        let map = crate::support::builder(&store)
            .conflicts(policy())
            .retry(retry);
        let map = map.open().await.unwrap();
        map.insert_and_save("a", 1).await.unwrap();
        store.fail_next(1, Fault::After(ErrorKind::Unavailable));
        store.fail_nth(2, Fault::Before(ErrorKind::Unavailable));
        store.fail_nth(3, Fault::Before(ErrorKind::Unusable));
        map.extend([("a", 2), ("b", 2)]);
        map.flush().await.unwrap_err();
        map.insert("a", 3);
        map.remove("b");
        map.insert("b", 3);
        map.health().wait_for(|h| h.is_healthy()).await.unwrap();
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, pairs([("a", 3), ("b", 3)]));
        assert_eq!(map.stats().conflicts, 0);
    }
}

/// A layer that acknowledges commits before its store does, so it has no revision to return.
#[derive(Clone, Debug)]
struct Ahead(Store);

#[persistify::async_trait]
impl Layer for Ahead {
    fn inner(&self) -> &dyn Provider {
        &self.0
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let committed = self.inner().commit(batch).await?;
        Ok(Committed::default().with_skipped(committed.skipped))
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_a_revision_is_recognized() {
    for policy in POLICIES {
        let store = store();
        let map = open::<u32>(Ahead(store.clone()), "map", |map| map.conflicts(policy())).await;
        for n in 0..3 {
            map.insert_and_save("a", n).await.unwrap();
            map.update_and_save("a", |n| *n += 10).await.unwrap();
        }
        map.remove_and_save("a").await.unwrap();
        assert!(stored(&store).await.is_empty());
        map.insert_and_save("a", 5).await.unwrap();
        assert_eq!(map.stats().conflicts, 0);
        let there = open_on(&store, OnConflict::LastWrite).await;
        there.insert_and_save("a", 6).await.unwrap();
        map.insert("a", 7);
        map.flush().await.unwrap();
        assert_eq!(map.stats().conflicts, 1);
    }
}

/// A map did not remember the values of its conditional commits. If their revision was unknown, it
/// took them for another process's.
#[tokio::test(start_paused = true)]
async fn a_conditional_commit_without_a_revision_is_recognized() {
    for policy in POLICIES {
        for several in [false, true] {
            let store = store();
            let way = Ahead(store.clone());
            let map = open::<u32>(way.clone(), "map", |map| map.conflicts(policy())).await;
            let commit = async |value| {
                if several {
                    let mut tx = persistify::Transaction::new(&way);
                    tx.insert(&map, "a", value).insert(&map, "b", value);
                    tx.commit().await.unwrap();
                } else {
                    map.save_if("a", value, Expect::Any).await.unwrap();
                }
            };
            for n in 0..3 {
                commit(n).await;
                map.insert_and_save("a", n + 10).await.unwrap();
                commit(n + 20).await;
            }
            map.remove_and_save("a").await.unwrap();
            assert_eq!((map.get("a"), map.stats().conflicts), (None, 0));
            // Commits before the last one are forgotten: an equal value now
            // counts as written by another process.
            map.insert_and_save("a", 5).await.unwrap();
            commit(6).await;
            let there = open_on(&store, OnConflict::LastWrite).await;
            there.insert_and_save("a", 5).await.unwrap();
            map.insert("a", 7);
            map.flush().await.unwrap();
            assert_eq!(map.stats().conflicts, 1);
        }
    }
}

/// An entry expired before its shorter TTL was saved. The stored value is the map's own, although
/// it has not expired in the store.
#[tokio::test]
async fn an_entry_that_expires_earlier_in_memory_is_no_conflict() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open_caching::<u32>(store.clone(), "map", |map| {
        map.clock(clock.clone()).conflicts(OnConflict::StoreWins)
    })
    .await;
    map.insert_with_ttl("a", 1, 100 * SECOND);
    map.insert_with_ttl("b", 1, 100 * SECOND);
    map.flush().await.unwrap();
    map.insert_with_ttl("a", 2, SECOND);
    map.insert_with_ttl("b", 2, SECOND);
    clock.advance(SECOND);
    map.insert("a", 3);
    settle().await;
    map.flush().await.unwrap();
    let stored = crate::support::stored_values::<u32>(store.inner()).await;
    assert_eq!(
        stored,
        std::collections::HashMap::from([("a".to_owned(), 3)])
    );
    assert_eq!(map.stats().conflicts, 0);
    assert_eq!((map.get("a"), map.get("b")), (Some(3), None));
}
