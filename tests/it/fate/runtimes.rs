//! A transaction whose runtime ends while its outcome is unknown, and a map on another runtime.

use persistify::{
    ErrorKind, MapName, PersistentMap, Transaction,
    testing::{Fault, Hang},
};
use tokio::runtime::{Builder, Runtime};

use crate::support::{HOUR, SECOND, Store, pairs, store, stored_in};

fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread();
    { runtime }.worker_threads(1).enable_all().build().unwrap()
}

fn open(runtime: &Runtime, store: &Store, name: &str) -> PersistentMap<u32> {
    let map = PersistentMap::builder(store.clone(), name).batch(1_000, HOUR);
    runtime.block_on(map.commit_timeout(HOUR).open()).unwrap()
}

/// Starts a transaction whose commit hangs, and ends the runtime that it runs on.
fn abandon(store: &Store, own: Runtime, maps: [&PersistentMap<u32>; 2]) -> Hang {
    let hang = Hang::new();
    let answer = hang.clone();
    store.set_rule(move |call| match &call.batch {
        Some(batch) if batch.maps.len() > 1 => Fault::Hang(answer.clone()),
        _ => Fault::None,
    });
    let mut tx = Transaction::new(store);
    tx.insert(maps[0], "k", 4).insert(maps[1], "k", 4);
    let commit = own.spawn(tx.commit());
    own.block_on(hang.hangs());
    own.shutdown_timeout(10 * SECOND);
    drop(commit);
    hang
}

/// The entries of the other map stayed marked forever, and were never saved again. Without a
/// mark, a removal was not written to the store although the commit had been applied: the
/// removal of a key that was not in memory was acknowledged, and then the map loaded the key
/// and brought it back.
#[test]
fn a_map_whose_transaction_was_abandoned_finds_out_and_goes_on() {
    let both = [true, false];
    let cases = both.map(|lands| both.map(|removed| both.map(|had| (lands, removed, had))));
    for (lands, removed, had) in cases.into_iter().flatten().flatten() {
        let (own, other) = (runtime(), runtime());
        let store = store();
        let (a, b) = (open(&own, &store, "a"), open(&other, &store, "b"));
        own.block_on(a.insert_and_save("first", 1)).unwrap();
        if had {
            other.block_on(b.insert_and_save("k", 1)).unwrap();
        }
        let hang = abandon(&store, own, [&a, &b]);
        other.block_on(async {
            if lands {
                hang.land().await.remove(0).unwrap();
            }
            if removed {
                b.remove_and_save("k").await.unwrap();
            }
            b.flush().await.unwrap();
        });
        let expected = match (removed, lands) {
            (true, _) => None,
            (false, true) => Some(4),
            (false, false) => had.then_some(1),
        };
        let found = (b.get("k"), b.pending());
        assert_eq!(found, (expected, 0), "{lands} {removed} {had}");
        let stored = other.block_on(stored_in(&store, &MapName::new("b").unwrap()));
        let held = expected.map_or_else(|| pairs([]), |value| pairs([("k", value)]));
        assert_eq!(stored, held, "{lands} {removed}");
        assert!(b.health().borrow().is_healthy());
        // A map whose runtime has ended cannot save any more, and returns that error.
        let error = other.block_on(a.remove_and_save("k")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        drop((a, b));
    }
}
