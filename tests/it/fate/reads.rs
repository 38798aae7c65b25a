//! Reads of entries with an unknown outcome, and calls on the whole map.

use persistify::{ErrorKind, Expect};
use tokio::time::sleep;

use super::{COMMITS, Commit, LOST, map};
use crate::support::{SECOND, pairs, settle, store, stored};

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_known_to_be_saved_is_not_shown() {
    for commit in COMMITS {
        let store = store();
        let map = map(&store).await;
        commit.lose(&store, &map, &LOST[0]).await;
        let mut lines = Vec::new();
        assert_eq!(map.export(&mut lines).await.unwrap(), 0);
        assert_eq!((map.iter().count(), map.keys().count()), (0, 0));
        let mut seen = 0;
        map.for_each(|_, _| seen += 1);
        map.retain(|_, _| panic!("there is nothing"));
        assert!(seen == 0 && map.is_empty() && !map.contains_key("k"));
        assert_eq!(map.get_with_revision("k"), None);
        assert_eq!(map.update("k", |n| *n += 1), None);
        assert_eq!(map.replace("k", 1), None);
        // The save does not count as pending; its caller has the error.
        assert_eq!(map.pending(), 0);
        sleep(2 * SECOND).await;
        settle().await;
        assert_eq!((map.get("k"), map.len(), map.pending()), (Some(4), 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_unknown_fate_shows_what_it_was_until_that_is_known() {
    let store = store();
    let map = map(&store).await;
    map.insert_and_save("k", 1).await.unwrap();
    store.fail_next(1, LOST[0].clone());
    let error = map.save_if("k", 2, Expect::Present).await.unwrap_err();
    assert!(error.may_have_applied());
    assert_eq!((map.get("k"), map.len()), (Some(1), 1));
    assert_eq!(map.update("k", |n| *n + 10), Some(11), "a later write");
    map.flush().await.unwrap();
    assert_eq!((map.get("k"), map.pending()), (Some(1), 0));
    assert_eq!(stored(&store).await, pairs([("k", 1)]));
}

/// A save that has nothing to write also waits for the unknown outcome.
#[tokio::test(start_paused = true)]
async fn flushes_reloads_and_updates_wait_for_the_fate() {
    for fault in LOST {
        let store = store();
        let map = map(&store).await;
        Commit::Conditional.lose(&store, &map, &fault).await;
        map.flush().await.unwrap();
        assert_eq!(map.get("k"), Some(4));

        let store = crate::support::store();
        let map = self::map(&store).await;
        Commit::Batch.lose(&store, &map, &fault).await;
        map.reload().await.unwrap();
        assert_eq!((map.get("k"), map.len()), (Some(4), 1));

        let store = crate::support::store();
        let map = self::map(&store).await;
        Commit::Batch.lose(&store, &map, &fault).await;
        assert_eq!(map.update_and_save("k", |n| *n += 1).await.unwrap(), None);
        assert_eq!(map.get("k"), Some(4), "it waited");
    }
}

/// The update used the state of the store at that moment, which had no entry. The commit was
/// applied after it, and the update reported that there was no entry.
#[tokio::test(start_paused = true)]
async fn an_update_in_the_store_waits_for_the_fate_of_its_key() {
    for (commit, fault) in COMMITS.iter().flat_map(|c| LOST.map(|fault| (*c, fault))) {
        let store = store();
        let map = map(&store).await;
        commit.lose(&store, &map, &fault).await;
        let updated = map.update_in_store("k", |n| n + 1).await.unwrap();
        assert_eq!(updated, Some(5), "{commit:?} {fault:?}");
        assert_eq!(stored(&store).await, pairs([("k", 5)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_fails_names_the_keys_of_unknown_fate() {
    for commit in COMMITS {
        let store = store();
        let map = map(&store).await;
        commit.lose(&store, &map, &LOST[0]).await;
        store.down(ErrorKind::Unavailable);
        let error = map.close().await.unwrap_err();
        assert_eq!(error.keys(), ["k".into()], "{commit:?}: {error}");
        store.up();
        map.close().await.unwrap();
        assert_eq!(map.get("k"), Some(4));
        assert_eq!(stored(&store).await, pairs([("k", 4)]));
    }
}
