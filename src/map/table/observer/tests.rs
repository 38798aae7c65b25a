//! A map's observer sees every change: a copy that it keeps equals the map.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::*;
use crate::{
    batch::Expect,
    clock::{MapClock, SystemClock},
    map::{
        Map,
        api::builder::options::Options,
        core::Core,
        lifetime::Forever,
        shared::Shared,
        write_behind::conflicts::{Conflicts, OnConflict},
    },
    name::MapName,
    provider::memory::Memory,
};

#[derive(Clone, Default)]
struct Copy(Arc<Mutex<BTreeMap<String, u32>>>);

impl Observer<u32> for Copy {
    fn changed(&self, key: &Arc<str>, value: Option<&u32>) {
        let mut entries = self.0.lock();
        match value {
            Some(value) => entries.insert(key.to_string(), *value),
            None => entries.remove(&**key),
        };
    }

    fn cleared(&self) {
        self.0.lock().clear();
    }
}

async fn open(store: &Memory, policy: OnConflict<u32>) -> (Map<u32, Forever>, Copy) {
    let name: MapName = "map".try_into().unwrap();
    let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
    let shared = Shared::new(name, Arc::new(store.clone()), Options::default(), clock);
    let copy = Copy::default();
    let core = Core::new(shared, Forever, Conflicts::new(policy)).observed_by(copy.clone());
    let loaded = core.load(None).await.unwrap();
    (Map::start(Arc::new(core), loaded, Handle::current()), copy)
}

/// One step of a history, on this map or on the map of another process.
async fn step(map: &Map<u32, Forever>, there: &Map<u32, Forever>, random: u32) {
    let key = ["a", "b", "c", "d"][(random >> 8) as usize % 4];
    let value = random >> 16;
    // Results are ignored: lost conflicts and missing entries are part of the
    // history.
    match random % 16 {
        0..3 => drop(map.insert(key, value)),
        3 => drop(map.update(key, |v| *v += 1)),
        4 => drop(map.remove(key)),
        5 => map.upsert(key, value, |v| *v = value),
        6 => map.entry(key, |entry| *entry.or_insert(value) += 1),
        7 => drop(map.save_if(key, value, Expect::Absent).await),
        8 => drop(map.batch().insert(key, value).remove("d").commit().await),
        9 => drop(there.insert_and_save(key, value).await),
        10 => drop(there.remove_and_save(key).await),
        11 => drop(map.reload().await),
        12 => drop(map.flush().await),
        13 => drop(map.update_in_store(key, |v| v + 1).await),
        14 if random & 0x80 != 0 => map.clear(),
        _ => map.retain(|_, v| v % 7 != 0),
    }
}

#[tokio::test]
async fn a_copy_kept_by_the_observer_equals_the_map() {
    for policy in [
        OnConflict::LastWrite,
        OnConflict::StoreWins,
        OnConflict::Merge(|mine: u32, theirs| mine.max(theirs)),
    ] {
        let store = Memory::new();
        let (there, _) = open(&store, OnConflict::LastWrite).await;
        there.insert_and_save("a", 1).await.unwrap();
        let (map, copy) = open(&store, policy).await;
        let mut random = 1_u32;
        for _ in 0..2_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            step(&map, &there, random >> 3).await;
            let entries: BTreeMap<_, _> = map.snapshot().into_iter().collect();
            assert_eq!(*copy.0.lock(), entries);
        }
        assert!(map.stats().commits > 100);
    }
}

#[tokio::test]
async fn an_update_that_panics_is_observed_as_it_left_the_entry() {
    let (map, copy) = open(&Memory::new(), OnConflict::LastWrite).await;
    map.insert("a", 1);
    let broken = map.clone();
    let update = move || {
        broken.update("a", |value| {
            *value = 2;
            panic!("on purpose");
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(update)).is_err());
    assert_eq!(copy.0.lock().get("a"), Some(&2));
}
