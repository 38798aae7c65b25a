//! Shards: one map over several providers.

mod faults;
#[cfg(feature = "sqlite")]
mod kills;
mod layout;
mod losses;
mod reshard;
#[cfg(feature = "postgres")]
mod servers;

use std::collections::{BTreeMap, BTreeSet};

use persistify::{
    Change, ErrorKind, Expect, Memory, PersistentMap, Provider, Record, Revision, Sharded,
    Transaction, Wanted, copy,
    testing::{Faulty, conformance},
};
use proptest::prelude::*;

use crate::support::{Pen, Store, as_it_is, map_name, open, put, store, write_as_another};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three shards that fail on demand; clones are the same stores.
struct Three([Store; 3]);

impl Three {
    fn new() -> Self {
        Self([store(), store(), store()])
    }

    /// The layer, as another process would open it.
    fn open(&self) -> Sharded {
        let shards = NAMES.into_iter().zip(self.0.iter().cloned());
        Sharded::new(shards).unwrap()
    }

    /// The keys of the map `map` on each shard.
    async fn keys(&self) -> [BTreeSet<String>; 3] {
        let mut all = [const { BTreeSet::new() }; 3];
        for (keys, store) in all.iter_mut().zip(&self.0) {
            let records = records_of(store.inner()).await;
            *keys = records.into_iter().map(|r| r.key.to_string()).collect();
        }
        all
    }
}

/// The records of the map `map`.
async fn records_of(store: &dyn Provider) -> Vec<Record> {
    let load = store.load(&map_name(), Wanted::All).await.unwrap();
    load.into_records().await.unwrap()
}

/// The nth key that is on this shard.
fn key_on(store: &Sharded, shard: &str, n: usize) -> String {
    let keys = (0..).map(|number| format!("key {number}"));
    let mut keys = keys.filter(|key| store.shard_of(key) == shard);
    keys.nth(n).unwrap()
}

#[tokio::test]
async fn one_shard_conforms() {
    let memory = Memory::new();
    conformance(async || Sharded::new([("a", memory.clone())])).await;
}

