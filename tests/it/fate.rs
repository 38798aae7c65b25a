//! Keys with a commit of unknown outcome: its answer was lost, and it may have been applied or may
//! be applied later.

use persistify::{
    Change, ErrorKind, Expect, OnConflict, Payload, PersistentMap, Result, Revision, Transaction,
    testing::Fault,
};
use tokio::time::sleep;

use crate::support::{
    HOUR, SECOND, Store, builder, impatient, open, pairs, settle, steady, store, stored,
    write_as_another,
};

mod behind;
mod caching;
mod meanwhile;
mod policies;
mod reads;
mod runtimes;
mod stores;

/// The answer is lost, and the commit was applied or was not.
const LOST: [Fault; 2] = [
    Fault::After(ErrorKind::Unavailable),
    Fault::Lost(ErrorKind::Unavailable),
];

/// A map that makes one attempt, returns the error, and retries after a second.
async fn map(store: &Store) -> PersistentMap<u32> {
    let map = builder(store).retry(impatient()).batch(1_000, HOUR);
    map.open().await.unwrap()
}

/// The kinds of commits whose answer is lost.
#[derive(Clone, Copy, Debug)]
enum Commit {
    Conditional,
    Batch,
    Transaction,
}

const COMMITS: [Commit; 3] = [Commit::Conditional, Commit::Batch, Commit::Transaction];

impl Commit {
    /// Commits the value to a key that has none.
    async fn make(
        self,
        store: &Store,
        map: &PersistentMap<u32>,
        key: &str,
        value: u32,
    ) -> Result<Option<Revision>> {
        match self {
            Self::Conditional => map.save_if(key, value, Expect::Absent).await.map(Some),
            Self::Batch => map.batch().insert(key, value).commit().await,
            Self::Transaction => {
                let other = open::<u32>(store.clone(), "other", |map| map.retry(impatient())).await;
                let mut tx = Transaction::new(store);
                tx.insert(map, key, value).insert(&other, key, value);
                tx.commit().await
            }
        }
    }

    /// Commits the key `k` with a lost answer. The outcome is unknown when this returns. The next
    /// attempt comes after a second.
    async fn lose(self, store: &Store, map: &PersistentMap<u32>, fault: &Fault) {
        let lost = fault.clone();
        let mut is_first = true;
        store.set_rule(move |call| {
            let batch = call.batch.iter().flat_map(|batch| batch.maps.iter());
            let mut changes = batch.flat_map(|part| &part.changes);
            let is_it = is_first && changes.any(|change| *change.key == *"k");
            is_first &= !is_it;
            if is_it { lost.clone() } else { Fault::None }
        });
        let error = self.make(store, map, "k", 4).await.unwrap_err();
        assert!(error.may_have_applied(), "{error:?}");
        assert_eq!((map.get("k"), map.len()), (None, 0));
    }
}

/// The ways to remove a key.
#[derive(Clone, Copy, Debug)]
enum Removal {
    Remove,
    RemoveAndSave,
    InsertAndRemove,
    InsertAndRemoveAndSave,
    Clear,
    ClearAndSave,
    ClearInsertAndRemove,
}

const REMOVALS: [Removal; 7] = [
    Removal::Remove,
    Removal::RemoveAndSave,
    Removal::InsertAndRemove,
    Removal::InsertAndRemoveAndSave,
    Removal::Clear,
    Removal::ClearAndSave,
    Removal::ClearInsertAndRemove,
];

impl Removal {
    /// Removes the key, and returns once that is acknowledged as saved.
    async fn save(self, map: &PersistentMap<u32>) -> Result<()> {
        self.begin(map);
        match self {
            Self::RemoveAndSave | Self::InsertAndRemoveAndSave => {
                map.remove_and_save("k").await.map(drop)
            }
            Self::ClearAndSave => map.clear_and_save().await,
            Self::Remove | Self::InsertAndRemove | Self::Clear | Self::ClearInsertAndRemove => {
                map.flush().await
            }
        }
    }

    fn begin(self, map: &PersistentMap<u32>) {
        match self {
            Self::Remove => assert_eq!(map.remove("k"), None),
            Self::InsertAndRemove => {
                map.insert("k", 5);
                map.remove("k");
            }
            Self::InsertAndRemoveAndSave => drop(map.insert("k", 5)),
            Self::Clear => map.clear(),
            Self::ClearInsertAndRemove => {
                map.clear();
                map.insert("k", 5);
                map.remove("k");
            }
            Self::RemoveAndSave | Self::ClearAndSave => {}
        }
    }
}

/// A conditional save was applied, its answer was lost, and it left no trace in memory. A
/// removal of its key got `Ok` at once, because there was no such entry, and was not written to
/// the store. When the outcome of the save became known, the entry was back in memory and in
/// the store.
#[tokio::test(start_paused = true)]
async fn an_acknowledged_removal_of_a_key_of_unknown_fate_is_not_undone() {
    for (commit, fault) in COMMITS.iter().flat_map(|c| LOST.map(|fault| (*c, fault))) {
        for removal in REMOVALS {
            let store = store();
            let map = map(&store).await;
            commit.lose(&store, &map, &fault).await;
            let saved = removal.save(&map).await;
            let case = format!("{commit:?} {fault:?} {removal:?}");
            assert!(saved.is_ok(), "{case}: {saved:?}");
            assert_eq!(stored(&store).await, pairs([]), "{case}");
            assert_eq!((map.get("k"), map.len()), (None, 0), "{case}");
            sleep(3 * SECOND).await;
            map.flush().await.unwrap();
            assert_eq!(stored(&store).await, pairs([]), "{case}");
            assert_eq!((map.get("k"), map.len()), (None, 0), "{case}");
            assert_eq!((map.pending(), map.stats().oldest_pending), (0, None));
        }
    }
}

