//! Writes just before or during a commit whose entries memory adopts afterwards.

use persistify::testing::Method;
use tokio::time::timeout;

use super::*;

/// Before its commit, a transaction verifies by empty batches that its maps are on the same store.
/// A write during that is later than the transaction.
#[tokio::test(start_paused = true)]
async fn a_write_just_before_a_transaction_is_sent_is_the_later_write() {
    let store = store();
    let map = map(&store).await;
    let hot = map.clone();
    store.set_rule(move |call| {
        let parts = call.batch.iter().flat_map(|batch| batch.maps.iter());
        let changes = parts.map(|part| part.changes.len()).sum::<usize>();
        if call.method == Method::Commit && changes == 0 {
            hot.insert("k", 9);
        }
        Fault::None
    });
    let mut tx = Transaction::new(&store);
    tx.insert(&map, "k", 1).insert(&map, "other", 1);
    tx.commit().await.unwrap();
    store.behave();
    assert_eq!((map.get("k"), map.pending()), (Some(9), 1));
    assert_eq!(stored(&store).await, pairs([("k", 1), ("other", 1)]));
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("k", 9), ("other", 1)]));
}

/// One of two saves in one commit is skipped, and its key was written meanwhile.
#[tokio::test(start_paused = true)]
async fn a_write_during_a_save_that_is_skipped_is_saved_later() {
    let store = store();
    let map = map(&store).await;
    let hot = map.clone();
    store.set_rule(move |call| {
        if call.method == Method::Commit {
            hot.insert("k", 9);
        }
        Fault::None
    });
    let (left_out, saved) = tokio::join!(
        map.save_if("k", 1, Expect::Present),
        map.save_if("other", 1, Expect::Absent),
    );
    store.behave();
    assert_eq!(left_out.unwrap_err().kind(), ErrorKind::Conflict);
    saved.unwrap();
    assert_eq!((map.get("k"), map.pending()), (Some(9), 1));
    timeout(100 * SECOND, map.flush()).await.unwrap().unwrap();
    assert_eq!(stored(&store).await, pairs([("k", 9), ("other", 1)]));
}