#[tokio::test]
async fn three_shards_conform() {
    let stores = NAMES.map(|name| (name, Memory::new()));
    conformance(async || Sharded::new(stores.clone())).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn three_shards_in_sqlite_conform() {
    let folder = tempfile::tempdir().unwrap();
    conformance(async || {
        let mut shards = Vec::new();
        for name in NAMES {
            let path = folder.path().join(format!("{name}.db"));
            shards.push((name, persistify::Sqlite::open(path).await?));
        }
        Sharded::new(shards)
    })
    .await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn one_shard_in_postgres_conforms() {
    let database = crate::postgres::Database::fresh();
    let open = async || persistify::Postgres::connect(database.url()).await;
    conformance(async || Sharded::new([("a", open().await?)])).await;
}

#[tokio::test]
async fn each_key_is_on_its_shard_and_the_map_has_them_all() {
    let three = Three::new();
    let store = three.open();
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    let expected: BTreeMap<String, u32> = (0..100).map(|n| (format!("key {n}"), n)).collect();
    for (key, n) in &expected {
        map.insert(key, *n);
    }
    map.close().await.unwrap();
    for (keys, shard) in three.keys().await.iter().zip(NAMES) {
        assert!(keys.len() > 20);
        assert!(keys.iter().all(|key| store.shard_of(key) == shard));
    }
    let map = open::<u32>(three.open(), "map", as_it_is).await;
    let found = map.iter().map(|(key, n)| (key.to_string(), n));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
    map.clear_and_save().await.unwrap();
    assert!(three.keys().await.iter().all(BTreeSet::is_empty));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_shard_more_gets_its_share_and_nothing_else_moves(
        names in prop::collection::btree_set("[a-z]{1,8}", 2..9),
        keys in prop::collection::vec(".{0,20}", 100),
    ) {
        let shards = |names: Vec<&String>| {
            Sharded::new(names.into_iter().map(|name| (name, Memory::new()))).unwrap()
        };
        let all = shards(names.iter().collect());
        for added in &names {
            let fewer = shards(names.iter().filter(|name| *name != added).collect());
            for key in &keys {
                let owner = all.shard_of(key);
                prop_assert!(owner == added || owner == fewer.shard_of(key));
            }
        }
    }
}

#[test]
fn the_shares_are_even() {
    let shards = NAMES.map(|name| (name, Memory::new()));
    let store = Sharded::new(shards).unwrap();
    let mut counts = BTreeMap::<&str, u32>::new();
    for n in 0..30_000 {
        *counts
            .entry(store.shard_of(format!("user/{n}")))
            .or_default() += 1;
    }
    assert!(
        counts.values().all(|n| (9_500..10_500).contains(n)),
        "{counts:?}"
    );
}

/// Conditional saves that wait together share a batch on one store. Their keys are on several
/// shards here, and each must succeed by itself.
#[tokio::test]
async fn conditional_saves_at_a_time_succeed_whatever_their_shards() {
    let map = open::<u32>(Three::new().open(), "map", as_it_is).await;
    let saves = (0..50).map(|n| {
        let map = map.clone();
        async move { map.save_if(format!("key {n}"), n, Expect::Absent).await }
    });
    for saved in futures_util::future::join_all(saves).await {
        saved.unwrap();
    }
    let again = map.save_if("key 7", 0, Expect::Absent).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    let (_, revision) = map.get_with_revision("key 7").unwrap();
    map.save_if("key 7", 8, Expect::At(revision)).await.unwrap();
}

#[tokio::test]
async fn an_atomic_batch_is_atomic_on_one_shard_and_refused_on_two() {
    let three = Three::new();
    let store = three.open();
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    let [a, a2, b] = [("a", 0), ("a", 1), ("b", 0)].map(|(s, n)| key_on(&store, s, n));
    let mut batch = map.batch();
    batch
        .insert(&a, 1)
        .insert(&a2, 2)
        .require(&a, Expect::Absent);
    batch.commit().await.unwrap();
    let refused = map
        .batch()
        .insert(&a, 3)
        .insert(&b, 3)
        .commit()
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(!refused.may_have_applied());
    assert_eq!((map.get(&a), map.get(&b)), (Some(1), None));
    assert!(three.keys().await[1].is_empty());
    // The map is not harmed.
    map.insert_and_save(&b, 4).await.unwrap();
}

#[tokio::test]
async fn a_transaction_of_one_map_commits_and_one_of_two_is_refused() {
    let store = Three::new().open();
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    let other = open::<u32>(store.clone(), "other", as_it_is).await;
    let mut one = Transaction::new(&store);
    one.insert(&map, "key", 1);
    one.commit().await.unwrap();
    let mut two = Transaction::new(&store);
    two.insert(&map, "key", 2).insert(&other, "key", 2);
    let refused = two.commit().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!((map.get("key"), other.get("key")), (Some(1), None));
}

/// Two processes commit to the same shards, so the shards assign different revisions to one
/// batch. The map must not take its own values for those of another process.
#[tokio::test]
async fn a_batch_with_several_revisions_does_not_conflict_with_itself() {
    let three = Three::new();
    let store = three.open();
    let map: PersistentMap<u32> = PersistentMap::builder(store.clone(), "map")
        .conflicts(persistify::OnConflict::StoreWins)
        .open()
        .await
        .unwrap();
    let mut conflicts = map.conflicts();
    for round in 0..5 {
        // Raises the counter of one shard far above the others.
        let ahead = Pen::new().changes(&map_name(), vec![put(&key_on(&store, "a", 9), "1")]);
        let mut ahead = ahead;
        let last = records_of(&store)
            .await
            .iter()
            .map(|r| r.revision.get())
            .max();
        ahead.after = Revision::new(last.unwrap_or(0).max(1 << 42) + 1_000);
        three.open().commit(&ahead).await.unwrap();
        for n in 0..9 {
            for shard in NAMES {
                map.insert(key_on(&store, shard, n), round);
            }
        }
        map.flush().await.unwrap();
    }
    assert!(conflicts.try_recv().is_err());
    assert_eq!(map.stats().conflicts, 0);
    let others = Change::put(
        key_on(&store, "b", 0),
        persistify::Payload::json("77"),
        None,
    );
    write_as_another(&three.open(), vec![others]).await;
    let lost = map
        .insert_and_save(key_on(&store, "b", 0), 5)
        .await
        .unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert_eq!(map.get(key_on(&store, "b", 0)), Some(77));
}

#[tokio::test]
async fn changes_are_unsupported_on_several_shards_and_work_on_one() {
    let wanted = || Wanted::changed(Revision::ZERO);
    let store = Three::new().open();
    let refused = store.load(&map_name(), wanted()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let one = Sharded::new([("a", Memory::new())]).unwrap();
    write_as_another(&one, vec![put("key", "1")]).await;
    let load = one.load(&map_name(), wanted()).await.unwrap();
    assert_eq!(load.into_records().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_map_is_copied_to_shards_and_from_them() {
    let (from, back) = (Memory::new(), Memory::new());
    let map = open::<u32>(from.clone(), "map", as_it_is).await;
    for n in 0..100 {
        map.insert(format!("key {n}"), n);
    }
    map.close().await.unwrap();
    let store = Three::new().open();
    copy(&from, &store, ["map"], |_, _| {}).await.unwrap();
    assert_eq!(store.maps().await.unwrap(), [map_name()]);
    copy(&store, &back, ["map"], |_, _| {}).await.unwrap();
    let map = open::<u32>(back, "map", as_it_is).await;
    assert_eq!(map.len(), 100);
}

#[tokio::test]
async fn every_call_reaches_every_shard() {
    use persistify::testing::Method;
    let three = Three::new();
    let store = three.open();
    let every = |method: Method| three.0.iter().all(|shard| shard.calls(method) > 0);
    store.ping().await.unwrap();
    store.maps().await.unwrap();
    store.drop_map(&map_name()).await.unwrap();
    store.release(&map_name()).await.unwrap();
    three.0[1].down(ErrorKind::Unavailable);
    let failed = store.close().await.unwrap_err();
    assert!(failed.to_string().contains("\"b\""), "{failed}");
    for method in [
        Method::Ping,
        Method::Maps,
        Method::DropMap,
        Method::Release,
        Method::Close,
    ] {
        assert!(every(method), "{method}");
    }
}

/// A drop on one shard has another revision than on the others. A writer that loaded the map
/// before it must be refused by each of them, whatever it has committed since.
#[tokio::test]
async fn a_drop_fences_open_maps_on_every_shard() {
    for ahead in NAMES {
        let three = Three::new();
        let store = three.open();
        let mut pen = Pen::new();
        let mut before = pen.changes(&map_name(), vec![put(&key_on(&store, ahead, 0), "1")]);
        before.after = Revision::new(1 << 43);
        store.commit(&before).await.unwrap();
        let map = open::<u32>(store.clone(), "map", as_it_is).await;
        map.insert_and_save(key_on(&store, ahead, 0), 2)
            .await
            .unwrap();
        three.open().drop_map(&map_name()).await.unwrap();
        for shard in NAMES {
            let late = map
                .insert_and_save(key_on(&store, shard, 1), 3)
                .await
                .unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Rewound, "{shard} of {ahead}");
        }
        assert!(three.keys().await.iter().all(BTreeSet::is_empty));
        let map = open::<u32>(three.open(), "map", as_it_is).await;
        for shard in NAMES {
            map.insert_and_save(key_on(&store, shard, 1), 4)
                .await
                .unwrap();
        }
    }
}

/// One shard has dropped the map, and the drop has not reached the next one yet. A commit there
/// raises the revision that the writer knows above that of the drop, but it has not seen the drop.
#[tokio::test]
async fn a_drop_that_is_under_way_fences_a_map_that_goes_on_writing() {
    let three = Three::new();
    let store = three.open();
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.insert_and_save(key_on(&store, "a", 0), 1)
        .await
        .unwrap();
    // Another program's commits to single stores, which raise their revisions.
    for (shard, revision) in [(2, 1 << 42), (0, 1 << 43)] {
        let mut ahead = Pen::new().changes(&map_name(), vec![]);
        ahead.after = Revision::new(revision);
        three.0[shard].inner().commit(&ahead).await.unwrap();
    }
    three.0[2].inner().drop_map(&map_name()).await.unwrap();
    map.insert_and_save(key_on(&store, "a", 0), 2)
        .await
        .unwrap();
    let late = map
        .insert_and_save(key_on(&store, "c", 0), 3)
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Rewound);
    assert!(three.keys().await[2].is_empty());
}

#[tokio::test]
async fn a_layer_may_be_around_the_shards() {
    use persistify::ProviderExt;
    let three = Three::new();
    let store = Faulty::new(three.open()).namespace("acme").unwrap();
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    for n in 0..20 {
        map.insert(format!("key {n}"), n);
    }
    map.flush().await.unwrap();
    assert_eq!(store.maps().await.unwrap(), [map_name()]);
    assert_eq!(three.open().maps().await.unwrap()[0].as_str(), "acme/map");
}
