//! The behaviour of a map whose store went back in time, for any store.

use std::collections::BTreeMap;

use persistify::{ErrorKind, Health, MapName, PersistentMap, Provider, Rewind, Wanted};

use crate::support;

/// All decisions; `Stop` leaves the rewind unresolved.
pub(crate) const DECISIONS: [Rewind; 3] = [Rewind::Stop, Rewind::SaveAgain, Rewind::TakeStore];

type Entries = BTreeMap<String, u64>;

/// The acknowledged entries from before the store went back.
const ACKNOWLEDGED: [(&str, u64); 2] = [("old", 1), ("lost", 2)];

pub(crate) async fn open(provider: impl Provider, rewind: Rewind) -> PersistentMap<u64> {
    support::open(provider, "map", |map| map.on_rewind(rewind)).await
}

/// Saves the older of the two entries.
pub(crate) async fn save_old(map: &PersistentMap<u64>) {
    map.insert_and_save("old", 1).await.unwrap();
}

/// Saves the entry that the store will lose.
pub(crate) async fn save_lost(map: &PersistentMap<u64>) {
    map.insert_and_save("lost", 2).await.unwrap();
}

pub(crate) fn entries(pairs: &[(&str, u64)]) -> Entries {
    let owned = |(key, value): &(&str, u64)| ((*key).to_owned(), *value);
    pairs.iter().map(owned).collect()
}

/// The entries that the store has to hold at the end.
fn expected(decision: Rewind, remembered: &[(&str, u64)]) -> Entries {
    let held = if decision == Rewind::SaveAgain {
        &ACKNOWLEDGED
    } else {
        remembered
    };
    let mut all = entries(held);
    all.insert("pending".to_owned(), 3);
    all
}

pub(crate) async fn stored(provider: &dyn Provider) -> Entries {
    let map = MapName::new("map").unwrap();
    let load = provider.load(&map, Wanted::All).await.unwrap();
    let records = load.into_records().await.unwrap();
    let value = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
    let pair = |r: persistify::Record| (r.key.to_string(), value(&r.value.unwrap().bytes));
    records.into_iter().map(pair).collect()
}

fn held(map: &PersistentMap<u64>) -> Entries {
    map.iter().map(|(k, v)| (k.to_string(), v)).collect()
}

/// Asserts that a map with the policy `Stop` stops and writes nothing, and then continues as
/// decided.
pub(crate) async fn stops_and_goes_on(
    provider: &dyn Provider,
    map: &PersistentMap<u64>,
    decision: Rewind,
    remembered: &[(&str, u64)],
) {
    map.insert("pending", 3);
    let failed = map.flush().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Rewound, "{failed:?}");
    assert!(!failed.may_have_applied());
    assert!(matches!(*map.health().borrow(), Health::Rewound { .. }));
    assert_eq!((held(map).len(), map.pending()), (3, 1));
    assert_eq!(stored(provider).await, entries(remembered));
    if decision == Rewind::Stop {
        let closed = map.close().await.unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::Rewound);
        assert_eq!(stored(provider).await, entries(remembered));
        return;
    }
    map.resolve_rewind(decision).await.unwrap();
    has_gone_on(provider, map, decision, remembered).await;
    map.close().await.unwrap();
    let expected = expected(decision, remembered);
    assert_eq!(stored(provider).await, expected, "{decision:?}");
}

/// Asserts that a map continues by itself if the decision is its policy.
pub(crate) async fn goes_on_by_itself(
    provider: &dyn Provider,
    map: &PersistentMap<u64>,
    decision: Rewind,
    remembered: &[(&str, u64)],
) {
    map.insert_and_save("pending", 3).await.unwrap();
    map.flush().await.unwrap();
    has_gone_on(provider, map, decision, remembered).await;
}

async fn has_gone_on(
    provider: &dyn Provider,
    map: &PersistentMap<u64>,
    decision: Rewind,
    remembered: &[(&str, u64)],
) {
    let expected = expected(decision, remembered);
    assert_eq!(held(map), expected, "{decision:?}");
    assert_eq!(stored(provider).await, expected, "{decision:?}");
    assert!(map.health().borrow().is_healthy());
}
