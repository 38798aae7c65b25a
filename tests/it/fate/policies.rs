//! Maps that detect conflicts, and commits whose entries memory adopts afterwards.

use super::*;

async fn map(store: &Store) -> PersistentMap<u32> {
    let map = builder(store).retry(impatient()).batch(1_000, HOUR);
    map.conflicts(OnConflict::StoreWins).open().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_write_after_a_clear_does_not_conflict_with_a_cleared_entry() {
    for (commit, fault) in COMMITS
        .into_iter()
        .flat_map(|c| LOST.each_ref().map(|f| (c, f)))
    {
        let store = store();
        let map = map(&store).await;
        commit.lose(&store, &map, fault).await;
        map.clear();
        map.insert("k", 7);
        map.flush().await.unwrap();
        assert_eq!((map.get("k"), map.pending()), (Some(7), 0), "{commit:?}");
        assert_eq!(stored(&store).await, pairs([("k", 7)]));
        map.insert_and_save("k", 8).await.unwrap();
    }
}

/// Memory learns nothing about an entry that a batch only requires. A later write has not seen the
/// stored value, so it conflicts.
#[tokio::test(start_paused = true)]
async fn a_required_entry_that_is_not_in_memory_is_not_overwritten() {
    let store = store();
    let map = map(&store).await;
    let theirs = Change::put("theirs", Payload::json("5"), None);
    write_as_another(store.inner(), vec![theirs]).await;
    let mut batch = map.batch();
    batch.insert("k", 1).require("theirs", Expect::Present);
    batch.commit().await.unwrap();
    assert_eq!((map.get("theirs"), map.len(), map.pending()), (None, 1, 0));
    let error = map.insert_and_save("theirs", 7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(map.get("theirs"), Some(5));
    assert_eq!(stored(&store).await, pairs([("k", 1), ("theirs", 5)]));
}
