//! Commits that wait behind a commit of unknown outcome.

use persistify::{
    ErrorKind,
    testing::{Fault, Method},
};
use tokio::time::timeout;

use super::{COMMITS, Commit, LOST, map};
use crate::support::{HOUR, Store, pairs, store, stored};

/// Loses all answers to commits from now on.
fn lose_all(store: &Store, fault: &Fault) {
    let lost = fault.clone();
    store.set_rule(move |call| match call.method {
        Method::Commit => lost.clone(),
        _ => Fault::None,
    });
}

/// The pending write of a key is committed before a conditional commit of that key. When its
/// outcome was unknown, only its own callers got the error: the conditional commit waited for
/// as long as the store was down.
#[tokio::test(start_paused = true)]
async fn a_commit_behind_a_write_of_unknown_fate_errs_and_is_not_made_later() {
    for (commit, fault) in COMMITS.iter().flat_map(|c| LOST.map(|fault| (*c, fault))) {
        let store = store();
        let map = map(&store).await;
        map.insert("k", 1);
        lose_all(&store, &fault);
        let made = timeout(HOUR, commit.make(&store, &map, "k", 4)).await;
        let error = made.expect("its caller waits").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{commit:?}");
        assert!(!error.may_have_applied(), "{commit:?}: {error:?}");
        store.up();
        store.set_rule(|_| Fault::None);
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, pairs([("k", 1)]), "{commit:?}");
        assert_eq!((map.get("k"), map.pending()), (Some(1), 0));
    }
}

/// A transaction first makes its store remember the writers of its maps. When the answer to that
/// was lost, its caller waited for as long as the store was down.
#[tokio::test(start_paused = true)]
async fn a_transaction_errs_if_its_store_goes_down_before_it_begins() {
    for fault in LOST {
        let store = store();
        let map = map(&store).await;
        lose_all(&store, &fault);
        let made = Commit::Transaction.make(&store, &map, "k", 4);
        let error = timeout(HOUR, made).await.expect("its caller waits");
        assert!(!error.unwrap_err().may_have_applied());
        store.set_rule(|_| Fault::None);
        map.flush().await.unwrap();
        assert!(stored(&store).await.is_empty());
    }
}
