//! Conditional saves whose outcome is unknown.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_resolved_not_guessed() {
    let lost = Fault::Lost(ErrorKind::Unavailable);
    let after = Fault::After(ErrorKind::Unavailable);
    for (fault, applied) in [(lost.clone(), true), (after.clone(), true)] {
        let store = store();
        let map = quiet(&store).await;
        map.insert_and_save("a", 1).await.unwrap();
        let (_, first) = map.get_with_revision("a").unwrap();
        store.fail_next(2, fault);
        let saved = map.save_if("a", 2, Expect::At(first)).await;
        assert_eq!(saved.is_ok(), applied);
        let batches = store.batches();
        assert_eq!(batches.len(), 4);
        assert!(batches[1] == batches[2] && batches[2] == batches[3]);
        let stored = revision_of(&store, "a").await;
        assert_eq!(map.get_with_revision("a"), Some((2, stored)));
        assert_eq!(saved.unwrap(), stored);
        assert_eq!(map.stats().failed_attempts, 2);
    }
}

/// The first attempt hung and was given up. The second found a conflict, and the caller got
/// that error. Then the entry became what the first attempt had expected, and the first attempt
/// was applied after all.
#[tokio::test(start_paused = true)]
async fn a_commit_that_was_answered_as_a_conflict_does_not_land_late() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).commit_timeout(SECOND)
    })
    .await;
    let hang: Hang = store.hang_next();
    let save = tokio::spawn({
        let map = map.clone();
        async move { map.save_if("a", 1, Expect::Absent).await }
    });
    hang.hangs().await;
    write_as_another(store.inner(), vec![put("a", 9)]).await;
    let error = save.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(!error.may_have_applied());
    assert_eq!(map.get("a"), Some(9));
    write_as_another(store.inner(), vec![Change::delete("a")]).await;
    let late = hang.land().await;
    assert_eq!(late.len(), 1);
    let late = late[0].as_ref().unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Superseded);
    assert_eq!(stored(&store).await, pairs([]));
}

/// The first attempt hung, and the second found a conflict. Before a later batch could fence the
/// first attempt, the entry became what that had expected, and it was applied. The caller got an
/// error that said nothing was written.
#[tokio::test(start_paused = true)]
async fn a_commit_that_lands_before_its_fence_is_answered_as_a_success() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).commit_timeout(SECOND)
    })
    .await;
    let (first, fence) = (Hang::new(), Hang::new());
    let hangs = [first.clone(), fence.clone()];
    store.set_rule(move |call| match call.number {
        1 => Fault::Hang(hangs[0].clone()),
        3 => Fault::Hang(hangs[1].clone()),
        _ => Fault::None,
    });
    let save = tokio::spawn({
        let map = map.clone();
        async move { map.save_if("a", 1, Expect::Absent).await }
    });
    first.hangs().await;
    write_as_another(store.inner(), vec![put("a", 9)]).await;
    fence.hangs().await;
    write_as_another(store.inner(), vec![Change::delete("a")]).await;
    first.land().await.remove(0).unwrap();
    save.await.unwrap().unwrap();
    assert_eq!(map.get("a"), Some(1));
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
}

/// The answer to the batch that fenced the first attempt was lost. The repeat of that batch is then
/// superseded, but the save still reports its conflict.
#[tokio::test(start_paused = true)]
async fn a_conflict_whose_fence_landed_unheard_is_told_as_a_conflict() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
        steady(map).commit_timeout(SECOND)
    })
    .await;
    let hang = Hang::new();
    let first = hang.clone();
    store.set_rule(move |call| match call.number {
        1 => Fault::Hang(first.clone()),
        3 => Fault::After(ErrorKind::Unavailable),
        _ => Fault::None,
    });
    let save = tokio::spawn({
        let map = map.clone();
        async move { map.save_if("a", 1, Expect::Absent).await }
    });
    hang.hangs().await;
    write_as_another(store.inner(), vec![put("a", 9)]).await;
    let error = save.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.found().is_some());
    assert_eq!(map.get("a"), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_conditional_save_errs_after_the_last_attempt_and_memory_follows_the_outcome() {
    for landed in [true, false] {
        let store = store();
        let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
            steady(map).retry(impatient()).batch(1_000, HOUR)
        })
        .await;
        map.insert_and_save("a", 1).await.unwrap();
        let fault = if landed {
            Fault::After(ErrorKind::Unavailable)
        } else {
            Fault::Lost(ErrorKind::Unavailable)
        };
        store.fail_next(1, fault);
        let saved = map.save_if("a", 2, Expect::Present).await;
        store.down(ErrorKind::Unavailable);
        let error = saved.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.may_have_applied());
        // While the outcome is unknown, no reader sees the value and no caller hangs.
        assert_eq!(map.get("a"), Some(1));
        assert!(!map.health().borrow().is_healthy());
        map.insert("b", 1);
        for error in [
            map.flush().await.unwrap_err(),
            map.insert_and_save("c", 1).await.map(drop).unwrap_err(),
            map.save_if("c", 1, Expect::Any)
                .await
                .map(drop)
                .unwrap_err(),
            map.close().await.unwrap_err(),
            map.reload().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        assert_eq!(map.get("a"), Some(1));
        store.up();
        sleep(2 * SECOND).await;
        settle().await;
        assert_eq!(map.get("a"), Some(2));
        assert!(map.health().borrow().is_healthy());
        map.flush().await.unwrap();
        let expected = pairs([("a", 2), ("b", 1), ("c", 1)]);
        assert_eq!(stored(&store).await, expected);
        map.close().await.unwrap();
    }
}
