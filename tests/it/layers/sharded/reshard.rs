//! Resharding: entries move to the shards of another list, whatever happens meanwhile.

mod interrupted;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use persistify::{
    Change, ErrorKind, Memory, Payload, PersistentMap, Provider, Record, Sharded,
    testing::{Fault, Method},
};

use super::records_of;
use crate::support::{Pen, Store, as_it_is, map_name, name, open, store, write_as_another};

/// Named stores, of which a list takes some.
struct Stores(BTreeMap<&'static str, Store>);

impl Stores {
    fn new() -> Self {
        Self(["a", "b", "c", "d"].map(|name| (name, store())).into())
    }

    fn list(&self, names: &[&'static str]) -> Sharded {
        let shards = names.iter().map(|name| (*name, self.0[name].clone()));
        Sharded::new(shards).unwrap()
    }

    /// The records of the map by key, each on the shard that this list gives it.
    async fn records(&self, list: &Sharded) -> BTreeMap<String, Record> {
        let mut all = BTreeMap::new();
        for (shard, store) in &self.0 {
            for record in records_of(store.inner()).await {
                assert_eq!(list.shard_of(&record.key), *shard, "{}", record.key);
                let twice = all.insert(record.key.to_string(), record);
                assert!(twice.is_none(), "{twice:?}");
            }
        }
        all
    }

    fn behave(&self) {
        self.0.values().for_each(|store| store.behave());
    }

    /// Lets the commits from this one on fail, counted over all stores.
    fn fail_from(&self, nth: u64, fault: fn(ErrorKind) -> Fault) {
        let commits = Arc::new(AtomicU64::new(0));
        for store in self.0.values() {
            let commits = commits.clone();
            store.set_rule(move |call| {
                let is_commit = call.method == Method::Commit;
                let number = commits.fetch_add(u64::from(is_commit), SeqCst) + 1;
                if is_commit && number >= nth {
                    return fault(ErrorKind::Unavailable);
                }
                Fault::None
            });
        }
    }
}

const ENTRIES: u64 = 40;

async fn fill(list: &Sharded) {
    let puts = (0..ENTRIES).map(|n| {
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + n);
        let later = at + Duration::from_secs(4_000_000_000);
        let value = Payload::json(n.to_string());
        let put = Change::put(format!("key {n}"), value, (n % 2 == 0).then_some(later));
        put.written_at(Some(at))
    });
    for map in ["map", "other"] {
        let batch = Pen::new().changes(&name(map), puts.clone().collect());
        list.commit(&batch.divisible(true)).await.unwrap();
    }
}

fn without_revision(records: &BTreeMap<String, Record>) -> Vec<Record> {
    let records = records.values().cloned();
    let zero = persistify::Revision::ZERO;
    records
        .map(|mut record| {
            record.revision = zero;
            record
        })
        .collect()
}

#[tokio::test]
async fn entries_move_to_their_new_shards_and_keep_values_and_times() {
    for (from, to) in [
        (&["a"][..], &["a", "b", "c"][..]),
        (&["a", "b", "c"], &["a", "b"]),
        (&["a", "b"], &["c", "d"]),
        (&["a", "b", "c"], &["b", "c", "d"]),
    ] {
        let stores = Stores::new();
        let (old, new) = (stores.list(from), stores.list(to));
        fill(&old).await;
        let before = stores.records(&old).await;
        let keys: Vec<_> = before.keys().cloned().collect();
        let share = keys
            .iter()
            .filter(|key| old.shard_of(key) != new.shard_of(key))
            .count();
        assert_eq!(old.reshard(&new).await.unwrap(), 2 * share as u64);
        let after = stores.records(&new).await;
        assert_eq!(without_revision(&after), without_revision(&before));
        for (key, record) in &after {
            assert!(record.revision >= before[key].revision, "{key}");
            let has_moved = old.shard_of(key) != new.shard_of(key);
            assert_eq!(record.revision > before[key].revision, has_moved, "{key}");
        }
        // Once more, it does nothing.
        assert_eq!(old.reshard(&new).await.unwrap(), 0);
        let map = open::<u64>(new, "other", as_it_is).await;
        assert_eq!(map.len() as u64, ENTRIES);
        let opened = PersistentMap::<u64>::builder(stores.list(from), "map")
            .open()
            .await;
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("generation 2"), "{error}");
    }
}

#[tokio::test]
async fn there_and_back_again() {
    let stores = Stores::new();
    let lists = [
        &["a", "b"][..],
        &["a", "b", "c"],
        &["b", "c"],
        &["a", "b"],
        &["d"],
        &["a", "b"],
    ];
    fill(&stores.list(lists[0])).await;
    for two in lists.windows(2) {
        let (old, new) = (stores.list(two[0]), stores.list(two[1]));
        old.reshard(&new).await.unwrap();
        assert_eq!(stores.records(&new).await.len() as u64, ENTRIES);
        let map = open::<u64>(new, "map", as_it_is).await;
        map.insert_and_save("key 7", 77).await.unwrap();
    }
}

