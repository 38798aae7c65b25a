//! Background, conditional and multi-map commits of one map that detects conflicts.

use super::*;
use crate::support::{as_it_is, open};
use persistify::{Expect, Revision, Transaction};

const POLICIES: [fn() -> OnConflict<u32>; 3] =
    [|| OnConflict::LastWrite, || OnConflict::StoreWins, sum];

async fn commit(store: &Store, map: &PersistentMap<u32>, way: usize, value: u32) {
    let (_, seen) = map.get_with_revision("a").unwrap_or_default();
    let expect = match seen {
        Revision::ZERO => Expect::Absent,
        seen => Expect::At(seen),
    };
    match way {
        0 => {
            map.save_if("a", value, expect).await.unwrap();
        }
        1 => {
            let mut batch = map.batch();
            batch.insert("a", value).require("a", expect);
            batch.commit().await.unwrap();
        }
        2 => {
            let mut tx = Transaction::new(store);
            tx.insert(map, "a", value).require(map, "a", expect);
            tx.commit().await.unwrap();
        }
        3 => {
            let mut batch = map.batch();
            batch.remove("a").insert("b", value);
            batch.commit().await.unwrap();
            map.save_if("a", value, Expect::Absent).await.unwrap();
        }
        _ => {
            map.update_in_store("a", |_| value).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_conditional_commit_is_no_conflict_for_its_own_map() {
    for policy in POLICIES {
        let store = store();
        store.fail_one_in(3);
        let map = open_on(&store, policy()).await;
        for (n, way) in (0..20).zip((0..5).cycle()) {
            commit(&store, &map, way, n).await;
            map.insert_and_save("a", 100).await.unwrap();
            map.update("a", |n| *n += 1);
            map.flush().await.unwrap();
            commit(&store, &map, way, n).await;
            if n % 3 == 0 {
                map.remove_and_save("a").await.unwrap();
            }
            if n % 7 == 0 {
                map.clear();
                map.insert("a", 5);
                map.flush().await.unwrap();
            }
        }
        assert_eq!((map.stats().conflicts, map.pending()), (0, 0));
        assert_eq!(stored(&store).await, crate::support::in_memory(&map));
    }
}

/// A write during the conditional commit of the same key is the later write. The stored value is
/// the map's own, so there is no conflict.
#[tokio::test(start_paused = true)]
async fn a_write_during_its_own_conditional_commit_is_no_conflict() {
    for policy in POLICIES {
        for way in 0..3 {
            for clears in [false, true] {
                let store = store();
                let map = open_on(&store, policy()).await;
                map.insert_and_save("a", 1).await.unwrap();
                let hang = store.hang_next();
                let saving = tokio::spawn({
                    let (store, map) = (store.clone(), map.clone());
                    async move { commit(&store, &map, way, 2).await }
                });
                hang.hangs().await;
                if clears {
                    map.clear();
                }
                map.insert("a", 3);
                hang.release();
                saving.await.unwrap();
                map.flush().await.unwrap();
                assert_eq!(stored(&store).await, pairs([("a", 3)]));
                assert_eq!((map.get("a"), map.stats().conflicts), (Some(3), 0));
            }
        }
    }
}

/// The pending change is committed first, and conflicts with another process. The conditional
/// save then sees the resolution of that conflict.
#[tokio::test(start_paused = true)]
async fn a_pending_write_meets_another_before_a_conditional_save_does() {
    let ends = [(20, 0), (1, 1), (21, 1)];
    for (policy, (expected, conflicts)) in POLICIES.into_iter().zip(ends) {
        let store = store();
        let here = open_on(&store, policy()).await;
        let first = here.save_if("a", 0, Expect::Absent).await.unwrap();
        let there = open_on(&store, OnConflict::LastWrite).await;
        there.insert_and_save("a", 1).await.unwrap();
        here.insert("a", 20);
        let error = here.save_if("a", 300, Expect::At(first)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let found = error.found().unwrap();
        let text = found.value.clone().unwrap().bytes;
        assert_eq!(text, expected.to_string().as_bytes());
        assert_eq!((here.get("a"), here.pending()), (Some(expected), 0));
        assert_eq!(stored(&store).await, pairs([("a", expected)]));
        assert_eq!(here.stats().conflicts, conflicts);
        let seen = Expect::At(found.revision);
        here.save_if("a", 300, seen).await.unwrap();
        here.insert_and_save("a", 301).await.unwrap();
        assert_eq!(stored(&store).await, pairs([("a", 301)]));
        assert_eq!(here.stats().conflicts, conflicts);
    }
}

/// The conditional save conflicts with another process. The record it found is known from then
/// on, unless the key was written meanwhile.
#[tokio::test(start_paused = true)]
async fn a_value_found_by_a_conditional_save_is_known_afterwards() {
    for policy in POLICIES {
        for several in [false, true] {
            let store = store();
            let here = open_on(&store, policy()).await;
            let first = here.save_if("a", 0, Expect::Absent).await.unwrap();
            let there = open_on(&store, OnConflict::LastWrite).await;
            there.insert_and_save("a", 1).await.unwrap();
            let error = if several {
                let mut batch = here.batch();
                batch.insert("a", 5).insert("b", 5);
                batch.require("a", Expect::At(first)).commit().await
            } else {
                let saved = here.save_if("a", 5, Expect::At(first)).await;
                saved.map(Some)
            };
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!((here.get("a"), here.get("b")), (Some(1), None));
            here.update("a", |n| *n += 20);
            here.flush().await.unwrap();
            assert_eq!(stored(&store).await, pairs([("a", 21)]));
            assert_eq!(here.stats().conflicts, 0);
        }
    }
}

/// A rewrite in the current schema version is pending, and another process has written. A
/// conditional save neither loses to the rewrite nor lets it win.
#[tokio::test(start_paused = true)]
async fn a_rewrite_on_load_does_not_disturb_a_conditional_save() {
    for policy in POLICIES {
        let store = store();
        let old = open_on(&store, OnConflict::LastWrite).await;
        old.extend([("a", 1), ("b", 1), ("c", 1)]);
        old.flush().await.unwrap();
        let map = crate::support::builder(&store).batch(1_000, crate::support::HOUR);
        let map = map.conflicts(policy()).schema(1).migrate(0, |n| n);
        let map: PersistentMap<u32> = map.rewrite_on_load().open().await.unwrap();
        assert_eq!(map.pending(), 3);
        let (_, loaded) = map.get_with_revision("a").unwrap();
        old.insert_and_save("b", 2).await.unwrap();
        map.save_if("a", 7, Expect::At(loaded)).await.unwrap();
        let error = map.save_if("b", 7, Expect::At(loaded)).await.unwrap_err();
        // The record in the conflict has an older schema version, and is migrated.
        assert_eq!(error.found().unwrap().value.as_ref().unwrap().schema, 0);
        assert_eq!((map.get("a"), map.get("b")), (Some(7), Some(2)));
        map.flush().await.unwrap();
        map.update("b", |n| *n += 1);
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await, pairs([("a", 7), ("b", 3), ("c", 1)]));
        assert_eq!((map.stats().conflicts, map.pending()), (0, 0));
        let records = crate::support::records_in(&store, &crate::support::map_name()).await;
        let shapes = records.iter().map(|r| r.value.as_ref().unwrap().schema);
        assert_eq!(shapes.collect::<Vec<_>>(), [1, 1, 1]);
    }
}

/// An import overwrites the entries in memory. A change by another process meanwhile is a conflict
/// like any other.
#[tokio::test(start_paused = true)]
async fn an_import_meets_others_as_any_write_does() {
    let ends = [(20, 0), (1, 1), (21, 1)];
    for (policy, (expected, conflicts)) in POLICIES.into_iter().zip(ends) {
        let from = open_on(&crate::support::store(), OnConflict::LastWrite).await;
        from.extend([("a", 20), ("b", 20)]);
        let mut exported = Vec::new();
        from.export(&mut exported).await.unwrap();
        let store = store();
        let here = open_on(&store, policy()).await;
        here.insert_and_save("b", 0).await.unwrap();
        let there = open_on(&store, OnConflict::LastWrite).await;
        there.insert_and_save("a", 1).await.unwrap();
        assert_eq!(here.import(&exported[..]).await.unwrap(), 2);
        let expected = pairs([("a", expected), ("b", 20)]);
        assert_eq!(stored(&store).await, expected);
        assert_eq!(crate::support::in_memory(&here), expected);
        assert_eq!(here.stats().conflicts, conflicts);
    }
}

/// Entries of conditional commits expire, in several ways and across restarts. They are neither
/// revived nor extended, and entries that replaced them are not removed.
#[tokio::test]
async fn an_entry_committed_on_conditions_expires_in_time_after_a_restart() {
    for policy in POLICIES {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let open = async || {
            let map = CachingMap::<u32>::builder(store.clone(), "map").clock(clock.clone());
            let map = map.time_to_live(100 * SECOND).conflicts(policy());
            map.open().await.unwrap()
        };
        let map = open().await;
        map.save_if_with_ttl("a", 1, Expect::Absent, 10 * SECOND)
            .await
            .unwrap();
        let mut batch = map.batch();
        batch.insert_with_ttl("b", 1, 10 * SECOND);
        batch.insert("c", 1).commit().await.unwrap();
        let mut tx = Transaction::new(&store);
        tx.insert_with_ttl(&map, "d", 1, 10 * SECOND);
        tx.commit().await.unwrap();
        clock.advance(9 * SECOND);
        // The process is killed: the map is not closed.
        let again = open().await;
        let ends = |key| again.expires_at(key).unwrap();
        for key in ["a", "b", "d"] {
            assert_eq!(ends(key), start() + 10 * SECOND, "{key}");
        }
        // A deadline from the TTL of the map is a millisecond early.
        let early = SECOND / 1_000;
        assert_eq!(ends("c"), start() + 100 * SECOND - early);
        clock.advance(SECOND);
        assert_eq!(
            (again.len(), again.get("a"), again.get("c")),
            (1, None, Some(1))
        );
        // An expired entry is absent, swept or not.
        again.save_if("a", 2, Expect::Absent).await.unwrap();
        let mut batch = again.batch();
        batch.insert("b", 2).require("b", Expect::Absent);
        batch.commit().await.unwrap();
        settle().await;
        // The first map sweeps, too, but removes none of the new entries.
        map.flush().await.unwrap();
        again.flush().await.unwrap();
        map.reload().await.unwrap();
        for map in [&map, &again] {
            assert_eq!(
                ["a", "b", "c", "d"].map(|key| map.get(key)),
                [Some(2), Some(2), Some(1), None]
            );
            assert_eq!(map.stats().conflicts, 0);
        }
        let third = open().await;
        let end = start() + 110 * SECOND - early;
        assert_eq!(third.expires_at("a"), Some(end));
        assert_eq!(third.len(), 3);
    }
}

/// JSON files support conditions, on one map at a time.
#[cfg(feature = "json")]
#[tokio::test]
async fn conditional_commits_in_json_files_are_there_after_a_restart() {
    for policy in POLICIES {
        let folder = tempfile::tempdir().unwrap();
        let files = persistify::JsonFile::open(folder.path()).await.unwrap();
        let process = || {
            open::<u32>(files.clone(), "map", |map| {
                map.batch(1_000, crate::support::HOUR).conflicts(policy())
            })
        };
        let (here, there) = (process().await, process().await);
        let first = here.save_if("a", 1, Expect::Absent).await.unwrap();
        let late = there.save_if("a", 2, Expect::Absent).await.unwrap_err();
        assert_eq!(late.found().unwrap().revision, first);
        let second = there.save_if("a", 2, Expect::At(first)).await.unwrap();
        let mut batch = here.batch();
        batch.insert("a", 3).require("a", Expect::At(first));
        let late = batch.insert("b", 3).commit().await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict);
        let mut batch = here.batch();
        batch.insert("a", 3).require("a", Expect::At(second));
        batch.insert("b", 3).commit().await.unwrap();
        let added = there.update_in_store("a", |n| n + 1).await.unwrap();
        here.close().await.unwrap();
        there.close().await.unwrap();
        files.close().await.unwrap();
        let files = persistify::JsonFile::open(folder.path()).await.unwrap();
        let map = open::<u32>(files, "map", as_it_is).await;
        assert_eq!((map.get("a"), map.get("b")), (Some(4), Some(3)));
        let (_, revision) = map.get_with_revision("a").unwrap();
        assert_eq!(added, Some(4));
        map.save_if("a", 5, Expect::At(revision)).await.unwrap();
        map.close().await.unwrap();
    }
}
