//! Maps while the primary is down, and when it is back.

use std::time::{Duration, SystemTime};

use persistify::{
    Change, ErrorKind, Failover, Health, OnConflict, PersistentMap, Provider, ProviderExt, Rewind,
    Wanted,
    testing::{Fault, Hang, Method},
};

use super::{Mirrored, mirror, pair};
use crate::support::{
    HOUR, MINUTE, Pen, SECOND, Store, as_it_is, impatient, in_memory, map_name, open, open_caching,
    pairs, put, settle, store, stored, write_as_another,
};

/// A map that gives up at the first failure, and probes every second.
async fn opened(layer: &Mirrored) -> PersistentMap<u32> {
    open(layer.clone(), "map", |map| map.retry(impatient())).await
}

/// A copied map with these entries, and a primary that is down.
async fn outage(entries: &[(&str, u32)]) -> (Store, Store, Mirrored) {
    let (primary, standby, layer) = pair();
    let map = opened(&layer).await;
    map.extend(entries.iter().map(|(key, n)| ((*key).to_owned(), *n)));
    map.close().await.unwrap();
    primary.down(ErrorKind::Unavailable);
    (primary, standby, layer)
}

fn is_degraded(map: &PersistentMap<u32>) -> bool {
    matches!(*map.health().borrow(), Health::Degraded { .. })
}