/// A process that did not close its map.
#[tokio::test]
async fn an_open_map_of_the_old_list_is_superseded() {
    let stores = Stores::new();
    let (old, new) = (stores.list(&["a", "b"]), stores.list(&["a", "b", "c"]));
    fill(&old).await;
    let map = open::<u64>(stores.list(&["a", "b"]), "map", as_it_is).await;
    let idle = open::<u64>(stores.list(&["a", "b"]), "never written to", as_it_is).await;
    old.reshard(&new).await.unwrap();
    for map in [&map, &idle] {
        for n in 0..10 {
            let key = format!("key {n}");
            let refused = map.insert_and_save(&key, 99).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Superseded, "{refused}");
            let refused = map
                .save_if(&key, 99, persistify::Expect::Present)
                .await
                .unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Superseded, "{refused}");
        }
        let refused = map.reload().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Superseded);
        assert_eq!(map.pending(), 10);
        assert!(!map.health().borrow().is_healthy());
    }
    for value in stores.records(&new).await.values() {
        assert_ne!(&*value.value.as_ref().unwrap().bytes, b"99");
    }
    assert_eq!(old.ping().await.unwrap_err().kind(), ErrorKind::Superseded);
    new.ping().await.unwrap();
}

#[tokio::test]
async fn another_list_has_to_wait_until_a_reshard_is_finished() {
    let stores = Stores::new();
    let list = |names| stores.list(names);
    fill(&list(&["a", "b"])).await;
    stores.fail_from(4, Fault::Before);
    list(&["a", "b"])
        .reshard(&list(&["a", "b", "c"]))
        .await
        .unwrap_err();
    stores.behave();
    let error = list(&["a", "b"]).ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(
        error.to_string().contains("[\"a\", \"b\", \"c\"]"),
        "{error}"
    );
    let other = list(&["a", "b"])
        .reshard(&list(&["a", "b", "d"]))
        .await
        .unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Invalid, "{other}");
    assert!(
        other.to_string().contains("[\"a\", \"b\", \"c\"]"),
        "{other}"
    );
    list(&["a", "b"])
        .reshard(&list(&["a", "b", "c"]))
        .await
        .unwrap();
    list(&["a", "b", "c"])
        .reshard(&list(&["a", "b", "d"]))
        .await
        .unwrap();
    assert_eq!(
        stores.records(&list(&["a", "b", "d"])).await.len() as u64,
        ENTRIES
    );
}

#[tokio::test]
async fn a_wrong_list_is_refused_before_anything_is_written() {
    let stores = Stores::new();
    let list = |names| stores.list(names);
    fill(&list(&["a", "b"])).await;
    write_as_another(
        &stores.0["d"],
        vec![Change::put("x", Payload::json("1"), None)],
    )
    .await;
    for (from, to, word) in [
        (&["a", "c"][..], &["a", "c", "d"][..], "stored list"),
        (&["a", "b"], &["a", "b", "d"], "has entries"),
        (&["a", "b", "c"], &["a", "b"], "stored list"),
    ] {
        let error = list(from).reshard(&list(to)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        list(&["a", "b"]).ping().await.unwrap();
    }
    // A store that is given two names.
    let swapped = [("a", stores.0["b"].clone()), ("b", stores.0["a"].clone())];
    let swapped = Sharded::new(swapped.into_iter().chain([("c", stores.0["c"].clone())])).unwrap();
    let error = list(&["a", "b"]).reshard(&swapped).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    list(&["a", "b"]).ping().await.unwrap();
    assert_eq!(records_of(&list(&["a", "b"])).await.len() as u64, ENTRIES);
}

#[tokio::test]
async fn an_existing_store_becomes_the_first_of_several_shards() {
    let stores = Stores::new();
    let map = open::<u64>(stores.0["a"].clone(), "map", as_it_is).await;
    for n in 0..100 {
        map.insert(format!("key {n}"), n);
    }
    map.close().await.unwrap();
    let new = stores.list(&["a", "b", "c"]);
    let moved = stores.list(&["a"]).reshard(&new).await.unwrap();
    assert!((50..80).contains(&moved), "{moved}");
    let map = open::<u64>(new, map_name().as_str(), as_it_is).await;
    assert_eq!(map.len(), 100);
}

/// The new list was opened by mistake before the entries were moved, and its process goes on.
#[tokio::test]
async fn a_new_list_that_was_opened_too_early_is_superseded() {
    let stores = Stores::new();
    let list = |names| stores.list(names);
    fill(&list(&["a", "b"])).await;
    let early = open::<u64>(list(&["c", "d"]), "map", as_it_is).await;
    list(&["a", "b"]).reshard(&list(&["c", "d"])).await.unwrap();
    let refused = early.insert_and_save("key 1", 99).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Superseded);
    let map = open::<u64>(list(&["c", "d"]), "map", as_it_is).await;
    assert_eq!(map.get("key 1"), Some(1));
    // A shard of another list.
    let foreign = Stores::new();
    fill(&foreign.list(&["b"])).await;
    let two = [("b", foreign.0["b"].clone()), ("c", stores.0["c"].clone())];
    let refused = list(&["c", "d"])
        .reshard(&Sharded::new(two).unwrap())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert_eq!(
        foreign.records(&foreign.list(&["b"])).await.len() as u64,
        ENTRIES
    );
}

#[tokio::test]
async fn a_page_of_entries_is_moved_at_a_time() {
    let (a, b) = (Memory::new(), Memory::new());
    let puts = (0..1_000).map(|n| Change::put(format!("key {n}"), Payload::json("1"), None));
    write_as_another(&a, puts.collect()).await;
    let old = Sharded::new([("a", a.clone())]).unwrap();
    let new = Sharded::new([("a", a.clone()), ("b", b.clone())]).unwrap();
    let moved = old.reshard(&new).await.unwrap();
    assert_eq!(moved, records_of(&b).await.len() as u64);
    assert_eq!(
        records_of(&a).await.len() + records_of(&b).await.len(),
        1_000
    );
}