/// While the store stays down, the removal of a key with an unknown outcome fails and stays
/// pending. It is committed once the store is up.
#[tokio::test(start_paused = true)]
async fn a_removal_errs_while_the_fate_stays_unknown_and_is_kept() {
    for removal in REMOVALS {
        let store = store();
        let map = map(&store).await;
        Commit::Conditional.lose(&store, &map, &LOST[0]).await;
        store.down(ErrorKind::Unavailable);
        let error = removal.save(&map).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{removal:?}");
        assert_eq!(map.pending(), 1, "{removal:?}");
        let error = map.close().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{removal:?}");
        store.up();
        map.close().await.unwrap();
        assert_eq!(stored(&store).await, pairs([]), "{removal:?}");
    }
}

/// While a conditional save was in flight, an insert and a removal of its key left no trace in
/// memory. The value of the save then appeared, although it was older than both.
#[tokio::test(start_paused = true)]
async fn a_removal_while_the_commit_hangs_goes_behind_it() {
    for insert in [true, false] {
        let store = store();
        let map = map(&store).await;
        let hang = store.hang_next();
        let save = tokio::spawn({
            let map = map.clone();
            async move { map.save_if("k", 4, Expect::Absent).await }
        });
        hang.hangs().await;
        if insert {
            map.insert("k", 5);
        }
        let removed = map.remove("k");
        assert_eq!(removed.is_some(), insert);
        hang.release();
        save.await.unwrap().unwrap();
        assert_eq!((map.get("k"), map.pending()), (None, 1));
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, pairs([]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_after_a_commit_of_unknown_outcome_is_later() {
    for (commit, fault) in COMMITS.iter().flat_map(|c| LOST.map(|fault| (*c, fault))) {
        for policy in [OnConflict::LastWrite, OnConflict::StoreWins] {
            let store = store();
            let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
                steady(map).retry(impatient()).conflicts(policy)
            })
            .await;
            commit.lose(&store, &map, &fault).await;
            let loaded = map.get_or_try_insert_with("k", || async { Ok::<_, ()>(5) });
            assert_eq!(loaded.await, Ok(5));
            map.try_insert("k", 6).unwrap_err();
            map.update_and_save("k", |n| *n += 1).await.unwrap();
            assert_eq!(stored(&store).await, pairs([("k", 6)]));
            let (value, revision) = map.get_with_revision("k").unwrap();
            map.save_if("k", value + 1, Expect::At(revision))
                .await
                .unwrap();
            assert_eq!((map.get("k"), map.stats().conflicts), (Some(7), 0));
        }
    }
}

/// A conditional save of a key with an unknown outcome waits for that outcome, and its condition is
/// checked against it.
#[tokio::test(start_paused = true)]
async fn a_conditional_save_behind_an_unknown_one_meets_what_that_has_left() {
    for fault in LOST {
        let store = store();
        let map = map(&store).await;
        Commit::Conditional.lose(&store, &map, &fault).await;
        let error = map.save_if("k", 5, Expect::Absent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let found = error.found().map(|record| record.revision);
        assert_eq!(map.get_with_revision("k"), Some((4, found.unwrap())));
    }
}

/// When a commit turns out to be refused, removed entries stay removed, and written ones stay
/// written.
#[tokio::test(start_paused = true)]
async fn a_commit_that_never_landed_leaves_nothing_behind() {
    for commit in COMMITS {
        for removed in [true, false] {
            let store = store();
            let map = map(&store).await;
            commit.lose(&store, &map, &LOST[1]).await;
            // The next attempt is refused.
            store.refuse(["k"]);
            store.set_rule(|_| Fault::None);
            if removed {
                map.remove_and_save("k").await.unwrap();
            } else {
                sleep(3 * SECOND).await;
            }
            settle().await;
            assert_eq!((map.get("k"), map.len()), (None, 0));
            assert_eq!((map.pending(), map.refused().len()), (0, 0));
            store.behave();
            assert_eq!(map.remove("k"), None);
            assert_eq!(map.pending(), 0, "the store never heard of it");
            map.insert_and_save("k", 7).await.unwrap();
            assert_eq!(stored(&store).await, pairs([("k", 7)]));
        }
    }
}

/// The unknown commit conflicts with another process's write, and so does the later removal.
#[tokio::test(start_paused = true)]
async fn a_removal_behind_a_commit_that_met_another_process_is_judged_by_the_policy() {
    for policy in [OnConflict::LastWrite, OnConflict::StoreWins] {
        let is_last_write = matches!(policy, OnConflict::LastWrite);
        let store = store();
        let map: PersistentMap<u32> = open(store.clone(), "map", |map| {
            steady(map).retry(impatient()).conflicts(policy)
        })
        .await;
        Commit::Conditional.lose(&store, &map, &LOST[1]).await;
        let theirs = Change::put("k", Payload::json("9"), None);
        write_as_another(store.inner(), vec![theirs]).await;
        let removed = map.remove_and_save("k").await;
        if is_last_write {
            removed.unwrap();
            assert_eq!((map.get("k"), stored(&store).await), (None, pairs([])));
        } else {
            assert_eq!(removed.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(map.get("k"), Some(9));
            assert_eq!(stored(&store).await, pairs([("k", 9)]));
        }
    }
}
