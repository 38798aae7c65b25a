//! Chained calls that fill batches and transactions.

use persistify::{Expect, Transaction};

use super::quiet;
use crate::support::{pairs, store, stored};

/// A batch could be chained, but a transaction could not, so the same code had two forms.
#[tokio::test(start_paused = true)]
async fn batches_and_transactions_chain_and_can_be_filled_again_after_a_commit() {
    let store = store();
    let map = quiet(&store).await;
    map.batch()
        .insert("a", 1)
        .insert("b", 1)
        .commit()
        .await
        .unwrap();
    let revision = map.get_with_revision("a").unwrap().1;
    let mut tx = Transaction::new(store.inner());
    tx.insert(&map, "a", 2)
        .remove(&map, "b")
        .require(&map, "a", Expect::At(revision));
    tx.commit().await.unwrap().unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 2)]));
    // A committed transaction has no changes and no requirements left.
    assert_eq!(tx.commit().await.unwrap(), None);
    tx.insert(&map, "c", 3).commit().await.unwrap().unwrap();
    let mut batch = map.batch();
    batch.insert("d", 4).commit().await.unwrap().unwrap();
    assert_eq!(batch.commit().await.unwrap(), None);
    assert_eq!(stored(&store).await, pairs([("a", 2), ("c", 3), ("d", 4)]));
}