async fn healthy(map: &PersistentMap<u32>) {
    let mut health = map.health();
    health.wait_for(Health::is_healthy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_map_opens_from_the_standby_and_its_changes_reach_the_primary() {
    let before = SystemTime::now();
    let (primary, standby, layer) = outage(&[("a", 1), ("b", 2)]).await;
    let map = opened(&layer).await;
    assert_eq!(in_memory(&map), pairs([("a", 1), ("b", 2)]));
    let Health::Degraded {
        copied_at, error, ..
    } = map.health().borrow().clone()
    else {
        panic!("{:?}", map.health().borrow());
    };
    assert!(copied_at + SECOND > before, "{copied_at:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(map.health().borrow().since().is_some());
    let commits = standby.calls(Method::Commit);
    let error = map.insert_and_save("c", 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    map.remove("a");
    tokio::time::sleep(MINUTE).await;
    assert!(is_degraded(&map));
    assert_eq!(map.pending(), 2);
    assert_eq!(
        standby.calls(Method::Commit),
        commits,
        "commits never go to the standby"
    );
    // Another process has written to the primary before it went down.
    write_as_another(primary.inner(), vec![put("d", "4"), Change::delete("b")]).await;
    primary.up();
    healthy(&map).await;
    assert_eq!(in_memory(&map), pairs([("c", 3), ("d", 4)]));
    assert_eq!(stored(&primary).await, in_memory(&map));
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stored(&standby).await, in_memory(&map));
    map.close().await.unwrap();
}

/// Nothing is pending and nobody waits: a probe finds the primary, and the map reloads itself once.
#[tokio::test(start_paused = true)]
async fn an_idle_map_reloads_itself_once_the_primary_is_back() {
    let (primary, _, layer) = outage(&[("a", 1)]).await;
    let map = opened(&layer).await;
    write_as_another(primary.inner(), vec![put("a", "2")]).await;
    let loads = primary.calls(Method::Load);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(map.get("a"), Some(1));
    assert_eq!(
        primary.calls(Method::Load),
        loads,
        "it pings and does not load"
    );
    primary.up();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(map.get("a"), Some(2));
    assert!(map.health().borrow().is_healthy());
    let reloads = primary.calls(Method::Load);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(primary.calls(Method::Load), reloads);
}

#[tokio::test(start_paused = true)]
async fn a_save_that_waits_gets_an_attempt_at_once_and_another_map_wakes_this_one() {
    let (primary, _, layer) = outage(&[("a", 1)]).await;
    let patient = |name: &'static str| {
        let retry = impatient().probe_delay(HOUR);
        open::<u32>(layer.clone(), name, |map| map.retry(retry))
    };
    let map = patient("map").await;
    write_as_another(primary.inner(), vec![put("a", "2")]).await;
    primary.up();
    let other = patient("other").await;
    other.insert_and_save("x", 1).await.unwrap();
    assert!(
        is_degraded(&map),
        "only a failing map listens, after its base delay"
    );
    other.insert_and_save("x", 2).await.unwrap();
    tokio::time::timeout(SECOND, healthy(&map)).await.ok();
    other.insert_and_save("x", 3).await.unwrap();
    tokio::time::timeout(SECOND, healthy(&map)).await.unwrap();
    assert_eq!(map.get("a"), Some(2));
}

/// The primary answers a ping, and is down again when the map loads.
#[tokio::test(start_paused = true)]
async fn a_primary_that_flaps_leaves_the_map_degraded_until_a_reload_succeeds() {
    let (primary, _, layer) = outage(&[("a", 1)]).await;
    let map = opened(&layer).await;
    write_as_another(primary.inner(), vec![put("a", "2")]).await;
    primary.set_rule(|call| match call.method {
        Method::Load => Fault::Before(ErrorKind::Unavailable),
        _ => Fault::None,
    });
    primary.up();
    map.insert_and_save("b", 3).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    assert!(is_degraded(&map));
    assert_eq!(in_memory(&map), pairs([("a", 1), ("b", 3)]));
    primary.behave();
    healthy(&map).await;
    assert_eq!(in_memory(&map), pairs([("a", 2), ("b", 3)]));
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_hangs_does_not_hang_an_open() {
    let (primary, standby) = (store(), store());
    let failover = Failover::to(standby.clone()).timeout(3 * SECOND);
    let layer = primary.clone().layer(failover);
    let map = open::<u32>(layer.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.close().await.unwrap();
    primary.set_rule(|_| Fault::Hang(Hang::new()));
    let begun = tokio::time::Instant::now();
    let map = open::<u32>(layer.clone(), "map", as_it_is).await;
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert!(is_degraded(&map));
    primary.behave();
    map.insert_and_save("b", 2).await.unwrap();
    assert_eq!(stored(&primary).await, pairs([("a", 1), ("b", 2)]));
}

/// An empty standby must not look like an empty map.
#[tokio::test(start_paused = true)]
async fn a_map_without_a_complete_copy_does_not_open() {
    let (primary, standby) = (store(), store());
    Pen::new().put(&primary, &map_name(), "a", "1").await;
    primary.down(ErrorKind::Unavailable);
    let layer = mirror(&primary, &standby);
    let opening = PersistentMap::<u32>::builder(layer.clone(), "map").open();
    let error = opening.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no complete copy"), "{error}");
    standby.down(ErrorKind::Unusable);
    let error = layer.load(&map_name(), Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "that of the primary");
}

/// Only an outage is a reason to turn to the standby.
#[tokio::test(start_paused = true)]
async fn other_errors_are_those_of_the_primary() {
    let (primary, _, layer) = outage(&[("a", 1)]).await;
    for kind in [ErrorKind::Unusable, ErrorKind::Corrupt, ErrorKind::Closed] {
        primary.down(kind);
        let error = layer.load(&map_name(), Wanted::All).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    primary.down(ErrorKind::Unavailable);
    let wanted = Wanted::changed(persistify::Revision::ZERO);
    let error = layer.load(&map_name(), wanted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(layer.maps().await.unwrap(), [map_name()]);
}

#[tokio::test(start_paused = true)]
async fn a_load_from_a_copy_says_so_and_names_no_revision_or_incarnation() {
    let (_, _, layer) = outage(&[("a", 1), ("b", 2)]).await;
    let keys = Wanted::Keys(["a".into()].into());
    for wanted in [Wanted::All, Wanted::page(None, 1), keys] {
        let load = layer.load(&map_name(), wanted.clone()).await.unwrap();
        assert!(load.copied_at.is_some() && load.incarnation.is_none());
        assert!(load.horizon > persistify::Revision::ZERO);
        let narrowed = load.narrowed(&wanted).await.unwrap();
        assert!(narrowed.copied_at.is_some());
        let records = narrowed.into_records().await.unwrap();
        assert!(!records.is_empty());
        let numbered = |record: &persistify::Record| record.revision > persistify::Revision::ZERO;
        assert!(!records.iter().any(numbered));
    }
}

/// A read-modify-write reads the copy, and its commit waits for the primary.
#[tokio::test(start_paused = true)]
async fn an_update_in_the_store_is_not_based_on_a_copy() {
    let (primary, _, layer) = outage(&[("a", 1)]).await;
    let map = opened(&layer).await;
    let error = map.update_in_store("a", |n| n + 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    write_as_another(primary.inner(), vec![put("a", "5")]).await;
    primary.up();
    assert_eq!(
        map.update_in_store("a", |n| n + 10).await.unwrap(),
        Some(15)
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_map_reloads_from_a_copy_that_has_all_that_it_has_seen() {
    let (primary, _, layer) = pair();
    let map = opened(&layer).await;
    map.extend([("a".to_owned(), 1), ("b".to_owned(), 2)]);
    map.flush().await.unwrap();
    write_as_another(primary.inner(), vec![put("a", "3")]).await;
    layer.catch_up().await.unwrap();
    primary.down(ErrorKind::Unavailable);
    map.insert_and_save("b", 4).await.unwrap_err();
    assert!(matches!(*map.health().borrow(), Health::Down { .. }));
    map.reload().await.unwrap();
    assert_eq!(in_memory(&map), pairs([("a", 3), ("b", 4)]));
    assert!(is_degraded(&map));
    map.flush().await.unwrap_err();
    primary.up();
    healthy(&map).await;
    assert_eq!(stored(&primary).await, pairs([("a", 3), ("b", 4)]));
}

/// The standby lags: it lacks a commit that this map was told is saved.
#[tokio::test(start_paused = true)]
async fn a_reload_never_goes_back_to_a_copy_that_is_older_than_memory() {
    let (primary, standby, layer) = pair();
    let map = opened(&layer).await;
    map.insert_and_save("a", 1).await.unwrap();
    layer.catch_up().await.unwrap();
    standby.set_rule(|call| match call.method {
        Method::Commit => Fault::Before(ErrorKind::Unavailable),
        _ => Fault::None,
    });
    map.insert_and_save("a", 2).await.unwrap();
    for is_known in [false, true] {
        primary.down(ErrorKind::Unavailable);
        if is_known {
            map.insert_and_save("b", 3).await.unwrap_err();
        }
        let error = map.reload().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("older"), "{error}");
        assert_eq!(map.get("a"), Some(2));
        primary.up();
    }
    map.close().await.unwrap();
    assert_eq!(stored(&primary).await, pairs([("a", 2), ("b", 3)]));
}

/// A batch may be in the store: nobody knows whether the copy has it.
#[tokio::test(start_paused = true)]
async fn a_reload_during_an_unknown_outcome_fails_and_does_not_hang() {
    let (primary, _, layer) = pair();
    let map = opened(&layer).await;
    map.insert_and_save("a", 1).await.unwrap();
    layer.catch_up().await.unwrap();
    primary.set_rule(|_| Fault::Lost(ErrorKind::Unavailable));
    map.insert_and_save("a", 2).await.unwrap_err();
    let reloading = tokio::time::timeout(MINUTE, map.reload());
    let error = reloading.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    primary.behave();
    map.close().await.unwrap();
    assert_eq!(stored(&primary).await, pairs([("a", 2)]));
}

/// Without revisions, a change of an entry of a copy is a conflict, and the policy decides.
#[tokio::test(start_paused = true)]
async fn a_change_of_an_entry_of_a_copy_is_resolved_by_the_conflict_policy() {
    let policies: [(OnConflict<u32>, u32); 3] = [
        (OnConflict::LastWrite, 5),
        (OnConflict::StoreWins, 7),
        (OnConflict::Merge(|mine, theirs| mine + theirs), 12),
    ];
    for (policy, expected) in policies {
        let (primary, _, layer) = outage(&[("a", 1)]).await;
        let options = |map: persistify::PersistentMapBuilder<u32>| {
            map.retry(impatient()).conflicts(policy.clone())
        };
        let map = open::<u32>(layer.clone(), "map", options).await;
        map.insert("a", 5);
        write_as_another(primary.inner(), vec![put("a", "7")]).await;
        primary.up();
        healthy(&map).await;
        map.flush().await.unwrap();
        assert_eq!(map.get("a"), Some(expected), "{policy:?}");
        // From now on the revision is known.
        map.insert_and_save("a", 9).await.unwrap();
        assert_eq!(map.stats().conflicts, u64::from(expected != 5));
        assert_eq!(stored(&primary).await, pairs([("a", 9)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_map_that_was_dropped_since_the_copy_stops() {
    let (primary, _, layer) = outage(&[("a", 1)]).await;
    let map = opened(&layer).await;
    primary.inner().drop_map(&map_name()).await.unwrap();
    map.insert("b", 2);
    primary.up();
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rewound);
    assert!(matches!(*map.health().borrow(), Health::Rewound { .. }));
    map.resolve_rewind(Rewind::TakeStore).await.unwrap();
    assert_eq!(stored(&primary).await, pairs([("b", 2)]));
    assert_eq!(in_memory(&map), pairs([("b", 2)]));
    assert!(map.health().borrow().is_healthy());
}

/// What a copy lacks, the primary has not lost; and its incarnation is not the primary's.
#[tokio::test(start_paused = true)]
async fn a_rewind_is_never_resolved_from_a_copy() {
    let (primary, _, layer) = pair();
    let map = opened(&layer).await;
    map.insert_and_save("a", 1).await.unwrap();
    layer.catch_up().await.unwrap();
    let backup = primary.inner().backup();
    map.insert_and_save("a", 2).await.unwrap();
    primary.inner().restore(&backup);
    let error = map.insert_and_save("b", 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rewound);
    primary.down(ErrorKind::Unavailable);
    let error = map.resolve_rewind(Rewind::SaveAgain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    primary.up();
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    assert_eq!(stored(&primary).await, pairs([("a", 2), ("b", 3)]));
}

#[tokio::test(start_paused = true)]
async fn a_map_of_a_copy_adopts_the_incarnation_of_the_primary() {
    let (primary, _, layer) = outage(&[("a", 1)]).await;
    let map = opened(&layer).await;
    primary.up();
    map.insert_and_save("b", 2).await.unwrap();
    primary.inner().restore(&persistify::Memory::new());
    let error = map.insert_and_save("c", 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rewound);
}

/// Expiries are copied, and an entry that expires during an outage is gone here and there.
#[tokio::test(start_paused = true)]
async fn expiries_reach_the_standby_and_expire_during_an_outage() {
    let (primary, standby, layer) = pair();
    let cache = open_caching::<u32>(layer.clone(), "map", as_it_is).await;
    cache.insert_with_ttl("short", 1, MINUTE);
    cache.insert_with_ttl("long", 2, 10 * HOUR);
    cache.flush().await.unwrap();
    layer.catch_up().await.unwrap();
    cache.close().await.unwrap();
    primary.down(ErrorKind::Unavailable);
    let retry = impatient();
    let cache = open_caching::<u32>(layer.clone(), "map", |map| map.retry(retry)).await;
    assert_eq!((cache.get("short"), cache.get("long")), (Some(1), Some(2)));
    tokio::time::sleep(2 * MINUTE).await;
    assert_eq!((cache.get("short"), cache.get("long")), (None, Some(2)));
    primary.up();
    let mut health = cache.health();
    health.wait_for(Health::is_healthy).await.unwrap();
    tokio::time::sleep(2 * MINUTE).await;
    settle().await;
    assert_eq!(stored(&primary).await, pairs([("long", 2)]));
    assert_eq!(stored(&standby).await, pairs([("long", 2)]));
}
