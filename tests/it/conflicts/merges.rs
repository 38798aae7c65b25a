//! Conflicts that are resolved by a merge.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_merge_is_in_memory_and_in_the_store() {
    let store = store();
    let here = open_on(&store, sum()).await;
    let there = open_on(&store, sum()).await;
    let mut conflicts = here.conflicts();
    there.insert_and_save("a", 1).await.unwrap();
    // The save waits for the merged value to be committed.
    here.insert_and_save("a", 20).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 21)]));
    assert_eq!((here.get("a"), here.pending()), (Some(21), 0));
    assert_eq!(told(&mut conflicts), ended("a", Resolution::Merged));
    there.update("a", |n| *n += 300);
    there.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 322)]));
    assert_eq!((here.stats().conflicts, there.stats().conflicts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_merge_takes_what_was_written_last() {
    let store = store();
    let here = open_on(&store, sum()).await;
    let there = open_on(&store, OnConflict::LastWrite).await;
    there.insert_and_save("a", 1).await.unwrap();
    let hang = store.hang_next();
    here.insert("a", 10);
    let flush = tokio::spawn({
        let here = here.clone();
        async move { here.flush().await }
    });
    hang.hangs().await;
    here.insert("a", 20);
    hang.release();
    flush.await.unwrap().unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 21)]));
    assert_eq!(here.stats().conflicts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_merge_of_a_value_and_a_removal_keeps_the_value() {
    let store = store();
    let here = open_on(&store, sum()).await;
    here.extend([("removed here", 1), ("removed there", 1), ("removed", 1)]);
    here.flush().await.unwrap();
    let there = open_on(&store, OnConflict::LastWrite).await;
    let mut conflicts = here.conflicts();
    there.insert("removed here", 2);
    there.remove("removed there");
    there.remove("removed");
    there.flush().await.unwrap();
    let removed = here.remove_and_save("removed here").await.unwrap_err();
    assert_eq!(removed.kind(), ErrorKind::Conflict);
    assert_eq!(
        told(&mut conflicts),
        ended("removed here", Resolution::StoreWon)
    );
    here.insert_and_save("removed there", 3).await.unwrap();
    assert_eq!(
        told(&mut conflicts),
        ended("removed there", Resolution::MapWon)
    );
    // Both have removed it, so there is no conflict.
    here.remove_and_save("removed").await.unwrap();
    assert!(told(&mut conflicts).is_empty());
    let expected = pairs([("removed here", 2), ("removed there", 3)]);
    assert_eq!(stored(&store).await, expected);
    assert_eq!(crate::support::in_memory(&here), expected);
}

#[tokio::test(start_paused = true)]
async fn a_closure_may_hold_values_of_its_own() {
    let store = store();
    let calls = Arc::new(AtomicU32::new(0));
    let counting = calls.clone();
    let here = open_on(
        &store,
        OnConflict::merge(move |mine: u32, theirs| {
            counting.fetch_add(1, SeqCst);
            mine.max(theirs)
        }),
    )
    .await;
    let there = open_on(&store, OnConflict::LastWrite).await;
    there.insert_and_save("a", 5).await.unwrap();
    here.insert_and_save("a", 3).await.unwrap();
    assert_eq!((here.get("a"), calls.load(SeqCst)), (Some(5), 1));
}

/// Another process writes the key before each of the first five attempts.
#[tokio::test(start_paused = true)]
async fn a_merge_repeats_until_it_meets_no_other_write() {
    let store = store();
    let here = open_on(&store, sum()).await;
    let behind = store.inner().clone();
    store.set_rule(move |call| {
        if let 1..=5 = call.number {
            let write = vec![put("a", &call.number.to_string())];
            write_as_another(&behind, write).now_or_never().unwrap();
        }
        Fault::None
    });
    here.insert_and_save("a", 1_000).await.unwrap();
    let total = 1_000 + (1..=5).sum::<u32>();
    assert_eq!(stored(&store).await, pairs([("a", total)]));
    assert_eq!((here.get("a"), here.stats().conflicts), (Some(total), 5));
}
